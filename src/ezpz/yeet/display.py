"""How a yeet is shown: progress while it runs, the plan, the report; text or one JSON document."""

from __future__ import annotations

import shlex
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.cluster.hostnames import fold
from ezpz.runtime.text import pluralize
from ezpz.yeet.agent.place import human
from ezpz.yeet.events import Event, NodeDone, NodeParked, NodeRetrying, NodeServed, Noted, PhaseStarted, Warned
from ezpz.yeet.report import Outcome, Report, Status
from ezpz.yeet.source import Kind, active_environment, newer_archive
from ezpz.yeet.tally import TO_NODES, Tally
from ezpz.yeet.words import relocated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ezpz.cli.output import Output
    from ezpz.yeet.plan import Plan
    from ezpz.yeet.report import Failure
    from ezpz.yeet.timeline import Timeline

PLAN_SCHEMA = "ezpz/yeet-plan/1"
PHASES = {
    "reach": "reaching the nodes, counting the source",
    "check": "checking every destination",
    "compare": "comparing with what is there",
    "read": "reading",
    "publish": "publishing here",
    "send": "sending",
    "stream": "reading and sending",
    "count": "counting the source",
    "pack": "packing",
}
PLAIN_STEP = 0.1  # of the nodes; how often a plain line says how far it is
WORTH_A_RATE = 1_000_000  # bytes; the rate of less says nothing
SHOWN_FAILURES = 20


class Display:
    """Takes events: one live picture on a terminal, a few plain lines elsewhere, nothing with --json or -q."""

    def __init__(self, output: Output, timeline: Timeline | None = None) -> None:
        """`timeline` hears everything as well."""
        self.output = output
        self.tally = Tally()
        self.timeline = timeline
        self._live: Any = None
        self._told = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> Display:
        if self.output.live:
            from ezpz.yeet.live_display import Picture

            self._live = Picture(self.tally)
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
        if isinstance(event, Warned):
            self.output.warn(event.text)
        elif isinstance(event, Noted):
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
            self.output.note(f"{PHASES[event.name]}{f', {human(event.total)}' if event.total else ''} ...")
        elif isinstance(event, NodeParked):
            self.output.note(f"parked: {event.node.given} cannot keep up, and is served at the end")
        elif isinstance(event, NodeServed) and event.adopted:
            self.output.note(f"adopted: {event.node.given} is served by {event.via} now")
        elif isinstance(event, NodeDone) and tally.nodes and tally.phase in TO_NODES:
            done = (tally.done + tally.failed) / tally.nodes
            if done - self._told >= PLAIN_STEP:
                self._told = done
                rate = f", {human(tally.rate(time.monotonic()))}/s" if tally.moved > WORTH_A_RATE else ""
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


def plan_facts(plan: Plan) -> tuple[tuple[str, str], ...]:
    """What a plan comes to, as names and values."""
    totals, nodes = plan.totals, plan.allocation.nodes
    local = plan.allocation.local
    size = (
        f"about {human(totals.bytes)} unpacked"
        if totals.files is None
        else f"{human(totals.bytes)} in {totals.files:,} files"
    )
    return (
        ("source", f"{plan.source.path} ({plan.source.kind.value if plan.source.kind else 'archive'}, {size})"),
        ("destination", plan.destination + (" (the source stands there already)" if plan.in_place else "")),
        (
            "nodes",
            f"{len(nodes)}: {fold(node.given for node in nodes)} ({'one' if local else 'none'} of them is this host)",
        ),
        ("strategy", f"{plan.strategy.name} ({plan.strategy.reason})"),
        ("engine", f"{plan.engine.name} ({plan.engine.reason})"),
        ("transport", f"{plan.transport.name} ({plan.transport.reason})"),
        ("relocation", plan.relocation),
        ("access", "readable as the source is (--public)" if plan.request.public else "private to you"),
        ("threshold", "every node" if plan.threshold is None else f"{plan.threshold} of {len(nodes)} nodes"),
    )


def show_report(output: Output, report: Report, *, advise: bool = True) -> None:
    """Print what happened and, with `advise`, what to do next."""
    output.document(report.to_dict())
    for line in report.plan.allocation.evidence:
        output.detail(line)
    for phase, seconds in report.phases.items():
        output.detail(f"{phase:<8} {seconds:8.3f} s")
    colour = {Status.SUCCESS: "green", Status.PARTIAL: "yellow", Status.FAILURE: "red"}[report.status]
    output.line(verdict(report), fg=colour, bold=True)
    for line in (*_changes(report), *relocated(report), *_failures(report)):
        output.line(line)
    if advise and report.succeeded and not report.interrupted:
        for line in next_steps(report):
            output.line(line)


def point_at_archive(output: Output, environ: Mapping[str, str]) -> None:
    """Say so when an archive of the active environment is newer than it: the user named no source."""
    archive = newer_archive(active_environment(environ), ".")
    if archive:
        output.note(f"{archive} is newer than the environment: `ezpz yeet {shlex.quote(archive)}` would use it")


def verdict(report: Report) -> str:
    """Who has it now, in a line."""
    nodes, have, place = len(report.results), len(report.succeeded), report.plan.destination
    if not report.version:
        reason = (
            "interrupted"
            if report.interrupted
            else f"{len(report.failed_with_cause)} of {pluralize(nodes, 'node')} cannot take it"
        )
        return f"nothing was moved to {place}: {reason}"
    amount = f"{report.kind}, {pluralize(report.files, 'file')}, {human(report.bytes)}, version {report.version[:12]}"
    verb = "has" if nodes == 1 else "have"
    return f"{have:,} of {pluralize(nodes, 'node')} {verb} {place} ({amount}) after {report.seconds:.1f} s"


def _changes(report: Report) -> Iterator[str]:
    """What a rerun had to do, in a line; nothing for a first run."""
    unchanged = sum(result.unchanged for result in report.results)
    removed = max((result.removed for result in report.results), default=0)
    updated = [result for result in report.results if result.replaced and result.via]
    parts = [f"{pluralize(unchanged, 'node')} had this version already"] if unchanged else []
    if updated:
        most = max(updated, key=lambda result: result.sent_bytes)
        parts.append(f"at most {pluralize(most.sent_files, 'file')}, {human(most.sent_bytes)} had to be sent to a node")
    if removed:
        parts.append(f"{pluralize(removed, 'file')} went")
    if parts:
        yield "; ".join(parts)


def causes(report: Report) -> dict[Failure, list[str]]:
    """The nodes that failed, by the cause without their name in it."""
    found: dict[Failure, list[str]] = {}
    for result in report.failed_with_cause:
        assert result.failure is not None
        text = result.failure.message.removeprefix(f"{result.node.given}: ")
        found.setdefault(replace(result.failure, message=text), []).append(result.node.given)
    return found


def _failures(report: Report) -> Iterator[str]:
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


def next_steps(report: Report) -> tuple[str, ...]:
    """How to use what stands on the nodes now."""
    place = shlex.quote(report.plan.destination)
    kind = Kind(report.kind)
    local = "It is on each node's own disk: what is written there stays there, and goes when the job ends."
    if kind.is_environment:
        activate = f"  source {place}/bin/activate      # or {place}/env.sh, with caches on this node's disk too"
        return ("next:", activate, "  ezpz launch -- python3 -m your_app", local)
    if kind is Kind.TOOL:
        return ("next:", f"  export PATH={place}/bin:$PATH", "  ezpz launch -- your-program", local)
    return ("next:", f"  ezpz launch -- ls {place}", local)
