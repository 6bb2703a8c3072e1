"""The `mpiexec` of MPICH, Intel MPI, and others: Hydra."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from ezpz.launch.launchers.base import HOSTFILE, Invocation, Launcher, RankVariables, binding_words, check_version
from ezpz.launch.launchers.failure_lines import (
    EXIT,
    LOST_NODE_PATTERN,
    NODE,
    NODE_GROUP,
    SIGNAL,
    SSH_FAILURES,
    WHERE,
    FailurePattern,
)
from ezpz.launch.launchers.output_labels import LabelFormat

if TYPE_CHECKING:
    from ezpz.launch.launchers.base import Availability, LaunchSpec, Tools

UNREACHABLE_PATTERN = (
    r"ssh: (?:connect to host|Could not resolve hostname) .*|.*: Permission denied \(.*|Host key verification failed.*"
    r"|(?:kex_exchange_identification|Connection (?:closed|reset) by \S+ port \d+).*"
)


class HydraLauncher(Launcher):
    """The `mpiexec` of MPICH and its derivatives. It reaches nodes over ssh."""

    name = "hydra"
    order = 40
    rank_variables: ClassVar[RankVariables | None] = RankVariables(
        "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"
    )
    # Hydra labels each piece that it reads, even in the middle of a line. So the label is one that no program prints.
    label: ClassVar[LabelFormat | None] = LabelFormat(
        ("-prepend-pattern", "<|%r@%h|>"),
        re.compile(rb"<\|(?P<rank>\d+)@(?P<node>[A-Za-z0-9_.-]*)\|>"),
        frozenset(("-l", "-prepend-rank", "-prepend-pattern")),
        opening=b"<|",
    )
    failure_patterns: ClassVar[tuple[FailurePattern, ...]] = (
        FailurePattern(WHERE, "RUNNING AT", rf"^= +(?:RANK (?P<rank>\d+) )?PID \d+ RUNNING AT {NODE_GROUP}"),
        FailurePattern(EXIT, " EXIT ", r"^= +EXIT (?:CODE|STATUS): (?P<status>\d+)"),
        FailurePattern(SIGNAL, "KILLED BY SIGNAL", r"^= +KILLED BY SIGNAL: (?P<signal>\d+)"),
        FailurePattern(NODE, "unable to connect from", rf'unable to connect from "\S+" to "{NODE_GROUP}"'),
        FailurePattern(
            EXIT, "MPI_Abort(", r"application called MPI_Abort\(.*?, (?P<status>-?\d+)\) - process (?P<rank>\d+)"
        ),
        FailurePattern(EXIT, "Abort(", r"\bAbort\((?P<status>-?\d+)\) on node (?P<rank>\d+)\b"),
        *SSH_FAILURES,
    )
    output_file_options = r"-(out|err)file-pattern"

    def check_availability(self, _job: LaunchSpec, tools: Tools, /) -> Availability:
        return check_version(tools, "HYDRA", "Intel(R) MPI")

    def invocation(self, spec: LaunchSpec) -> Invocation:
        argv = (spec.program, "-f", HOSTFILE, "-n", str(spec.ranks), "-ppn", str(spec.ppn))
        binding = binding_words("-bind-to {}", spec.cpu_bind)
        lines = (f"{host}\n" for host in spec.hosts)
        words = (*argv, *binding, *spec.options, *spec.command)
        return Invocation(
            words, "".join(lines), exit_pattern=LOST_NODE_PATTERN, unreachable_pattern=UNREACHABLE_PATTERN
        )


CANDIDATES = (HydraLauncher(),)
