"""Words: what a report's numbers are called, in a line."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from ezpz.agent.common.text import format_bytes
from ezpz.cluster.hostnames import fold
from ezpz.runtime.text import pluralize
from ezpz.yeet.model.source import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.yeet.model.plan import Plan
    from ezpz.yeet.model.report import RunReport
    from ezpz.yeet.model.results import Failure


def relocated(report: RunReport) -> Iterator[str]:
    """What relocation did and what came along; nothing for what is no environment."""
    done = report.carried
    parts = []
    if done.base == "embedded":
        own = f", {format_bytes(done.base_site_packages)} of it its own packages" if done.base_site_packages else ""
        parts.append(f"{done.python} came along ({format_bytes(done.base_bytes)} as .python{own})")
    is_first = not any(result.replaced or result.unchanged for result in report.results)
    if done.files_patched and is_first:  # a later run takes most of them from the version in place
        parts.append(f"{pluralize(done.files_patched, 'file')} patched")
    if done.editables:
        parts.append(f"{pluralize(len(done.editables), 'editable install')} snapshotted")
    if done.links_followed:
        parts.append(
            f"{pluralize(done.links_followed, 'link')} out of it replaced by {format_bytes(done.followed_bytes)}"
        )
    if done.bytecode_compiled:
        parts.append(f"{pluralize(done.bytecode_compiled, 'file')} compiled")
    if parts:
        yield "; ".join(parts)
    if report.leaks:
        yield leaks_in_words(report.plan.destination, report.leaks)


def leaks_in_words(destination: str, leaks: int) -> str:
    """How many there are and how to see them, in a line."""
    status = f"ezpz yeet status --leaks {shlex.quote(destination)}"
    return f"it still uses {pluralize(leaks, 'place')} on a shared filesystem: `{status}` lists them"


def plan_facts(plan: Plan) -> tuple[tuple[str, str], ...]:
    """What a plan comes to, as names and values."""
    totals, nodes = plan.totals, plan.allocation.nodes
    local = plan.allocation.local
    size = (
        f"about {format_bytes(totals.bytes)} unpacked"
        if totals.files is None
        else f"{format_bytes(totals.bytes)} in {totals.files:,} files"
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


def verdict(report: RunReport) -> str:
    """Who has it now, in a line."""
    nodes, have, place = len(report.results), len(report.succeeded), report.plan.destination
    if not report.version:
        reason = (
            "interrupted"
            if report.interrupted
            else f"{len(report.failed_with_cause)} of {pluralize(nodes, 'node')} cannot take it"
        )
        return f"nothing was moved to {place}: {reason}"
    amount = (
        f"{report.kind}, {pluralize(report.files, 'file')}, {format_bytes(report.bytes)}, version {report.version[:12]}"
    )
    verb = "has" if nodes == 1 else "have"
    return f"{have:,} of {pluralize(nodes, 'node')} {verb} {place} ({amount}) after {report.seconds:.1f} s"


def causes(report: RunReport) -> dict[Failure, list[str]]:
    """The nodes that failed, by the cause without their name in it."""
    found: dict[Failure, list[str]] = {}
    for result in report.failed_with_cause:
        assert result.failure is not None
        text = result.failure.message.removeprefix(f"{result.node.given}: ")
        found.setdefault(replace(result.failure, message=text), []).append(result.node.given)
    return found


def next_steps(report: RunReport) -> tuple[str, ...]:
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
