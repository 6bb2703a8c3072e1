"""Hydra: the `mpiexec` of MPICH, Intel MPI and others."""

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
    sign,
)
from ezpz.launch.launchers.output_labels import LabelFormat

if TYPE_CHECKING:
    from ezpz.launch.launchers.base import Availability, LaunchSpec, Tools

UNREACHABLE_PATTERN = (
    r"ssh: (?:connect to host|Could not resolve hostname) .*|.*: Permission denied \(.*|Host key verification failed.*"
    r"|(?:kex_exchange_identification|Connection (?:closed|reset) by \S+ port \d+).*"
)


class Hydra(Launcher):
    """The `mpiexec` of MPICH and of what was made from it; it reaches nodes by ssh."""

    name = "hydra"
    order = 40
    ranks: ClassVar[RankVariables | None] = RankVariables("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
    # Hydra labels whatever it has read at once, also in the middle of a line: hence a label that nobody else writes.
    label: ClassVar[LabelFormat | None] = LabelFormat(
        ("-prepend-pattern", "<|%r@%h|>"),
        re.compile(rb"<\|(?P<rank>\d+)@(?P<node>[A-Za-z0-9_.-]*)\|>"),
        frozenset(("-l", "-prepend-rank", "-prepend-pattern")),
        opening=b"<|",
    )
    failure_patterns: ClassVar[tuple[FailurePattern, ...]] = (
        sign(WHERE, "RUNNING AT", rf"^= +(?:RANK (?P<rank>\d+) )?PID \d+ RUNNING AT {NODE_GROUP}"),
        sign(EXIT, " EXIT ", r"^= +EXIT (?:CODE|STATUS): (?P<status>\d+)"),
        sign(SIGNAL, "KILLED BY SIGNAL", r"^= +KILLED BY SIGNAL: (?P<signal>\d+)"),
        sign(NODE, "unable to connect from", rf'unable to connect from "\S+" to "{NODE_GROUP}"'),
        sign(EXIT, "MPI_Abort(", r"application called MPI_Abort\(.*?, (?P<status>-?\d+)\) - process (?P<rank>\d+)"),
        sign(EXIT, "Abort(", r"\bAbort\((?P<status>-?\d+)\) on node (?P<rank>\d+)\b"),
        *SSH_FAILURES,
    )
    output_file_options = r"-(out|err)file-pattern"

    def check_availability(self, _job: LaunchSpec, tools: Tools, /) -> Availability:
        return check_version(tools, "HYDRA", "Intel(R) MPI")

    def invocation(self, spec: LaunchSpec) -> Invocation:
        argv = (spec.program, "-f", HOSTFILE, "-n", str(spec.ranks), "-ppn", str(spec.ppn))
        bind = binding_words("-bind-to {}", spec.cpu_bind)
        lines = (f"{host}\n" for host in spec.hosts)
        words = (*argv, *bind, *spec.options, *spec.command)
        return Invocation(
            words, "".join(lines), exit_pattern=LOST_NODE_PATTERN, unreachable_pattern=UNREACHABLE_PATTERN
        )


CANDIDATES = (Hydra(),)
