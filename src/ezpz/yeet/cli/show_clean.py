"""How a clean is shown: what would go, the question, what is gone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ezpz.agent.common.text import format_bytes, printable_path
from ezpz.cluster.hostnames import fold
from ezpz.runtime.text import age, pluralize
from ezpz.yeet.cli.show_status import INDENT, StatusRow, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ezpz.cli.output import Output
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.inventory.clean import CleanReport, CleanSelection, Removal
    from ezpz.yeet.inventory.status import NodeStatus
    from ezpz.yeet.model.results import Failure


def show_preview(output: Output, report: CleanReport) -> None:
    """What would go, from where, and how much that frees; and what stays although somebody might expect otherwise."""
    for each in report.chosen:
        lines = list(lines_of(each))
        if lines:
            output.line(_safe(each.destination.path), bold=True)
        for line in lines:
            say(output, line)
    for line in _failed((node, failure) for node, failure in report.asked.items() if failure is not None):
        say(output, line)
    if report.removals:
        nodes = len({removal.node for removal in report.removals})
        output.line(f"this would free {format_bytes(report.frees)} on {pluralize(nodes, 'node')}", bold=True)


def lines_of(chosen: CleanSelection) -> Iterator[StatusRow]:
    """What is true of one destination: a line for all nodes where the same goes, or stays."""
    if chosen.busy:
        yield StatusRow(f"{INDENT}left alone: {_safe(chosen.busy)}", "yellow")
    groups: dict[str, list[Removal]] = {}
    for removal in chosen.removals:
        groups.setdefault(_what(removal), []).append(removal)
    for what, alike in groups.items():
        frees = [format_bytes(removal.frees) for removal in sorted(alike, key=lambda each: each.frees)]
        many = frees[0] if frees[0] == frees[-1] else f"{frees[0]} to {frees[-1]}"
        names = fold(removal.node.given for removal in alike)
        yield StatusRow(f"{len(alike):>5}  {names}  remove {what}, frees {many}", "red")
    yield from _staying(chosen.kept, "keep", lambda each: f"version {_safe(each.version)[:12]}")
    yield from _staying(chosen.foreign, "leave alone", lambda each: each.why)
    yield from _failed(((each.node, each.failure) for each in chosen.barred if each.failure), "leave alone", "yellow")


def _what(removal: Removal) -> str:
    parts = []
    if removal.version:
        receipt = removal.standing.receipt
        state = removal.standing.why if removal.standing.found.get("state") == "modified" else ""
        changed = f" (modified since: {state})" if state else ""
        parts.append(f"version {_safe(receipt.get('version'))[:12]}{changed} from {_safe(receipt.get('source'))}")
    if removal.staging:
        runs = ", ".join(_safe(each["run"]) for each in removal.staging)
        old = age(min(each["age"] for each in removal.staging))
        parts.append(f"what run {runs} left, unchanged for {old}")
    return " and ".join(parts)


def _staying(standings: Iterable[NodeStatus], verb: str, words: Any) -> Iterator[StatusRow]:
    groups: dict[str, list[str]] = {}
    for standing in standings:
        groups.setdefault(words(standing), []).append(standing.node.given)
    for what, names in groups.items():
        yield StatusRow(f"{len(names):>5}  {fold(names)}  {verb}: {what}", "yellow" if verb == "leave alone" else "")


def _failed(failures: Iterable[tuple[Node, Failure]], verb: str = "failed", colour: str = "red") -> Iterator[StatusRow]:
    groups: dict[tuple[str, str], list[str]] = {}
    for node, failure in failures:
        text = failure.text_next_to(node.given)
        groups.setdefault((text, failure.hint), []).append(node.given)
    for (text, hint), names in groups.items():
        yield StatusRow(
            f"{len(names):>5}  {fold(names)}  {verb}: {_safe(text)}", colour, (f"hint: {hint}",) if hint else ()
        )


def agreed(output: Output, report: CleanReport) -> bool:
    """Whether somebody at a terminal says yes; False where there is nobody to ask."""
    if output.json or output.quiet or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    nodes = len({removal.node for removal in report.removals})
    return click.confirm(f"Remove this from {pluralize(nodes, 'node')}?", default=False)


def show_outcome(output: Output, report: CleanReport) -> None:
    """What is gone, and what is not and why."""
    output.document(report.to_dict())
    if not report.removals:
        output.line("nothing to remove", bold=True)
    elif report.dry:
        output.line("nothing was removed (--dry-run)")
    elif not report.agreed:
        output.line("nothing was removed: nobody said yes; --yes removes it without asking")
    else:
        done = [removal for removal in report.removals if removal.failure is None]
        nodes = len({removal.node for removal in done})
        paths = sum(len(removal.removed) for removal in done)
        text = f"removed {pluralize(paths, 'directory')} from {pluralize(nodes, 'node')}"
        output.line(
            f"{text}: {format_bytes(report.freed)} freed", fg="green" if not report.failures else "yellow", bold=True
        )
        lost = ((removal.node, removal.failure) for removal in report.removals if removal.failure is not None)
        for line in _failed(lost):
            say(output, line)


def _safe(text: object) -> str:
    return printable_path(str(text).encode("utf-8", "surrogateescape"))
