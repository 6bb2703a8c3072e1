"""The environment that COMMAND runs in: the active one, or the copy that a yeet has put on every node."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLES = ("VIRTUAL_ENV", "CONDA_PREFIX")
FAILED_NODES = ".ezpz-yeet-failed-nodes.txt"
RECEIPT = ".ezpz-yeet-receipt.json"
ENV_SCRIPT = "env.sh"

_PYTHON = re.compile(r"python[0-9.]*")


@dataclass(frozen=True, slots=True)
class Home:
    """An environment's place on the nodes.

    variable: what its activation sets, VIRTUAL_ENV or CONDA_PREFIX; "" for a copy, which tells on the node
    original: where the copy was made from, as far as this shell knows: what leads there leads into the copy
    """

    prefix: str
    variable: str = ""
    original: str = ""

    @property
    def is_copy(self) -> bool:
        """Whether a yeet has put it there."""
        return not self.variable

    def script(self) -> tuple[str, ...]:
        """What a rank does to be in this environment, as statements of sh. A copy's own env.sh also moves caches."""
        place = shlex.quote(self.prefix)
        path = f'PATH={place}/bin:"$PATH"'
        if not self.is_copy:
            return (f"export {self.variable}={place} {path}",)
        activate = (
            f"if [ -r {place}/{ENV_SCRIPT} ]; then . {place}/{ENV_SCRIPT}; "
            f"elif [ -d {place}/conda-meta ]; then export CONDA_PREFIX={place} {path}; "
            f"else export VIRTUAL_ENV={place} {path}; fi"
        )
        return (f'[ -d {place}/bin ]||{{ m homeless "there is no environment at "{place};exit 51;}}', activate)

    def resolved(self, command: tuple[str, ...], exists: Callable[[str], bool]) -> tuple[str, ...]:
        """The command, its program led into this environment: a bare python, or a path into the original."""
        program, *arguments = command
        inside = os.path.join(self.prefix, "bin", program)
        if _PYTHON.fullmatch(program) and (self.is_copy or exists(inside)):
            return (inside, *arguments)
        if self.is_copy and self.original and program.startswith(self.original.rstrip("/") + "/"):
            return (self.prefix + program[len(self.original.rstrip("/")) :], *arguments)
        return command


def find_home(
    environ: Mapping[str, str], env: str | None, exists: Callable[[str], bool], *, original: str = ""
) -> Home | None:
    """The copy at `env`, else the active environment, else None. Raises UsageError unless `env` is an absolute path."""
    variable = next((name for name in VARIABLES if environ.get(name)), "")
    active = environ[variable] if variable else ""
    if env is not None:
        if not os.path.isabs(env):
            raise UsageError(f"--env {env!r} is not an absolute path", hint="give the place on the nodes: /tmp/NAME")
        if not env.isprintable():
            raise UsageError(f"--env {env!r} holds a control character")
        prefix = os.path.normpath(env)
        return Home(prefix, original=original or (active if active != prefix else ""))
    if not active:
        return None
    if exists(os.path.join(active, RECEIPT)) and exists(os.path.join(active, ENV_SCRIPT)):
        return Home(active)
    return Home(active, variable)
