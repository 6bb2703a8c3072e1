"""One attempt: runs the command of a plan, watches it, and records how it ended and why."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ezpz.launch.execute.monitor import MonitorRules, ProcessEnd, run_monitored
from ezpz.launch.execute.record import AttemptRecord
from ezpz.launch.execute.run import CommandResult, run_plan
from ezpz.launch.launchers.output_labels import add_label_options
from ezpz.launch.output.failure_analysis import FailureAnalyzer, RankPlacement
from ezpz.launch.output.router import OutputFormat, OutputRouter
from ezpz.runtime.signals import ENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.launch.execute.options import MonitorOptions
    from ezpz.launch.output.attempt_log import AttemptLog
    from ezpz.launch.output.failure_analysis import FailureCause
    from ezpz.launch.output.startup_markers import StartupReport
    from ezpz.launch.plan.plan import LaunchPlan
    from ezpz.runtime.process import Running


class Attempt:
    """Runs a plan once. Its output goes to `log`, if there is one."""

    def __init__(self, plan: LaunchPlan, monitor: MonitorOptions, number: int, log: AttemptLog | None = None) -> None:
        self.plan = plan
        self.monitor = monitor
        self.number = number
        self.log = log
        self.end = ProcessEnd(0)
        self.placement = RankPlacement(plan.spec.allocation.nodes, plan.spec.ppn)
        self.analyzer = FailureAnalyzer(self.placement, plan.spec.ranks, monitor.failures)
        self.label = plan.label if monitor.labels else None
        self.router = OutputRouter(self._output_format(None), self.analyzer)

    def run(self, *, environ: Mapping[str, str], stdout: int | None) -> AttemptRecord:
        """Run the command. Raise what `run_plan` raises, and BrokenPipeError."""
        started, start = time.time(), time.monotonic()
        grace = self.monitor.grace
        result = run_plan(self.plan, environ=environ, stdout=stdout, grace=grace, runner=self._run_monitored)
        if self.end.was_requested:
            signals = [number for number in self.end.signals if number in ENDING]
            result = CommandResult(self.plan.started_by.exit_status(self.end.status, signals))
        self.end = replace(self.end, status=result.status)
        hosts = tuple(filter(None, map(self.placement.canonical_name, result.without_command)))
        record = self._record(started, time.monotonic() - start)
        return replace(record, failure=result.error, without_command=hosts)

    def _output_format(self, report: StartupReport | None) -> OutputFormat:
        return OutputFormat(
            label=self.label,
            is_local=self.plan.started_by.is_local,
            noise=tuple(re.compile(os.fsencode(pattern)) for pattern in self.monitor.noise),
            progress=re.compile(os.fsencode(self.monitor.progress)),
            end_when_lost=self.monitor.end_when_lost or bool(self.plan.invocation.unreachable_pattern),
            report=report,
            is_merged=self.monitor.pty,
        )

    def _run_monitored(
        self,
        argv: Sequence[str],
        *,
        envs: Sequence[Mapping[str, str]],
        grace: float,
        stdout: int | None,
        report: StartupReport | None,
        forward_signal: Callable[[Running, int], None],
    ) -> int:
        """Run the command in place of `run_on_terminal`."""
        log = (self.log.write,) if self.log else ()
        self.router = OutputRouter(self._output_format(report), self.analyzer, *log)
        line = add_label_options(self.label, argv)
        rules = MonitorRules(grace, self.monitor.idle, self.monitor.pty, forward_signal)
        self.end = run_monitored(line, envs=envs, listener=self.router, rules=rules, stdout=stdout)
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
            self.router.made_progress,
            self.router.hidden_lines,
            self.router.first_errors.first_of(self._failed_ranks(cause)),
            self.log.path if self.log else "",
            self.log.write_error if self.log else "",
        )

    def _failed_ranks(self, cause: FailureCause) -> tuple[int, ...]:
        """Return the ranks that may have failed, the likeliest first."""
        finding, ranks_of = cause.finding, self.placement.ranks_of
        first = () if finding is None else ranks_of(finding.node) if finding.rank is None else (finding.rank,)
        return (*first, *sorted(cause.failed))
