"""Output of `ezpz yeet clean`: the preview, the question, and the result."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ezpz.agent.common.text import format_bytes
from ezpz.cluster.hostnames import fold
from ezpz.runtime.text import age, pluralize
from ezpz.yeet.cli.status_rows import INDENT, StatusRow, escape, failure_text, print_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ezpz.cli.output import Output
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.inventory.clean_report import CleanReport, CleanSelection, Removal
    from ezpz.yeet.inventory.status_report import NodeStatus
    from ezpz.yeet.model.results import Failure


def show_preview(output: Output, report: CleanReport) -> None:
    """Print what would be removed, how much that frees, and what is left alone."""
    for each in report.selections:
        rows = list(removal_rows(each))
        if rows:
            output.line(escape(each.destination.path), bold=True)
        for row in rows:
            print_row(output, row)
    for row in _failure_rows((node, failure) for node, failure in report.nodes.items() if failure is not None):
        print_row(output, row)
    if report.removals:
        nodes = _count_nodes(report.removals)
        output.line(f"this would free {format_bytes(report.freeable)} on {nodes}", bold=True)


def removal_rows(selection: CleanSelection) -> Iterator[StatusRow]:
    """Yield a row for each group of nodes from which the same is removed, or that keep the same."""
    if selection.busy:
        yield StatusRow(f"{INDENT}left alone: {escape(selection.busy)}", "yellow")
    groups: dict[str, list[Removal]] = {}
    for removal in selection.removals:
        groups.setdefault(_describe(removal), []).append(removal)
    for what, group in groups.items():
        sizes = [format_bytes(removal.freeable) for removal in sorted(group, key=lambda each: each.freeable)]
        size = sizes[0] if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        names = fold(removal.node.given for removal in group)
        yield StatusRow(f"{len(group):>5}  {names}  remove {what}, frees {size}", "red")
    yield from _rows_of(selection.kept, "keep", lambda each: f"version {escape(each.version)[:12]}")
    yield from _rows_of(selection.unowned, "leave alone", lambda each: each.why, "yellow")
    refused = ((each.node, each.failure) for each in selection.refused if each.failure)
    yield from _failure_rows(refused, "leave alone", "yellow")


def confirm_removal(output: Output, report: CleanReport) -> bool:
    """Ask the user at a terminal for confirmation; return False if there is no terminal."""
    if output.json or output.quiet or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return click.confirm(f"Remove this from {_count_nodes(report.removals)}?", default=False)


def show_outcome(output: Output, report: CleanReport) -> None:
    """Print what was removed, and what failed."""
    output.document(report.to_dict())
    if not report.removals:
        output.line("nothing to remove", bold=True)
    elif report.dry_run:
        output.line("nothing was removed (--dry-run)")
    elif not report.confirmed:
        output.line("nothing was removed: nobody said yes; --yes removes it without asking")
    else:
        done = [removal for removal in report.removals if removal.failure is None]
        paths = sum(len(removal.removed) for removal in done)
        text = f"removed {pluralize(paths, 'directory')} from {_count_nodes(done)}"
        color = "green" if not report.failures else "yellow"
        output.line(f"{text}: {format_bytes(report.freed)} freed", fg=color, bold=True)
        for row in _failure_rows((each.node, each.failure) for each in report.removals if each.failure is not None):
            print_row(output, row)


def _count_nodes(removals: Iterable[Removal]) -> str:
    return pluralize(len({removal.node for removal in removals}), "node")


def _describe(removal: Removal) -> str:
    """Describe what is removed, without what differs between nodes."""
    parts = []
    receipt = removal.status.receipt if removal.version else None
    if receipt is not None:
        why = removal.status.why if removal.status.is_modified else ""
        changed = f" (modified since: {why})" if why else ""
        parts.append(f"version {escape(receipt.version)[:12]}{changed} from {escape(receipt.source)}")
    if removal.staging:
        runs = ", ".join(escape(each.run) for each in removal.staging)
        unchanged = age(min(each.age for each in removal.staging))
        parts.append(f"what run {runs} left, unchanged for {unchanged}")
    return " and ".join(parts)


def _rows_of(
    statuses: Iterable[NodeStatus], verb: str, describe: Callable[[NodeStatus], str], color: str = ""
) -> Iterator[StatusRow]:
    """Yield a row for each group of nodes with the same description."""
    groups: dict[str, list[str]] = {}
    for status in statuses:
        groups.setdefault(describe(status), []).append(status.node.given)
    for what, names in groups.items():
        yield StatusRow(f"{len(names):>5}  {fold(names)}  {verb}: {what}", color)


def _failure_rows(
    failures: Iterable[tuple[Node, Failure]], verb: str = "failed", color: str = "red"
) -> Iterator[StatusRow]:
    """Yield a row for each group of nodes with the same failure."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node, failure in failures:
        groups.setdefault((failure_text(node, failure), failure.hint), []).append(node.given)
    for (text, hint), names in groups.items():
        below = (f"hint: {hint}",) if hint else ()
        yield StatusRow(f"{len(names):>5}  {fold(names)}  {verb}: {escape(text)}", color, below)
