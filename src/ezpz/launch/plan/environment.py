"""The environment that COMMAND runs in: the active one, or the copy that a yeet has put on every node."""

from __future__ import annotations

import os
import re
import shlex
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLES = ("VIRTUAL_ENV", "CONDA_PREFIX")
FAILED_NODES = ".ezpz-yeet-failed-nodes.txt"
RECEIPT = ".ezpz-yeet-receipt.json"
ENV_SCRIPT = "env.sh"

SHARED_FILESYSTEMS = (
    "nfs", "nfs4", "lustre", "gpfs", "ceph", "beegfs", "beegfs_nodev", "panfs", "pvfs2", "orangefs", "cifs", "smb3",
    "smbfs", "9p", "afs", "dvs", "glusterfs", "wekafs", "vast", "daos", "virtiofs",
)  # fmt: skip
"""The types of filesystems that look the same on every node."""

_PYTHON = re.compile(r"python[0-9.]*")

_TRUST_FUNCTIONS = (
    # far DIR: DIR is on a filesystem that the nodes share.
    'far(){ case $(df --output=fstype -- "$1" 2>/dev/null|tail -n 1) in '
    f"{'|'.join(SHARED_FILESYSTEMS)});;*)return 1;;esac;}}; "
    # all W PATH...: no PATH can have been made or changed by another user. With W=w, each must be the user's or root's;
    # without, only those directly below a directory in which everybody may create names.
    'all(){ k=$1;w=$1;shift;d=$1;t=$(stat -c %u:%A -- "$@" 2>/dev/null);[ "$t" ]||return 1;for s in $t;do '
    'case $w$s in w0:*|w"$u":*|[0-9]*);;*)far "$d"||return 1;;esac;'
    'case $s in *:d???????w[tT])w=w;;*:[!l]???????w?)far "$1"||return 1;w=w;;*)w=$k;;esac;d=$1;shift;done;}; '
    # way PATH: the same for PATH and every directory above it.
    'way(){ a=$1;set --;while [ "$a" ];do set -- "$a" "$@";a=${a%/*};done;all "" / "$@";}; '
    # own DIR PROGRAM: the same for DIR, for what its links lead to, and for what is sourced or run from it.
    'own(){ u=$(id -u);p=$1;c=$1/bin/python3;case $2 in "$1"/*)c=$2;;esac;'
    'way "$p"&&way "$(cd -P -- "$p"&&pwd)"||return;if [ -O "$p" ];then k=w;else k=;fi;'
    'set -- "$k" "$p";for f in "$p/bin" "$p/bin/activate" "$p/env.sh" "$c";do '
    '[ -e "$f" ]&&set -- "$@" "$f";done;all "$@"||return;[ ! -e "$c" ]||way "$(readlink -f -- "$c")";}'
)
"""Functions of sh that tell whether an environment on a node is one that the user can trust."""


@dataclass(frozen=True, slots=True)
class RankEnvironment:
    """An environment's place on the nodes.

    variable: what its activation sets, VIRTUAL_ENV or CONDA_PREFIX; "" for a copy, which tells on the node
    original: where the copy was made from, as far as this shell knows: what leads there leads into the copy
    exposed: it stands below a directory in which everybody may create names, so that on another node it may be
    somebody else's; a copy always counts as exposed
    """

    prefix: str
    variable: str = ""
    original: str = ""
    exposed: bool = False

    @property
    def is_copy(self) -> bool:
        """Whether a yeet has put it there."""
        return not self.variable

    def script(self) -> tuple[str, ...]:
        """What a rank does to be in this environment, as statements of sh. A copy's own env.sh also moves caches."""
        place = shlex.quote(self.prefix)
        path = f'PATH={place}/bin:"$PATH"'
        if not self.is_copy:
            guard = (f"[ ! -e {place} ]||{self._guard()}",) if self.exposed else ()
            return (*guard, f"export {self.variable}={place} {path}")
        activate = (
            f"if [ -r {place}/{ENV_SCRIPT} ]; then . {place}/{ENV_SCRIPT}; "
            f"elif [ -d {place}/conda-meta ]; then export CONDA_PREFIX={place} {path}; "
            f"else export VIRTUAL_ENV={place} {path}; fi"
        )
        there = f'[ -d {place}/bin ]||{{ m homeless "there is no environment at "{place};exit 51;}}'
        return (there, self._guard(), activate)

    def _guard(self) -> str:
        """Return the statement of sh that ends a rank on a node where the environment is not to be trusted."""
        place = shlex.quote(self.prefix)
        return f'({_TRUST_FUNCTIONS}; own {place} "$1")||{{ m foreign "another user can change "{place}", or owns it";exit 51;}}'

    def resolve_command(self, command: tuple[str, ...], exists: Callable[[str], bool]) -> tuple[str, ...]:
        """The command, its program led into this environment: a bare python, or a path into the original."""
        program, *arguments = command
        inside = os.path.join(self.prefix, "bin", program)
        if _PYTHON.fullmatch(program) and (self.is_copy or exists(inside)):
            return (inside, *arguments)
        if self.is_copy and self.original and program.startswith(self.original.rstrip("/") + "/"):
            return (self.prefix + program[len(self.original.rstrip("/")) :], *arguments)
        return command


def is_exposed(path: str) -> bool:
    """Return whether everybody may create names in a directory above `path`, on this host."""
    directory = os.path.dirname(path)
    try:
        while not os.stat(directory).st_mode & stat.S_IWOTH:
            if directory == os.path.dirname(directory):
                return False
            directory = os.path.dirname(directory)
    except OSError:
        return False
    return True


def find_environment(
    environ: Mapping[str, str], env: str | None, exists: Callable[[str], bool], *, original: str = ""
) -> RankEnvironment | None:
    """The copy at `env`, else the active environment, else None. Raises UsageError unless `env` is an absolute path."""
    variable = next((name for name in VARIABLES if environ.get(name)), "")
    active = environ[variable] if variable else ""
    if env is not None:
        if not os.path.isabs(env):
            raise UsageError(f"--env {env!r} is not an absolute path", hint="give the place on the nodes: /tmp/NAME")
        if not env.isprintable():
            raise UsageError(f"--env {env!r} holds a control character")
        prefix = os.path.normpath(env)
        return RankEnvironment(prefix, original=original or (active if active != prefix else ""))
    if not active:
        return None
    if exists(os.path.join(active, RECEIPT)) and exists(os.path.join(active, ENV_SCRIPT)):
        return RankEnvironment(active)
    return RankEnvironment(active, variable, exposed=is_exposed(os.path.realpath(active)) or is_exposed(active))
