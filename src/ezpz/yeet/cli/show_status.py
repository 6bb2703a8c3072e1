"""How the state of destinations is shown: a line for all nodes of which the same is true."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
import time
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.text import format_bytes, printable_path
from ezpz.cluster.hostnames import fold
from ezpz.runtime.text import age, pluralize
from ezpz.yeet.inventory.source_changes import SourceChange
from ezpz.yeet.inventory.status import CopyState, run_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ezpz.cli.output import Output
    from ezpz.cluster.allocation import Allocation
    from ezpz.yeet.inventory.leaks import LeakReport
    from ezpz.yeet.inventory.status import Destination, NodeStatus, StatusReport

COLOURS = {
    CopyState.CURRENT: "green",
    CopyState.STALE: "yellow",
    CopyState.PARTIAL: "yellow",
    CopyState.MODIFIED: "red",
    CopyState.FOREIGN: "red",
    CopyState.ABSENT: "red",
    CopyState.UNREACHABLE: "red",
}
DIFFERENCES_SHOWN = 20
INDENT = " " * 7
UNBROKEN = "\u00a0"
DIFFERENT = {"changed": "changed", "missing": "missing", "extra": "added"}


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One line of the status, and those that belong below it."""

    text: str
    colour: str
    below: tuple[str, ...] = ()


def show_allocation(output: Output, allocation: Allocation) -> None:
    """What is known of where the nodes come from."""
    for line in allocation.evidence:
        output.detail(line)
    for warning in allocation.warnings:
        output.warn(warning)


def show_status(output: Output, report: StatusReport, *, verify: bool) -> None:
    """Each destination with a line for all nodes of which the same is true."""
    output.document(report.to_dict())
    for destination in report.destinations:
        output.line(_title(destination), bold=True)
        for line in lines_of(destination, report.now, verify=verify):
            say(output, line)
        for note in _notes(destination, verify=verify):
            say(output, StatusRow(INDENT + note, ""))
    if not report.destinations:
        silent = [node.given for node, failure in report.asked.items() if failure is not None]
        answered = len(report.asked) - len(silent)
        output.line(f"nothing of a yeet under the usual places of {pluralize(answered, 'node')}", bold=True)
        for failure in {failure for failure in report.asked.values() if failure is not None}:
            say(output, StatusRow(f"{INDENT}{failure.message}", "red", (failure.hint,) if failure.hint else ()))


def _title(destination: Destination) -> str:
    source = destination.newest.get("source")
    return _safe(destination.path) + (f"  from {_safe(source)}" if source else "")


def _safe(path: object) -> str:
    return printable_path(str(path).encode("utf-8", "surrogateescape"))


def lines_of(destination: Destination, now: float, *, verify: bool = False) -> list[StatusRow]:
    """The nodes with what is true of them, those that are alike in one line."""
    groups: dict[tuple[Any, ...], list[NodeStatus]] = {}
    for standing in destination.standings:
        groups.setdefault(_alike(standing, verify=verify), []).append(standing)
    return [_line(alike, now, verify=verify) for alike in groups.values()]


def _alike(standing: NodeStatus, *, verify: bool) -> tuple[Any, ...]:
    """What nodes in one line have in common."""
    receipt = standing.receipt
    names = ("version", "files", "bytes", "run")
    listed = str(standing.found.get("differences")) if verify else ""
    failure = standing.failure
    return (
        standing.state, standing.why, listed, *(receipt.get(name) for name in names),
        bool(standing.found.get("lock")), failure and _without_name(standing),
    )  # fmt: skip


def _without_name(standing: NodeStatus) -> str:
    assert standing.failure is not None
    return standing.failure.text_next_to(standing.node.given)


def _line(alike: list[NodeStatus], now: float, *, verify: bool) -> StatusRow:
    first = alike[0]
    facts = [f"{first.state.value}{f': {_without_name(first)}' if first.failure else ''}"]
    if first.receipt:
        facts[0] += f" {_safe(first.version)[:12]}"
    if first.why and first.receipt:
        facts.append(first.why)
    elif first.why:
        facts[0] += f": {first.why}"
    if first.receipt:
        facts += _facts(alike, now)
    elif first.state is CopyState.PARTIAL:
        facts.append(_so_far(alike))
    lock = first.found.get("lock")
    if lock and first.state is not CopyState.PARTIAL:
        facts.append(run_in_words(lock))
    names = fold(standing.node.given for standing in alike)
    below = _listed(first.found.get("differences") or {}) if verify else ()
    return StatusRow(f"{len(alike):>5}  {names}  {', '.join(facts)}", COLOURS[first.state], tuple(below))


