"""The Python API: `plan` decides how to start a command on the nodes of the job, `run` starts it.

    from ezpz.launch.api import plan, run

    planned = plan(["python", "train.py"], ppn=4)
    print(planned.line)             # what would be typed
    status = run(planned)           # 0, the command's own status, or 128 + N for signal N

Both raise `ezpz.errors.EzpzError`, with a message, a hint and an exit code. `run` belongs into the main thread, whose
signals it hands on to the ranks.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.errors import UsageError
from ezpz.launch.execute.run import GRACE, execute
from ezpz.launch.plan.discover import PlacementOptions, make_launch_plan
from ezpz.launch.plan.plan import LaunchPlan, LaunchRequest
from ezpz.launch.plan.topology import NodeCount, RankRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LaunchPlan", "plan", "run"]


def plan(
    command: Sequence[str],
    *,
    nproc: int | None = None,
    ppn: int | None = None,
    nhosts: int | tuple[int, int] | None = None,
    spares: int = 0,
    hosts: str | None = None,
    hostfile: str | None = None,
    exclude: Sequence[str] = (),
    hsn: str = "auto",
    cpu_bind: str | None = None,
    gpus_per_rank: int | None = None,
    env: str | None = None,
    site: str | None = None,
    launcher: str | None = None,
    options: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> LaunchPlan:
    """Decide how to start `command`: each argument is the option of `ezpz launch` of the same name.

    nhosts: a number, or the least and the most. options: words for the launcher itself. environ: in place of this
    process's environment. Nothing is started but what tells about this host (`mpiexec --version`, `nvidia-smi -L`).
    Raises EzpzError, a UsageError for what is no command, and for numbers that cannot be.
    """
    if isinstance(command, str) or not command:
        raise UsageError(f"{command!r} is no command", hint="give a list: the program and its arguments")
    minimum, maximum = nhosts if isinstance(nhosts, tuple) else (nhosts, nhosts)
    count = None if minimum is None or maximum is None else NodeCount(minimum, maximum)
    rank_request = RankRequest(nproc, ppn, count, spares, gpus_per_rank)
    request = LaunchRequest(tuple(command), rank_request, cpu_bind, tuple(options), launcher)
    placement = PlacementOptions(hosts, hostfile, hsn, tuple(exclude), env, site=site)
    return make_launch_plan(request, placement, os.environ if environ is None else environ)


def run(
    planned: LaunchPlan,
    *,
    environ: Mapping[str, str] | None = None,
    stdout: int | None = None,
    grace: float = GRACE,
) -> int:
    """Run a plan to its end, on this process's terminal, and return the exit status (128 + N for signal N).

    stdout: a descriptor for what the ranks print there. grace: seconds that they have to end after a signal. Raises
    CommandNotFound, LauncherMissing and LauncherFailed.
    """
    return execute(planned, environ=os.environ if environ is None else environ, stdout=stdout, grace=grace)
