"""The `mpiexec` of HPE: PALS."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from ezpz.cluster.schedulers.pbs import PBS
from ezpz.launch.launchers.base import (
    HOSTFILE,
    Availability,
    Invocation,
    Launcher,
    RankVariables,
    binding_words,
    check_version,
)
from ezpz.launch.launchers.failure_lines import EXIT, NODE, NODE_GROUP, SIGNAL, FailurePattern
from ezpz.launch.launchers.output_labels import LabelFormat

if TYPE_CHECKING:
    from ezpz.launch.launchers.base import LaunchSpec, Tools


class PalsLauncher(Launcher):
    """The `mpiexec` of HPE on PBS systems. Its hostfile is a list of the names that PBS has, without `slots=`."""

    name = "pals"
    order = 30
    rank_variables: ClassVar[RankVariables | None] = RankVariables(
        "PALS_RANKID", "PMI_SIZE", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE", "PALS_NODEID"
    )
    label: ClassVar[LabelFormat | None] = LabelFormat(
        ("--label",),
        re.compile(rb"(?P<node>[A-Za-z0-9_.-]+) (?P<rank>\d+): "),
        frozenset(("-l", "--label")),
    )
    failure_patterns: ClassVar[tuple[FailurePattern, ...]] = (
        FailurePattern(NODE, "shepherd died", rf"{NODE_GROUP}: shepherd died from signal \d+"),
        FailurePattern(NODE, "ping RPC timeout", rf"ping RPC timeout from {NODE_GROUP} after"),
        FailurePattern(NODE, "launch failed on", rf"launch failed on {NODE_GROUP}:"),
        FailurePattern(
            SIGNAL,
            "died from signal",
            rf"(?:{NODE_GROUP}: )?\brank (?P<rank>\d+)\b.*? died from signal (?P<signal>\d+)",
        ),
        FailurePattern(
            EXIT, "exited with code", rf"(?:{NODE_GROUP}: )?\brank (?P<rank>\d+)\b.*? exited with code (?P<status>\d+)"
        ),
    )
    output_file_options = r"(-[oe]|--(output|error))"

    def check_availability(self, spec: LaunchSpec, tools: Tools, /) -> Availability:
        if spec.system is not PBS:
            return Availability(is_available=False, why="this is no PBS job")
        if "/pals/" in tools.path("mpiexec"):
            return Availability(is_available=True, why=f"the job is PBS's, and mpiexec is {tools.path('mpiexec')}")
        return check_version(tools, "PALS")

    def invocation(self, spec: LaunchSpec) -> Invocation:
        argv = (spec.program, "-n", str(spec.ranks), "--ppn", str(spec.ppn), "--hostfile", HOSTFILE, *spec.options)
        argv = (*argv, *binding_words("--cpu-bind={}", spec.cpu_bind))
        return Invocation((*argv, *spec.command), "".join(f"{node.given}\n" for node in spec.allocation.nodes))


CANDIDATES = (PalsLauncher(),)
