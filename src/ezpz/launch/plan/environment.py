"""Python environment that COMMAND runs in: the active one, or a copy of `ezpz yeet` on every node."""

from __future__ import annotations

import os
import re
import shlex
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.agent.common.filesystem import SHARED_FILESYSTEMS
from ezpz.agent.common.layout import RECEIPT
from ezpz.errors import UsageError
from ezpz.launch.launchers.startup_protocol import NO_ENVIRONMENT, UNTRUSTED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLES = ("VIRTUAL_ENV", "CONDA_PREFIX")
ENV_SCRIPT = "env.sh"
_PYTHON = re.compile(r"python[0-9.]*")

_TRUST_FUNCTIONS = (
    # far DIR: DIR is on a shared filesystem.
    'far(){ case $(df --output=fstype -- "$1" 2>/dev/null|tail -n 1) in '
    f"{'|'.join(SHARED_FILESYSTEMS)});;*)return 1;;esac;}}; "
    # all W PATH...: no PATH can have been created or changed by another user. With W=w, each must belong to the user
    # or root; without, only those directly in a directory that every user can write to.
    'all(){ k=$1;w=$1;shift;d=$1;t=$(stat -c %u:%A -- "$@" 2>/dev/null);[ "$t" ]||return 1;for s in $t;do '
    'case $w$s in w0:*|w"$u":*|[0-9]*);;*)far "$d"||return 1;;esac;'
    'case $s in *:d???????w[tT])w=w;;*:[!l]???????w?)far "$1"||return 1;w=w;;*)w=$k;;esac;d=$1;shift;done;}; '
    # way PATH: `all` for PATH and every directory above it.
    'way(){ a=$1;set --;while [ "$a" ];do set -- "$a" "$@";a=${a%/*};done;all "" / "$@";}; '
    # own DIR PROGRAM: `way` for DIR and the targets of its links, `all` for the files that are sourced or run.
    'own(){ u=$(id -u);p=$1;c=$1/bin/python3;case $2 in "$1"/*)c=$2;;esac;'
    'way "$p"&&way "$(cd -P -- "$p"&&pwd)"||return;if [ -O "$p" ];then k=w;else k=;fi;'
    'set -- "$k" "$p";for f in "$p/bin" "$p/bin/activate" "$p/env.sh" "$c";do '
    '[ -e "$f" ]&&set -- "$@" "$f";done;all "$@"||return;[ ! -e "$c" ]||way "$(readlink -f -- "$c")";}'
)
"""Functions of sh that check whether the user can trust an environment on a node."""


@dataclass(frozen=True, slots=True)
class RankEnvironment:
    """An environment on the nodes.

    Attributes:
        variable: The variable that its activation sets, VIRTUAL_ENV or CONDA_PREFIX; "" for a copy, where the node
            decides.
        original: The source of the copy, if it is known. A command in it becomes one in the copy.
        exposed: Whether a directory above it can be written by every user, so that on another node it can belong to
            another user. A copy always counts as exposed.
    """

    prefix: str
    variable: str = ""
    original: str = ""
    exposed: bool = False

    @property
    def is_copy(self) -> bool:
        """Whether `ezpz yeet` deployed it."""
        return not self.variable

    def script(self) -> tuple[str, ...]:
        """Return statements of sh that activate the environment. The env.sh of a copy also moves caches."""
        prefix = shlex.quote(self.prefix)
        path = f'PATH={prefix}/bin:"$PATH"'
        if not self.is_copy:
            guard = (f"[ ! -e {prefix} ]||{self._guard()}",) if self.exposed else ()
            return (*guard, f"export {self.variable}={prefix} {path}")
        activate = (
            f"if [ -r {prefix}/{ENV_SCRIPT} ]; then . {prefix}/{ENV_SCRIPT}; "
            f"elif [ -d {prefix}/conda-meta ]; then export CONDA_PREFIX={prefix} {path}; "
            f"else export VIRTUAL_ENV={prefix} {path}; fi"
        )
        exists = f'[ -d {prefix}/bin ]||{{ m {NO_ENVIRONMENT} "there is no environment at "{prefix};exit 51;}}'
        return (exists, self._guard(), activate)

    def _guard(self) -> str:
        """Return the statement of sh that ends a rank on a node where the environment cannot be trusted."""
        prefix = shlex.quote(self.prefix)
        message = f'"another user can change "{prefix}", or owns it"'
        return f'({_TRUST_FUNCTIONS}; own {prefix} "$1")||{{ m {UNTRUSTED} {message};exit 51;}}'

    def resolve_command(self, command: tuple[str, ...], exists: Callable[[str], bool]) -> tuple[str, ...]:
        """Return the command with its program in this environment, if it is `python` or a path into the original."""
        program, *arguments = command
        inside = os.path.join(self.prefix, "bin", program)
        if _PYTHON.fullmatch(program) and (self.is_copy or exists(inside)):
            return (inside, *arguments)
        if self.is_copy and self.original and program.startswith(self.original.rstrip("/") + "/"):
            return (self.prefix + program[len(self.original.rstrip("/")) :], *arguments)
        return command


def is_exposed(path: str) -> bool:
    """Return whether every user can write to a directory above `path` on this host."""
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
    """Return the copy at `env`, else the active environment, else None.

    Raises:
        UsageError: `env` is not an absolute path, or it contains a control character.
    """
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
    if exists(os.path.join(active, os.fsdecode(RECEIPT))) and exists(os.path.join(active, ENV_SCRIPT)):
        return RankEnvironment(active)
    return RankEnvironment(active, variable, exposed=is_exposed(os.path.realpath(active)) or is_exposed(active))
