"""One attempt: the plan's command runs while it is watched; what became of it, and why."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ezpz.cluster.hostnames import fold
from ezpz.launch.execute.monitor import MonitorRules, ProcessEnd, run_monitored
from ezpz.launch.execute.run import CommandResult, run_plan
from ezpz.launch.launchers.output_labels import add_label_options
from ezpz.launch.output import rank_sets
from ezpz.launch.output.failure_analysis import FailureAnalyzer, FailureCause, RankPlacement
from ezpz.launch.output.router import OutputFormat, OutputRouter
from ezpz.runtime.signals import ENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.errors import EzpzError
    from ezpz.launch.execute.options import MonitorOptions
    from ezpz.launch.launchers.output_labels import LabelFormat
    from ezpz.launch.output.attempt_log import AttemptLog
    from ezpz.launch.output.startup_markers import StartupReport
    from ezpz.launch.plan.plan import LaunchPlan
    from ezpz.runtime.process import Running


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """What became of an attempt.

    error: the rank and the lines of the first error of the first rank that failed, if any said one
    lost: the nodes that did not answer after it
    fault: why COMMAND is not to blame, if it is not; lacking: the nodes that have no COMMAND, or no environment for it
    """

    number: int
    nodes: tuple[str, ...]
    size: int
    launcher: str
    started: float
    seconds: float
    end: ProcessEnd
    cause: FailureCause
    made_progress: bool
    hidden_lines: int = 0
    error: tuple[int | None, tuple[str, ...]] | None = None
    log: str = ""
    write_error: str = ""
    lost: tuple[str, ...] = ()
    failure: EzpzError | None = None
    without_command: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """The cause in words, "" if it is not known."""
        if self.failure and (self.without_command or not self.cause.finding):
            return self.failure.message
        return str(self.cause.finding or "")

    def to_dict(self) -> dict[str, Any]:
        """As a part of a JSON document."""
        finding = self.cause.finding
        return {
            "attempt": self.number,
            "nodes": list(self.nodes),
            "ranks": self.size,
            "exit_code": self.end.status,
            "seconds": round(self.seconds, 3),
            "idle": self.end.idle,
            "signals": list(self.end.signals),
            "progress": self.made_progress,
            "cause": self.why or None,
            "culprit": finding.node if finding else None,
            "lost": list(self.lost),
            "failed_ranks": rank_sets.fold(self.cause.failed),
            "first_error": {"rank": self.error[0], "lines": list(self.error[1])} if self.error else None,
            "log": self.log or None,
        }

    def to_lines(self) -> tuple[str, ...]:
        """For the summary in a log directory."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        how = "silent, so it was ended" if self.end.idle else f"status {self.end.status}"
        where = f"{fold(self.nodes)} ({len(self.nodes)})"
        lines = [
            f"attempt {self.number}, {when}: {self.size} ranks on {where}, by {self.launcher}",
            f"  ended   {how}, after {self.seconds:.1f} s{'' if self.made_progress else ', without a progress marker'}",
            *((f"  cause   {self.why}",) if self.why else ()),
            *((f"  lost    {fold(self.lost)}",) if self.lost else ()),
            *((f"  failed  {rank_sets.describe(self.cause.failed)}",) if self.cause.failed else ()),
            *((f"  log     {self.log}",) if self.log else ()),
            *((f"  not shown, but in the log: {self.hidden_lines} lines",) if self.hidden_lines else ()),
        ]
        if self.error and self.end.status:
            rank, said = self.error
            lines.append(f"  first error, {'of the launcher, or nobody knows' if rank is None else f'rank {rank}'}:")
            lines += [f"    {line}" for line in said]
        return tuple(lines)


@dataclass
class Attempt:
    """Runs one plan once."""

    plan: LaunchPlan
    monitor: MonitorOptions
    number: int
    log: AttemptLog | None = None
    end: ProcessEnd = field(default_factory=lambda: ProcessEnd(0))

    def run(self, *, environ: Mapping[str, str], stdout: int | None) -> AttemptRecord:
        """Raises as `carry_out` does, and BrokenPipeError."""
        spec = self.plan.spec
        placement = RankPlacement(spec.allocation.nodes, spec.ppn)
        self.analyzer = FailureAnalyzer(placement, spec.ranks, self.monitor.failures)
        started, start = time.time(), time.monotonic()
        grace = self.monitor.grace
        ending = run_plan(self.plan, environ=environ, stdout=stdout, grace=grace, runner=self._through)
        if self.end.was_requested:
            ending = CommandResult(self._asked_to_end())
        self.end = replace(self.end, status=ending.status)
        without_command = tuple(filter(None, map(placement.canonical_name, ending.without_command)))
        return replace(
            self._record(started, time.monotonic() - start), failure=ending.error, without_command=without_command
        )

    def _asked_to_end(self) -> int:
        """The status of what has ended because it was asked to."""
        status, signals = self.end.status, [number for number in self.end.signals if number in ENDING]
        return self.plan.started_by.exit_status(status, signals)

    @property
    def _label(self) -> LabelFormat | None:
        return self.plan.label if self.monitor.labels else None

    def _manner(self, report: StartupReport | None) -> OutputFormat:
        return OutputFormat(
            label=self._label,
            ours=self.plan.started_by.is_local,
            noise=tuple(re.compile(os.fsencode(pattern)) for pattern in self.monitor.noise),
            progress=re.compile(os.fsencode(self.monitor.progress)),
            end_when_lost=self.monitor.end_when_lost or bool(self.plan.invocation.unreachable_pattern),
            report=report,
            merged=self.monitor.pty,
        )

    def _through(
        self,
        argv: Sequence[str],
        *,
        envs: Sequence[Mapping[str, str]],
        grace: float,
        stdout: int | None,
        report: StartupReport | None,
        forward_signal: Callable[[Running, int], None],
    ) -> int:
        """In the place of `run.foreground`."""
        self.transcript = OutputRouter(self._manner(report), self.analyzer, *((self.log.write,) if self.log else ()))
        line = add_label_options(self._label, argv)
        rules = MonitorRules(grace, self.monitor.idle, self.monitor.pty, forward_signal)
        self.end = run_monitored(line, envs=envs, listener=self.transcript, rules=rules, stdout=stdout)
        return self.end.status

    def _record(self, started: float, seconds: float) -> AttemptRecord:
        if self.plan.started_by.is_local and self.end.first_failed is not None:
            self.analyzer.record_exit(self.end.first_failed, self.end.status)
        cause = self.analyzer.cause()
        return AttemptRecord(
            self.number,
            tuple(node.name for node in self.plan.spec.allocation.nodes),
            self.plan.spec.ranks,
            self.plan.launcher,
            started,
            seconds,
            self.end,
            cause,
            self.transcript.made_progress,
            self.transcript.hidden_lines,
            self.transcript.first_errors.first_of(self._suspects(cause)),
            self.log.path if self.log else "",
            self.log.write_error if self.log else "",
        )

    def _suspects(self, cause: FailureCause) -> tuple[int, ...]:
        """The ranks that may have failed, the likeliest first."""
        finding, ranks_of = cause.finding, self.analyzer.placement.ranks_of
        first = () if finding is None else ranks_of(finding.node) if finding.rank is None else (finding.rank,)
        return (*first, *sorted(cause.failed))