def _facts(alike: list[NodeStatus], now: float) -> list[str]:
    """Size, files, age, when and by which run; of several nodes, when it was there on the last of them."""
    receipt = alike[0].receipt
    created = max(standing.receipt["created"] for standing in alike)
    when = time.strftime("%d %b %H:%M:%S", time.localtime(created))
    return [
        format_bytes(receipt["bytes"]),
        pluralize(receipt["files"], "file"),
        f"{age(now - created)} old ({when})",
        f"run {_safe(receipt.get('run'))[:80]}",
    ]


def _so_far(alike: list[NodeStatus]) -> str:
    """How much of a version that is not there yet has landed: the least and the most of several nodes."""
    written = [max(standing.found["staging"], key=lambda each: each["live"]) for standing in alike]
    sizes, files = [each["bytes"] for each in written], [each["files"] for each in written]
    size = (
        format_bytes(min(sizes))
        if format_bytes(min(sizes)) == format_bytes(max(sizes))
        else f"{format_bytes(min(sizes))} to {format_bytes(max(sizes))}"
    )
    many = f"{min(files):,}" if min(files) == max(files) else f"{min(files):,} to {max(files):,}"
    still = "" if written[0]["live"] else f", last changed {age(min(each['age'] for each in written))} ago"
    return f"{size} in {many} file{'' if many == '1' else 's'} so far{still}"


def _listed(differences: Mapping[str, Any]) -> Iterator[str]:
    """The paths that differ, the first of them, and how many more there are."""
    paths = [f"{DIFFERENT[name]}  {_safe(path)}" for name in DIFFERENT for path in differences.get(f"{name}_paths", ())]
    yield from paths[:DIFFERENCES_SHOWN]
    total = sum(differences.get(name, 0) for name in DIFFERENT)
    if total > DIFFERENCES_SHOWN:
        yield f"... and {total - min(len(paths), DIFFERENCES_SHOWN):,} more; --json lists {len(paths):,} of them"


def _notes(destination: Destination, *, verify: bool) -> Iterator[str]:
    """What else there is to know of a destination."""
    if verify and any(each.receipt and not each.receipt.get("contents") for each in destination.standings):
        yield "note: some have no digests to hold their content against: an older ezpz, or a shell, put them there"
    if destination.source.change is SourceChange.GONE:
        yield "note: its source is not there any more, as seen from this host"
    if destination.standings and not verify and any(each.state is CopyState.MODIFIED for each in destination.standings):
        yield "note: --verify lists what differs; a yeet puts it right"


def say(output: Output, line: StatusRow) -> None:
    """Print a line and what belongs below it; broken where a terminal would break it, and nowhere else."""
    for text in wrapped(_safe(line.text), width_of_terminal()):
        output.line(text, fg=line.colour or None)
    for text in line.below:
        output.line(f"{INDENT}  {_safe(text)}")


def width_of_terminal() -> int:
    """Columns; 0 when stdout is no terminal, and a line may be as long as it is."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else 0


def wrapped(text: str, width: int) -> Iterable[str]:
    """A line as lines that fit, each but the first indented; as it is when `width` is 0 or little."""
    if width < 2 * len(INDENT) + 20 or len(text) <= width:
        return (text,)
    whole = re.sub(r"(?<![ ,]) (?! )", UNBROKEN, text)  # between facts, if that will do, and not within one
    for each in (whole, text):
        lines = textwrap.wrap(
            each, width, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False,
            replace_whitespace=False,
        )  # fmt: skip
        if all(len(line) <= width for line in lines):
            break
    return [line.replace(UNBROKEN, " ") for line in lines]


def show_leaks(output: Output, allocation: Allocation, report: LeakReport) -> None:
    """Each kind of leak once with its remedy, and below it the folders with how much is used of each."""
    output.document(report.to_dict())
    for line in allocation.evidence:
        output.detail(line)
    for warning in allocation.warnings:
        output.warn(warning)
    where = f"{report.destination} on {report.node.given}, Python {report.python}"
    if not report.leaks:
        output.line(f"{where}: nothing in it uses a shared filesystem", fg="green", bold=True)
        return
    output.line(f"{where}: {pluralize(len(report.leaks), 'place')} on a shared filesystem", fg="red", bold=True)
    for (what, remedy), alike in groupby(report.leaks, key=lambda leak: (leak.what, leak.remedy)):
        output.line(f"{what}: {remedy}")
        for leak in alike:
            output.line(f"{leak.count:>7,}  {leak.path}")
