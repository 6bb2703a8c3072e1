"""Hydra: the `mpiexec` of MPICH, Intel MPI and others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from ezpz.launch.launchers.base import HOSTFILE, Invocation, Launcher, RankNames, bound, told_by_version
from ezpz.launch.launchers.failure_signs import EXIT, LOST_LINE, NODE, NODE_GROUP, SIGNAL, SSH_SIGNS, WHERE, Sign, sign
from ezpz.launch.launchers.output_labels import Label

if TYPE_CHECKING:
    from ezpz.launch.launchers.base import Job, Tools, Verdict

SSH_LOST = (
    r"ssh: (?:connect to host|Could not resolve hostname) .*|.*: Permission denied \(.*|Host key verification failed.*"
    r"|(?:kex_exchange_identification|Connection (?:closed|reset) by \S+ port \d+).*"
)


class Hydra(Launcher):
    """The `mpiexec` of MPICH and of what was made from it; it reaches nodes by ssh."""

    name = "hydra"
    order = 40
    ranks: ClassVar[RankNames | None] = RankNames("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
    # Hydra labels whatever it has read at once, also in the middle of a line: hence a label that nobody else writes.
    label: ClassVar[Label | None] = Label(
        ("-prepend-pattern", "<|%r@%h|>"),
        re.compile(rb"<\|(?P<rank>\d+)@(?P<node>[A-Za-z0-9_.-]*)\|>"),
        frozenset(("-l", "-prepend-rank", "-prepend-pattern")),
        opens=b"<|",
    )
    signs: ClassVar[tuple[Sign, ...]] = (
        sign(WHERE, "RUNNING AT", rf"^= +(?:RANK (?P<rank>\d+) )?PID \d+ RUNNING AT {NODE_GROUP}"),
        sign(EXIT, " EXIT ", r"^= +EXIT (?:CODE|STATUS): (?P<status>\d+)"),
        sign(SIGNAL, "KILLED BY SIGNAL", r"^= +KILLED BY SIGNAL: (?P<signal>\d+)"),
        sign(NODE, "unable to connect from", rf'unable to connect from "\S+" to "{NODE_GROUP}"'),
        sign(EXIT, "MPI_Abort(", r"application called MPI_Abort\(.*?, (?P<status>-?\d+)\) - process (?P<rank>\d+)"),
        sign(EXIT, "Abort(", r"\bAbort\((?P<status>-?\d+)\) on node (?P<rank>\d+)\b"),
        *SSH_SIGNS,
    )
    files = r"-(out|err)file-pattern"

    def judge(self, _job: Job, tools: Tools, /) -> Verdict:
        return told_by_version(tools, "HYDRA", "Intel(R) MPI")

    def invocation(self, job: Job) -> Invocation:
        argv = (job.program, "-f", HOSTFILE, "-n", str(job.ranks), "-ppn", str(job.ppn))
        bind = bound("-bind-to {}", job.cpu_bind)
        lines = (f"{host}\n" for host in job.hosts)
        words = (*argv, *bind, *job.options, *job.command)
        return Invocation(words, "".join(lines), exit_line=LOST_LINE, lost_line=SSH_LOST)


CANDIDATES = (Hydra(),)
