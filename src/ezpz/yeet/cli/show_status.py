"""Output of `ezpz yeet status`: a row for each group of nodes in the same state."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.text import format_bytes
from ezpz.cluster.hostnames import fold
from ezpz.runtime.text import age, pluralize
from ezpz.yeet.cli.status_rows import INDENT, StatusRow, escape, failure_text, print_row
from ezpz.yeet.inventory.source_changes import SourceChange
from ezpz.yeet.inventory.status import describe_run
from ezpz.yeet.inventory.status_report import CopyState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ezpz.agent.common.messages.queries import ChangedPaths
    from ezpz.agent.common.messages.receipt import Receipt
    from ezpz.cli.output import Output
    from ezpz.cluster.allocation import Allocation
    from ezpz.yeet.inventory.status_report import Destination, NodeStatus, StatusReport

COLORS = {
    CopyState.CURRENT: "green",
    CopyState.STALE: "yellow",
    CopyState.PARTIAL: "yellow",
    CopyState.MODIFIED: "red",
    CopyState.FOREIGN: "red",
    CopyState.ABSENT: "red",
    CopyState.UNREACHABLE: "red",
}
DIFFERENCE_WORDS = {"changed": "changed", "missing": "missing", "extra": "added"}
MAX_DIFFERENCES = 20  # paths that are listed for a group of nodes
MAX_RUN_LENGTH = 80  # characters


def show_allocation(output: Output, allocation: Allocation) -> None:
    """Print how the nodes were found."""
    for line in allocation.evidence:
        output.detail(line)
    for warning in allocation.warnings:
        output.warn(warning)


def show_status(output: Output, report: StatusReport, *, verify: bool) -> None:
    """Print each destination with its rows.

    Args:
        output: where to print
        report: the status
        verify: list the paths that differ
    """
    output.document(report.to_dict())
    for destination in report.destinations:
        output.line(_title(destination), bold=True)
        for row in status_rows(destination, report.now, verify=verify):
            print_row(output, row)
        for note in _notes(destination, verify=verify):
            print_row(output, StatusRow(INDENT + note))
    if not report.destinations:
        failures = [failure for failure in report.failures.values() if failure is not None]
        answered = len(report.failures) - len(failures)
        output.line(f"nothing of a yeet under the usual places of {pluralize(answered, 'node')}", bold=True)
        for failure in set(failures):
            hint = (failure.hint,) if failure.hint else ()
            print_row(output, StatusRow(f"{INDENT}{failure.message}", "red", hint))


def status_rows(destination: Destination, now: float, *, verify: bool = False) -> list[StatusRow]:
    """Return a row for each group of nodes in the same state.

    Args:
        destination: the destination
        now: seconds since 1970
        verify: list the paths that differ
    """
    groups: dict[tuple[Any, ...], list[NodeStatus]] = {}
    for status in destination.statuses:
        groups.setdefault(_group_key(status, verify=verify), []).append(status)
    return [_row(group, now, verify=verify) for group in groups.values()]


def _title(destination: Destination) -> str:
    newest = destination.newest_receipt
    return escape(destination.path) + (f"  from {escape(newest.source)}" if newest is not None else "")


def _group_key(status: NodeStatus, *, verify: bool) -> tuple[Any, ...]:
    """Return what the nodes in one row have in common."""
    receipt = status.receipt
    return (
        status.state,
        status.why,
        repr(status.differences) if verify else "",
        receipt and (receipt.version, receipt.files, receipt.bytes, receipt.run),
        status.lock is not None,
        status.failure and failure_text(status.node, status.failure),
    )


def _row(group: Sequence[NodeStatus], now: float, *, verify: bool) -> StatusRow:
    """Return the row of a group of nodes."""
    first = group[0]
    state = first.state.value
    if first.failure:
        state += f": {failure_text(first.node, first.failure)}"
    if first.receipt:
        state += f" {escape(first.version)[:12]}"
    elif first.why:
        state += f": {first.why}"
    facts = [state]
    if first.receipt:
        facts += [*([first.why] if first.why else []), *_receipt_facts(first.receipt, group, now)]
    elif first.state is CopyState.PARTIAL:
        facts.append(_staging_facts(group))
    if first.lock is not None and first.state is not CopyState.PARTIAL:
        facts.append(describe_run(first.lock))
    names = fold(status.node.given for status in group)
    below = _list_differences(first.differences) if verify and first.differences is not None else ()
    return StatusRow(f"{len(group):>5}  {names}  {', '.join(facts)}", COLORS[first.state], tuple(below))


def _receipt_facts(receipt: Receipt, group: Sequence[NodeStatus], now: float) -> list[str]:
    """Return size, files, age, time, and run of a version; the time is that of the last node that got it."""
    created = max(status.receipt.created for status in group if status.receipt is not None)
    when = time.strftime("%d %b %H:%M:%S", time.localtime(created))
    return [
        format_bytes(receipt.bytes),
        pluralize(receipt.files, "file"),
        f"{age(now - created)} old ({when})",
        f"run {escape(receipt.run)[:MAX_RUN_LENGTH]}",
    ]


def _staging_facts(group: Sequence[NodeStatus]) -> str:
    """Return how much of an incomplete version is written, as a range over the nodes."""
    staging = [max(status.staging, key=lambda each: each.live) for status in group]
    sizes, counts = [each.bytes for each in staging], [each.files for each in staging]
    size = _range(format_bytes(min(sizes)), format_bytes(max(sizes)))
    count = _range(f"{min(counts):,}", f"{max(counts):,}")
    changed = "" if staging[0].live else f", last changed {age(min(each.age for each in staging))} ago"
    return f"{size} in {count} file{'' if count == '1' else 's'} so far{changed}"


def _range(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"


def _list_differences(differences: ChangedPaths) -> Iterator[str]:
    """Yield the first paths that differ, and how many more there are."""
    paths = [
        f"{word}  {escape(path)}"
        for name, word in DIFFERENCE_WORDS.items()
        for path in getattr(differences, f"{name}_paths")
    ]
    yield from paths[:MAX_DIFFERENCES]
    total = sum(getattr(differences, name) for name in DIFFERENCE_WORDS)
    if total > MAX_DIFFERENCES:
        yield f"... and {total - min(len(paths), MAX_DIFFERENCES):,} more; --json lists {len(paths):,} of them"


def _notes(destination: Destination, *, verify: bool) -> Iterator[str]:
    """Yield notes about a destination on all nodes."""
    if verify and any(each.receipt is not None and not each.receipt.contents for each in destination.statuses):
        yield "note: some have no digests to hold their content against: an older ezpz, or a shell, put them there"
    if destination.source.change is SourceChange.GONE:
        yield "note: its source is not there any more, as seen from this host"
    if not verify and any(each.state is CopyState.MODIFIED for each in destination.statuses):
        yield "note: --verify lists what differs; a yeet puts it right"
