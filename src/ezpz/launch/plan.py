"""Request + Allocation + the programs of this host -> LaunchPlan: decided here, shown by --dry-run, done in run.py."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ezpz.cluster.hostnames import fold
from ezpz.errors import LauncherMissing, UsageError
from ezpz.launch.launchers import LAUNCHERS, Invocation, Job, Launcher, Tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ezpz.cluster.model import Allocation

SCHEMA = "ezpz/launch/1"


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What the user asked for; None where nothing was said."""

    command: tuple[str, ...]
    nproc: int | None = None
    ppn: int | None = None


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What will be run: how many ranks where, by which launcher and why, as which command line.

    evidence: one line for each launcher that was passed over
    """

    launcher: str
    reason: str
    evidence: tuple[str, ...]
    invocation: Invocation
    job: Job

    def to_dict(self) -> dict[str, Any]:
        """The plan as a JSON document."""
        allocation = self.job.allocation
        return {
            "schema": SCHEMA,
            "launcher": self.launcher,
            "reason": self.reason,
            "argv": list(self.invocation.argv),
            "hostfile": self.invocation.hostfile.splitlines(),
            "ranks": self.job.ranks,
            "ppn": self.job.ppn,
            "nodes": [node.name for node in allocation.nodes],
            "scheduler": allocation.scheduler,
            "job_id": allocation.job_id,
            "evidence": [*allocation.evidence, *self.evidence],
            "warnings": list(allocation.warnings),
        }

    def to_lines(self) -> tuple[str, ...]:
        """The plan for people."""
        nodes = self.job.allocation.nodes
        return (
            f"nodes     {fold(node.name for node in nodes)} ({len(nodes)})",
            f"ranks     {self.job.ranks}, {self.job.ppn} a node",
            f"launcher  {self.launcher}: {self.reason}",
            f"command   {shlex.join(self.invocation.argv)}",
        )


def plan(
    request: LaunchRequest,
    allocation: Allocation,
    tools: Tools,
    *,
    environ: Mapping[str, str],
    launchers: Sequence[Launcher] = LAUNCHERS,
) -> LaunchPlan:
    """Decide how to start the command. Raises UsageError for numbers that do not fit, LauncherMissing."""
    if request.command[0].startswith("-"):
        raise UsageError(
            f"the command {request.command[0]!r} looks like an option", hint="give its path: ./-name, or /dir/-name"
        )
    ranks, ppn = spread(request, len(allocation.nodes))
    used = replace(allocation, nodes=allocation.nodes[: -(-ranks // ppn)])
    job = Job(request.command, used, ranks, ppn, environ)
    passed: list[str] = []
    for launcher in launchers:
        verdict = launcher.judge(job, tools)
        if verdict.able:
            return LaunchPlan(launcher.name, verdict.why, tuple(passed), launcher.invocation(job), job)
        passed.append(f"{launcher.name}: {verdict.why}")
    raise LauncherMissing(
        f"nothing here can start ranks on {fold(node.name for node in used.nodes)}: {'; '.join(passed)}",
        hint="load the module that has srun or mpiexec, or install MPICH",
    )


def spread(request: LaunchRequest, nodes: int) -> tuple[int, int]:
    """How many ranks, and how many of them a node: one on every node unless -n or --ppn say otherwise.

    Nodes are filled one after another; with -n alone every node gets as many as every other. Raises UsageError.
    """
    ranks, ppn = request.nproc, request.ppn
    if ranks is None:
        ppn = ppn or 1
        return nodes * ppn, ppn
    if ppn is None:
        if ranks > nodes and ranks % nodes:
            low = ranks // nodes
            raise UsageError(
                f"-n {ranks} cannot be spread evenly: "
                f"{nodes} nodes x {low} = {nodes * low}, {nodes} nodes x {low + 1} = {nodes * (low + 1)}",
                hint=f"add --ppn {low + 1} to fill the nodes one after another",
            )
        return ranks, max(1, ranks // nodes)
    if ranks > nodes * ppn:
        raise UsageError(
            f"-n {ranks} does not fit with --ppn {ppn}: {nodes} nodes x {ppn} = {nodes * ppn} < {ranks}",
            hint=f"raise --ppn to {-(-ranks // nodes)}, or leave it out",
        )
    return ranks, ppn
