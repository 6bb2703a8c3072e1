"""Carry a LaunchPlan out: the hostfile, the command in the foreground, its exit status."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz import process
from ezpz.errors import CommandNotFound, EzpzError, LauncherMissing, TimedOut, ToolMissing
from ezpz.launch.launchers import HOSTFILE
from ezpz.launch.relay import relay_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.launch.plan import LaunchPlan

GRACE = 10.0  # seconds that ranks have to end after Ctrl-C or SIGTERM, for instance to write a checkpoint
PATIENCE = 10.0  # seconds for `mpiexec --version`


@dataclass(frozen=True)
class PathTools:
    """The programs on PATH, each asked for its version at most once."""

    def path(self, name: str) -> str:
        """Where the program is, links resolved, or "" if it is not on PATH."""
        found = shutil.which(name)
        return os.path.realpath(found) if found else ""

    def version(self, name: str) -> str:
        """What `NAME --version` prints, on whatever stream; "" when it cannot say within 10 s."""
        return _version(name)


@functools.cache
def _version(name: str) -> str:
    try:
        done = process.run((name, "--version"), timeout=PATIENCE)
    except (ToolMissing, TimedOut):
        return ""
    return f"{done.out}\n{done.err}"


def execute(
    plan: LaunchPlan,
    *,
    environ: Mapping[str, str],
    stdout: int | None = None,
    grace: float = GRACE,
    through: Callable[..., int] = process.foreground,
) -> int:
    """Run the plan's command to its end, on this terminal, and return its exit status (128 + N for signal N).

    `stdout` is a descriptor for what it prints there. `through`: what runs it, called as `process.foreground` is.
    Raises CommandNotFound and LauncherMissing.
    """
    invocation = plan.invocation
    through = functools.partial(through, pass_on=relay_of(plan, environ))
    envs = [{**environ, **extra} for extra in invocation.ranks]
    try:
        if not invocation.hostfile:
            return through(invocation.argv, envs=envs, grace=grace, stdout=stdout)
        with tempfile.NamedTemporaryFile("w", prefix="ezpz-hosts-", encoding="utf-8") as file:  # mode 0600
            file.write(invocation.hostfile)
            file.flush()
            argv = list(invocation.argv)
            argv[argv.index(HOSTFILE)] = file.name
            return through(argv, envs=envs, grace=grace, stdout=stdout)
    except ToolMissing as e:
        raise _not_found(plan, e.message, e.hint) from e
    except OSError as e:
        raise _not_found(
            plan,
            f"'{invocation.argv[0]}' cannot be started on this host: {e.strerror}",
            "does the script begin with #!?",
        ) from e


def _not_found(plan: LaunchPlan, message: str, hint: str) -> EzpzError:
    own = plan.invocation.argv == plan.job.command
    return (CommandNotFound if own else LauncherMissing)(message, hint=hint)
