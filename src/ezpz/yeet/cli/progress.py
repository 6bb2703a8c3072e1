"""How a yeet is shown: progress while it runs, the plan, the report; text or one JSON document."""

from __future__ import annotations

import shlex
import threading
import time
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.agent.common.text import format_bytes
from ezpz.cluster.hostnames import fold
from ezpz.runtime.text import pluralize
from ezpz.yeet.model.events import (
    PHASES,
    DetailLogged,
    Event,
    NodeConnected,
    NodeDeferred,
    NodeDone,
    NodeRetrying,
    PhaseStarted,
    WarningRaised,
)
from ezpz.yeet.model.report import RunReport, RunStatus
from ezpz.yeet.model.results import Outcome
from ezpz.yeet.reporting.progress_state import TO_NODES, ProgressState
from ezpz.yeet.reporting.summary import causes, next_steps, plan_facts, relocated, verdict
from ezpz.yeet.source.inspect import active_environment, find_newer_archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ezpz.cli.output import Output
    from ezpz.yeet.model.plan import Plan
    from ezpz.yeet.reporting.timeline import Timeline

PLAN_SCHEMA = "ezpz/yeet-plan/1"
PLAIN_STEP = 0.1  # of the nodes; how often a plain line says how far it is
WORTH_A_RATE = 1_000_000  # bytes; the rate of less says nothing
SHOWN_FAILURES = 20


class ProgressDisplay:
    """Takes events: one live picture on a terminal, a few plain lines elsewhere, nothing with --json or -q."""

    def __init__(self, output: Output, timeline: Timeline | None = None) -> None:
        """`timeline` hears everything as well."""
        self.output = output
        self.tally = ProgressState()
        self.timeline = timeline
        self._live: Any = None
        self._told = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> ProgressDisplay:
        if self.output.live:
            from ezpz.yeet.cli.live_progress import LiveProgress

            self._live = LiveProgress(self.tally)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None

    def __call__(self, event: Event) -> None:
        with self._lock:  # what has been read is told by several threads
            now = time.monotonic()
            self.tally.hear(event, now)
            if self.timeline is not None:
                self.timeline.hear(event, now)
        if isinstance(event, WarningRaised):
            self.output.warn(event.text)
        elif isinstance(event, DetailLogged):
            self.output.detail(event.text)
        elif isinstance(event, NodeRetrying):
            self.output.note(f"tried again: {event.reason}")
        elif isinstance(event, NodeDone) and event.result.failure is not None:
            self.output.note(f"failed: {event.result.failure.message}")
        elif self._live is None:
            self._tell_plainly(event)

    def _tell_plainly(self, event: Event) -> None:
        tally = self.tally
        if isinstance(event, PhaseStarted):
            self._told = 0.0
            self.output.note(f"{PHASES[event.name]}{f', {format_bytes(event.total)}' if event.total else ''} ...")
        elif isinstance(event, NodeDeferred):
            self.output.note(f"parked: {event.node.given} cannot keep up, and is served at the end")
        elif isinstance(event, NodeConnected) and event.adopted:
            self.output.note(f"adopted: {event.node.given} is served by {event.via} now")
        elif isinstance(event, NodeDone) and tally.nodes and tally.phase in TO_NODES:
            done = (tally.done + tally.failed) / tally.nodes
            if done - self._told >= PLAIN_STEP:
                self._told = done
                rate = f", {format_bytes(tally.rate(time.monotonic()))}/s" if tally.moved > WORTH_A_RATE else ""
                self.output.note(f"  {tally.done} of {tally.nodes} nodes have it{rate}")


def show_plan(output: Output, plan: Plan, warnings: tuple[str, ...]) -> None:
    """Print what would be done."""
    output.document({"schema": PLAN_SCHEMA, "ezpz": __version__, "plan": plan.to_dict()})
    for name, value in plan_facts(plan):
        output.line(f"{name:<12} {value}")
    for number, line in enumerate(plan.allocation.evidence):
        output.line(f"{'' if number else 'evidence':<12} {line}")
    for warning in (*plan.allocation.warnings, *warnings):
        output.warn(warning)
    output.line("nothing was moved (--dry-run)")


def show_report(output: Output, report: RunReport, *, advise: bool = True) -> None:
    """Print what happened and, with `advise`, what to do next."""
    output.document(report.to_dict())
    for line in report.plan.allocation.evidence:
        output.detail(line)
    for phase, seconds in report.phases.items():
        output.detail(f"{phase:<8} {seconds:8.3f} s")
    colour = {RunStatus.SUCCESS: "green", RunStatus.PARTIAL: "yellow", RunStatus.FAILURE: "red"}[report.status]
    output.line(verdict(report), fg=colour, bold=True)
    for line in (*_changes(report), *relocated(report), *_failures(report)):
        output.line(line)
    if advise and report.succeeded and not report.interrupted:
        for line in next_steps(report):
            output.line(line)


def point_at_archive(output: Output, environ: Mapping[str, str]) -> None:
    """Say so when an archive of the active environment is newer than it: the user named no source."""
    archive = find_newer_archive(active_environment(environ), ".")
    if archive:
        output.note(f"{archive} is newer than the environment: `ezpz yeet {shlex.quote(archive)}` would use it")


def _changes(report: RunReport) -> Iterator[str]:
    """What a rerun had to do, in a line; nothing for a first run."""
    unchanged = sum(result.unchanged for result in report.results)
    removed = max((result.removed for result in report.results), default=0)
    updated = [result for result in report.results if result.replaced and result.via]
    parts = [f"{pluralize(unchanged, 'node')} had this version already"] if unchanged else []
    if updated:
        most = max(updated, key=lambda result: result.sent_bytes)
        parts.append(
            f"at most {pluralize(most.sent_files, 'file')}, {format_bytes(most.sent_bytes)} had to be sent to a node"
        )
    if removed:
        parts.append(f"{pluralize(removed, 'file')} went")
    if parts:
        yield "; ".join(parts)


def _failures(report: RunReport) -> Iterator[str]:
    found = causes(report)
    for failure, names in list(found.items())[:SHOWN_FAILURES]:
        yield f"failed on {fold(names)}: {failure.message}"
        if failure.hint:
            yield f"  hint: {failure.hint}"
    if len(found) > SHOWN_FAILURES:
        yield f"... and {len(found) - SHOWN_FAILURES} more causes; --json has them all"
    if not report.version and not report.interrupted and len(report.failed_with_cause) < len(report.results):
        yield "  hint: to go on without such nodes, say how many are enough with --min-success-nodes"
    if report.failed_list:
        yield f"the failed nodes are listed in {report.failed_list}"
    if report.interrupted:
        waiting = [result.node.given for result in report.results if result.outcome is Outcome.SKIPPED]
        yield f"interrupted: not done on {fold(waiting) or 'any other node'}; what stood there before still does"
