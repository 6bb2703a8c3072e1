"""Descriptions of plans and reports, in lines of text."""

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
    """Yield a line about what relocation changed and added; nothing if the source is no environment."""
    done = report.relocation
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
        yield describe_leaks(report.plan.destination, report.leaks)


def describe_leaks(destination: str, leaks: int) -> str:
    """Return how many leaks there are, and the command that lists them."""
    status = f"ezpz yeet status --leaks {shlex.quote(destination)}"
    return f"it still uses {pluralize(leaks, 'place')} on a shared filesystem: `{status}` lists them"


def plan_facts(plan: Plan) -> tuple[tuple[str, str], ...]:
    """Return the facts of a plan as names and values."""
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
    """Return a line about which nodes have the copy now."""
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
    """Return the names of the failed nodes, grouped by the cause without the name of the node."""
    found: dict[Failure, list[str]] = {}
    for result in report.failed:
        if result.failure is None:
            continue
        name = result.node.given
        cause = replace(result.failure, node="") if result.failure.node == name else result.failure
        found.setdefault(cause, []).append(name)
    return found


def next_steps(report: RunReport) -> tuple[str, ...]:
    """Return how to use the copies on the nodes."""
    place = shlex.quote(report.plan.destination)
    kind = Kind(report.kind)
    local = "It is on each node's own disk: what is written there stays there, and goes when the job ends."
    if kind.is_environment:
        activate = f"  source {place}/bin/activate      # or {place}/env.sh, with caches on this node's disk too"
        return ("next:", activate, "  ezpz launch -- python3 -m your_app", local)
    if kind is Kind.TOOL:
        return ("next:", f"  export PATH={place}/bin:$PATH", "  ezpz launch -- your-program", local)
    return ("next:", f"  ezpz launch -- ls {place}", local)
