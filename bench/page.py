"""The page docs/benchmarks.md: one section per benchmark, each of which can be replaced separately."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench import machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from bench.model import Benchmark, Bound, Result, Table

HEAD = """\
# Benchmarks

`make bench` writes this page: ours and its peers beside each other, on one machine and in one run, so that the ratios
mean something where the seconds do not. `python -m bench --only NAME` renews one section; `--list` names them.
"""
MARKED = re.compile(r"^<!-- bench:(\w+) -->\n.*?^<!-- /bench -->\n", re.MULTILINE | re.DOTALL)


def section(benchmark: Benchmark, result: Result, repeated: str) -> str:
    """Return a benchmark's part of the page."""
    return "\n".join(_lines(benchmark, result, repeated))


def _lines(benchmark: Benchmark, result: Result, repeated: str) -> Iterator[str]:
    yield f"## {benchmark.title}"
    yield ""
    for line in result.about:
        yield line
        yield ""
    for table in result.tables:
        yield from _table(table)
        yield ""
    yield from map(_bound, result.bounds)
    yield ""
    if result.commands:
        yield "```sh"
        yield from (f"{command}    # {way}" for way, command in result.commands)
        yield "```"
        yield ""
    yield f"`{repeated}`, {machine.today()}: {machine.machine()}; {machine.versions(benchmark.tools)}."


def _table(table: Table) -> Iterator[str]:
    noted = any(row.note for row in table.rows)
    names = [table.title, f"median, {table.unit}", "min to max", "runs"]
    names += [f"x {table.against}"] if table.against else []
    yield _row([*names, *([""] if noted else [])])
    yield _row(["---", *["---:"] * (len(names) - 1), *(["---"] if noted else [])])
    for row in table.rows:
        cells = [row.way, number(row.median), f"{number(min(row.samples))} to {number(max(row.samples))}"]
        cells += [str(len(row.samples))]
        cells += [f"{row.median / table.row(table.against).median:.2f}"] if table.against else []
        yield _row([*cells, *([row.note] if noted else [])])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _bound(bound: Bound) -> str:
    verdict = "holds" if bound.holds else "**FAILS**"
    demand = "at least" if bound.at_least else "at most"
    return f"* {verdict}: {bound.what}: {number(bound.value)}{bound.unit}, wanted {demand} {bound.limit:g}{bound.unit}"


def number(value: float) -> str:
    """Return a figure with three significant digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def renew(path: Path, order: Iterable[Benchmark], sections: dict[str, str]) -> None:
    """Put sections into the page, by the name of their benchmark; the rest of the page does not change."""
    names = [benchmark.name for benchmark in order]
    text = path.read_text() if path.exists() else HEAD
    for place, name in enumerate(names):
        if name in sections:
            text = _with(text, name, sections[name], names[place + 1 :])
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def _with(text: str, name: str, body: str, following: Sequence[str]) -> str:
    """Return the page with a section; a new section is put before the first of those that follow it."""
    block = f"<!-- bench:{name} -->\n\n{body.strip()}\n\n<!-- /bench -->\n"
    places = {match[1]: match.span() for match in MARKED.finditer(text)}
    if name in places:
        start, end = places[name]
        return text[:start] + block + text[end:]
    later = [places[each][0] for each in following if each in places]
    if later:
        return text[: later[0]] + block + "\n" + text[later[0] :]
    return f"{text.rstrip()}\n\n{block}"
