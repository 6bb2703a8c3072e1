"""Python API: `plan` decides how to start a command on the nodes of the job, and `run` starts it.

    from ezpz.launch.api import plan, run

    planned = plan(["python", "train.py"], ppn=4)
    print(planned.line)             # the command line for a shell
    status = run(planned)           # 0, the status of the command, or 128 + N for signal N

Both raise `ezpz.errors.EzpzError`, with a message, a hint, and an exit code. Call `run` in the main thread: it forwards
signals to the ranks.
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
    """Decide how to start `command`. Each other argument is the option of `ezpz launch` with the same name.

    Nothing is started except queries about this host (`mpiexec --version`, `nvidia-smi -L`).

    Args:
        command: The program and its arguments.
        nproc: `--nproc`.
        ppn: `--ppn`.
        nhosts: `--nhosts`: a number, or the minimum and the maximum.
        spares: `--spares`.
        hosts: `--hosts`.
        hostfile: `--hostfile`.
        exclude: `--exclude`: nodesets.
        hsn: `--hsn`.
        cpu_bind: `--cpu-bind`.
        gpus_per_rank: `--gpus-per-rank`.
        env: `--env`.
        site: `--site`.
        launcher: `--launcher`.
        options: Words for the launcher itself.
        environ: The environment in place of that of this process.

    Raises:
        UsageError: The command is empty or text, or the numbers are not possible.
        EzpzError: The nodes, the site, or a launcher do not exist.
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
    """Run a plan on the terminal of this process and return the exit status (128 + N for signal N).

    Args:
        planned: The plan.
        environ: The environment in place of that of this process.
        stdout: A descriptor in place of stdout of the ranks.
        grace: Seconds for the ranks to end after a signal.

    Raises:
        CommandNotFound: The command or its environment does not exist.
        LauncherMissing: The launcher cannot be started.
        LauncherFailed: The launcher ended before any rank ran.
        NodeLost: A node is unreachable or lost.
    """
    return execute(planned, environ=os.environ if environ is None else environ, stdout=stdout, grace=grace)
