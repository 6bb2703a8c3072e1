"""HPE's `mpiexec`, PALS."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from ezpz.cluster.schedulers.pbs import PBS
from ezpz.launch.launchers.base import HOSTFILE, Invocation, Launcher, RankNames, Verdict, bound, told_by_version
from ezpz.launch.launchers.failure_signs import EXIT, NODE, NODE_GROUP, SIGNAL, Sign, sign
from ezpz.launch.launchers.output_labels import Label

if TYPE_CHECKING:
    from ezpz.launch.launchers.base import Job, Tools


class Pals(Launcher):
    """HPE's `mpiexec` on PBS systems. It reads a bare list of the names that PBS gave, and knows no `slots=`."""

    name = "pals"
    order = 30
    ranks: ClassVar[RankNames | None] = RankNames(
        "PALS_RANKID", "PMI_SIZE", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE", "PALS_NODEID"
    )
    label: ClassVar[Label | None] = Label(
        ("--label",),
        re.compile(rb"(?P<node>[A-Za-z0-9_.-]+) (?P<rank>\d+): "),
        frozenset(("-l", "--label")),
    )
    signs: ClassVar[tuple[Sign, ...]] = (
        sign(NODE, "shepherd died", rf"{NODE_GROUP}: shepherd died from signal \d+"),
        sign(NODE, "ping RPC timeout", rf"ping RPC timeout from {NODE_GROUP} after"),
        sign(NODE, "launch failed on", rf"launch failed on {NODE_GROUP}:"),
        sign(
            SIGNAL,
            "died from signal",
            rf"(?:{NODE_GROUP}: )?\brank (?P<rank>\d+)\b.*? died from signal (?P<signal>\d+)",
        ),
        sign(
            EXIT, "exited with code", rf"(?:{NODE_GROUP}: )?\brank (?P<rank>\d+)\b.*? exited with code (?P<status>\d+)"
        ),
    )
    files = r"(-[oe]|--(output|error))"

    def judge(self, job: Job, tools: Tools, /) -> Verdict:
        if job.system is not PBS:
            return Verdict(able=False, why="this is no PBS job")
        if "/pals/" in tools.path("mpiexec"):
            return Verdict(able=True, why=f"the job is PBS's, and mpiexec is {tools.path('mpiexec')}")
        return told_by_version(tools, "PALS")

    def invocation(self, job: Job) -> Invocation:
        argv = (job.program, "-n", str(job.ranks), "--ppn", str(job.ppn), "--hostfile", HOSTFILE, *job.options)
        argv = (*argv, *bound("--cpu-bind={}", job.cpu_bind))
        return Invocation((*argv, *job.command), "".join(f"{node.given}\n" for node in job.allocation.nodes))


CANDIDATES = (Pals(),)
