"""One attempt: the plan's command runs while it is watched; what became of it, and why."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ezpz.cluster.hostnames import fold
from ezpz.launch.execute.monitor import MonitorRules, ProcessEnd, watch
from ezpz.launch.execute.run import Ending, carry_out
from ezpz.launch.launchers.output_labels import with_labels
from ezpz.launch.output import rank_sets
from ezpz.launch.output.failure_analysis import Cause, FailureAnalyzer, Placement
from ezpz.launch.output.router import OutputFormat, OutputRouter
from ezpz.runtime.signals import ENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.errors import EzpzError
    from ezpz.launch.execute.options import MonitorOptions
    from ezpz.launch.launchers.output_labels import Label
    from ezpz.launch.output.attempt_log import AttemptLog
    from ezpz.launch.output.startup_markers import StartupReport
    from ezpz.launch.plan.plan import LaunchPlan
    from ezpz.runtime.process import Running


@dataclass(frozen=True, slots=True)
class Record:
    """What became of an attempt.

    error: the rank and the lines of the first error of the first rank that failed, if any said one
    lost: the nodes that did not answer after it
    fault: why COMMAND is not to blame, if it is not; lacking: the nodes that have no COMMAND, or no environment for it
    """

    number: int
    nodes: tuple[str, ...]
    size: int
    launcher: str
    began: float
    seconds: float
    ended: ProcessEnd
    cause: Cause
    progressed: bool
    left_out: int = 0
    error: tuple[int | None, tuple[str, ...]] | None = None
    log: str = ""
    complaint: str = ""
    lost: tuple[str, ...] = ()
    fault: EzpzError | None = None
    lacking: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """The cause in words, "" if it is not known."""
        if self.fault and (self.lacking or not self.cause.finding):
            return self.fault.message
        return str(self.cause.finding or "")

    def to_dict(self) -> dict[str, Any]:
        """As a part of a JSON document."""
        finding = self.cause.finding
        return {
            "attempt": self.number,
            "nodes": list(self.nodes),
            "ranks": self.size,
            "exit_code": self.ended.status,
            "seconds": round(self.seconds, 3),
            "idle": self.ended.idle,
            "signals": list(self.ended.signals),
            "progress": self.progressed,
            "cause": self.why or None,
            "culprit": finding.node if finding else None,
            "lost": list(self.lost),
            "failed_ranks": rank_sets.fold(self.cause.failed),
            "first_error": {"rank": self.error[0], "lines": list(self.error[1])} if self.error else None,
            "log": self.log or None,
        }

    def to_lines(self) -> tuple[str, ...]:
        """For the summary in a log directory."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.began))
        how = "silent, so it was ended" if self.ended.idle else f"status {self.ended.status}"
        where = f"{fold(self.nodes)} ({len(self.nodes)})"
        lines = [
            f"attempt {self.number}, {when}: {self.size} ranks on {where}, by {self.launcher}",
            f"  ended   {how}, after {self.seconds:.1f} s{'' if self.progressed else ', without a progress marker'}",
            *((f"  cause   {self.why}",) if self.why else ()),
            *((f"  lost    {fold(self.lost)}",) if self.lost else ()),
            *((f"  failed  {rank_sets.shown(self.cause.failed)}",) if self.cause.failed else ()),
            *((f"  log     {self.log}",) if self.log else ()),
            *((f"  not shown, but in the log: {self.left_out} lines",) if self.left_out else ()),
        ]
        if self.error and self.ended.status:
            rank, said = self.error
            lines.append(f"  first error, {'of the launcher, or nobody knows' if rank is None else f'rank {rank}'}:")
            lines += [f"    {line}" for line in said]
        return tuple(lines)


@dataclass
class Attempt:
    """Runs one plan once."""

    plan: LaunchPlan
    watching: MonitorOptions
    number: int
    log: AttemptLog | None = None
    ended: ProcessEnd = field(default_factory=lambda: ProcessEnd(0))

    def run(self, *, environ: Mapping[str, str], stdout: int | None) -> Record:
        """Raises as `carry_out` does, and BrokenPipeError."""
        job = self.plan.job
        placement = Placement(job.allocation.nodes, job.ppn)
        self.witness = FailureAnalyzer(placement, job.ranks, self.watching.failures)
        began, start = time.time(), time.monotonic()
        grace = self.watching.grace
        ending = carry_out(self.plan, environ=environ, stdout=stdout, grace=grace, through=self._through)
        if self.ended.by_us:
            ending = Ending(self._asked_to_end())
        self.ended = replace(self.ended, status=ending.status)
        lacking = tuple(filter(None, map(placement.named, ending.lacking)))
        return replace(self._record(began, time.monotonic() - start), fault=ending.error, lacking=lacking)

    def _asked_to_end(self) -> int:
        """The status of what has ended because it was asked to."""
        status, signals = self.ended.status, [number for number in self.ended.signals if number in ENDING]
        return self.plan.started_by.exit_status(status, signals)

    @property
    def _label(self) -> Label | None:
        return self.plan.label if self.watching.labels else None

    def _manner(self, report: StartupReport | None) -> OutputFormat:
        return OutputFormat(
            label=self._label,
            ours=self.plan.started_by.is_local,
            noise=tuple(re.compile(os.fsencode(pattern)) for pattern in self.watching.noise),
            progress=re.compile(os.fsencode(self.watching.progress)),
            end_when_lost=self.watching.end_when_lost or bool(self.plan.invocation.lost_line),
            report=report,
            merged=self.watching.pty,
        )

    def _through(
        self,
        argv: Sequence[str],
        *,
        envs: Sequence[Mapping[str, str]],
        grace: float,
        stdout: int | None,
        report: StartupReport | None,
        pass_on: Callable[[Running, int], None],
    ) -> int:
        """In the place of `run.foreground`."""
        self.transcript = OutputRouter(self._manner(report), self.witness, *((self.log.write,) if self.log else ()))
        line = with_labels(self._label, argv)
        rules = MonitorRules(grace, self.watching.idle, self.watching.pty, pass_on)
        self.ended = watch(line, envs=envs, ear=self.transcript, rules=rules, stdout=stdout)
        return self.ended.status

    def _record(self, began: float, seconds: float) -> Record:
        if self.plan.started_by.is_local and self.ended.first is not None:
            self.witness.saw(self.ended.first, self.ended.status)
        cause = self.witness.cause()
        return Record(
            self.number,
            tuple(node.name for node in self.plan.job.allocation.nodes),
            self.plan.job.ranks,
            self.plan.launcher,
            began,
            seconds,
            self.ended,
            cause,
            self.transcript.progressed,
            self.transcript.left_out,
            self.transcript.complaints.first_of(self._suspects(cause)),
            self.log.path if self.log else "",
            self.log.complaint if self.log else "",
        )

    def _suspects(self, cause: Cause) -> tuple[int, ...]:
        """The ranks that may have failed, the likeliest first."""
        finding, ranks_of = cause.finding, self.witness.placement.ranks_of
        first = () if finding is None else ranks_of(finding.node) if finding.rank is None else (finding.rank,)
        return (*first, *sorted(cause.failed))
