"""Output of `ezpz yeet`: the plan, the report, and hints; text or one JSON document."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ezpz import __version__
from ezpz.agent.common.text import format_bytes
from ezpz.cluster.hostnames import fold
from ezpz.runtime.text import pluralize
from ezpz.yeet.model.report import RunReport, RunStatus
from ezpz.yeet.model.results import Outcome
from ezpz.yeet.reporting.summary import causes, next_steps, plan_facts, relocated, verdict
from ezpz.yeet.source.inspect import active_environment, find_newer_archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ezpz.cli.output import Output
    from ezpz.yeet.model.plan import Plan

PLAN_SCHEMA = "ezpz/yeet-plan/1"
MAX_CAUSES = 20  # causes of failures that are printed
COLORS = {RunStatus.SUCCESS: "green", RunStatus.PARTIAL: "yellow", RunStatus.FAILURE: "red"}


def show_plan(output: Output, plan: Plan, warnings: tuple[str, ...]) -> None:
    """Print what a run would do."""
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
    output.line(verdict(report), fg=COLORS[report.status], bold=True)
    for line in (*_changes(report), *relocated(report), *_failures(report)):
        output.line(line)
    if advise and report.succeeded and not report.interrupted:
        for line in next_steps(report):
            output.line(line)


def suggest_archive(output: Output, environ: Mapping[str, str]) -> None:
    """Print a note if there is an archive of the active environment that is newer than the environment."""
    archive = find_newer_archive(active_environment(environ), ".")
    if archive:
        output.note(f"{archive} is newer than the environment: `ezpz yeet {shlex.quote(archive)}` would use it")


def _changes(report: RunReport) -> Iterator[str]:
    """Yield a line about what a repeated run had to do, none for a first run."""
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
    """Yield the causes of failures with the nodes, and what to do about them."""
    found = causes(report)
    for failure, names in list(found.items())[:MAX_CAUSES]:
        yield f"failed on {fold(names)}: {failure.message}"
        if failure.hint:
            yield f"  hint: {failure.hint}"
    if len(found) > MAX_CAUSES:
        yield f"... and {len(found) - MAX_CAUSES} more causes; --json has them all"
    if not report.version and not report.interrupted and len(report.failed_with_cause) < len(report.results):
        yield "  hint: to go on without such nodes, say how many are enough with --min-success-nodes"
    if report.failed_list:
        yield f"the failed nodes are listed in {report.failed_list}"
    if report.interrupted:
        waiting = [result.node.given for result in report.results if result.outcome is Outcome.SKIPPED]
        yield f"interrupted: not done on {fold(waiting) or 'any other node'}; what stood there before still does"
