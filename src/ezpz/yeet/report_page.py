"""The page of `--report`: one file that needs nothing else, from a Report and the Timeline of its run. Pure.

What can be read without a script is HTML; the pictures are drawn from the data by the scripts in `page/`. Names and
messages come from other hosts: they are escaped here, and the page allows no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.cluster.hostnames import fold
from ezpz.runtime.text import pluralize
from ezpz.yeet.agent.place import human
from ezpz.yeet.display import PHASES, causes, plan_facts, verdict
from ezpz.yeet.report import Status
from ezpz.yeet.report_data import Picture, picture, without_name
from ezpz.yeet.words import relocated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ezpz.yeet.report import NodeResult, Report
    from ezpz.yeet.timeline import Timeline

SCRIPTS = ("base.js", "charts.js", "tree.js", "lanes.js", "main.js")
MARKS = {Status.SUCCESS: "✓", Status.PARTIAL: "◐", Status.FAILURE: "✕"}


def page(report: Report, timeline: Timeline) -> str:
    """The whole page as text that UTF-8 can encode."""
    drawn = picture(report, timeline)
    style, script = _part("style.css"), "".join(map(_part, SCRIPTS))
    text = Template(_part("page.html")).substitute(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}",
        title=_shown(f"ezpz yeet {report.plan.source.name}: {report.status.value}"),
        style=style,
        script=script,
        data=_embedded(drawn.to_dict()),
        status=report.status.value,
        mark=MARKS[report.status],
        verdict=_shown(verdict(report)),
        run=_shown(f"run {report.plan.id}, ezpz {__version__}"),
        tiles="".join(f"<div><b>{_shown(value)}</b>{_shown(name)}</div>" for name, value in _tiles(report, drawn)),
        failures=_failures(report),
        facts=_rows(_facts(report)),
        nodes="".join(_node(result, drawn, index) for index, result in enumerate(report.results)),
        open="open" if len(report.results) <= 32 else "",
    )
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _part(name: str) -> str:
    return (files("ezpz.yeet") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a content security policy calls an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _shown(text: object) -> str:
    """Text as HTML shows it; what would not be seen, as control characters, is spelt out."""
    plain = "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in str(text))
    return escape(plain)


def _embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _tiles(report: Report, drawn: Picture) -> Iterable[tuple[str, str]]:
    """The few numbers that one looks for first."""
    yield f"of {pluralize(len(report.results), 'node')} have it", f"{len(report.succeeded):,}"
    yield "seconds", f"{report.seconds:.1f}"
    yield f"in {pluralize(report.files, 'file')}", human(report.bytes)
    if drawn.peak:
        yield "at most, over all nodes", f"{human(drawn.peak)}/s"
    if drawn.depth > 1:
        yield "hops to the farthest", f"{drawn.depth}"
    for name, number in (
        ("adopted by another", drawn.adoptions),
        ("parked", drawn.parked),
        ("tried again", drawn.retries),
    ):
        if number:
            yield name, f"{number:,}"


def _facts(report: Report) -> Iterable[tuple[str, str]]:
    yield from plan_facts(report.plan)
    if report.version:
        yield "version", report.version
    for name, seconds in report.phases.items():
        yield PHASES.get(name, name), f"{seconds:.2f} s"
    for line in relocated(report):
        yield "relocated", line
    for line in report.plan.allocation.evidence:
        yield "evidence", line
    for warning in (*report.plan.allocation.warnings, *(warned.text for warned in report.carried.warnings)):
        yield "warning", warning
    if report.failed_list:
        yield "failed nodes", f"listed in {report.failed_list}"


def _rows(facts: Iterable[tuple[str, str]]) -> str:
    """Table rows; a name that comes again is not repeated."""
    rows, before = [], ""
    for name, value in facts:
        rows.append(f"<tr><th scope=row>{_shown('' if name == before else name)}<td>{_shown(value)}")
        before = name
    return "\n".join(rows)


def _failures(report: Report) -> str:
    """One row for each cause, the most frequent first; "" when nothing failed."""
    found = sorted(causes(report).items(), key=lambda item: -len(item[1]))
    rows = [
        f"<tr><td class=n>{len(names):,}<td>{_names(names)}<td><code>{_shown(failure.code)}</code>"
        f"<td>{_shown(failure.message)}{f'<p>{_shown(failure.hint)}' if failure.hint else ''}"
        for failure, names in found
    ]
    skipped = [result.node.given for result in report.failed if result.failure is None]
    if skipped:
        rows.append(f"<tr><td class=n>{len(skipped):,}<td>{_names(skipped)}<td>-<td>not tried any more")
    if not rows:
        return ""
    head = "<tr><th scope=col>Nodes<th scope=col>Names<th scope=col>Code<th scope=col>What happened, and what to do"
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<section aria-labelledby=failures><h2 id=failures>Failures</h2><div class=wide>{table}</div></section>"


def _names(names: Iterable[str]) -> str:
    """Names folded, to be broken between two of them; many of them scroll."""
    return f"<div class=names tabindex=0>{_shown(fold(names)).replace(',', ',<wbr>')}</div>"


def _node(result: NodeResult, drawn: Picture, index: int) -> str:
    """A row of the table of nodes."""
    row = drawn.rows[index]
    served = row.served_by or ("itself" if result.node.is_local else "-")
    failure = result.failure
    outcome = "unchanged" if result.unchanged else result.outcome.value.replace("_", " ")
    cells = (
        result.node.given, f"{outcome} ({failure.code})" if failure else outcome, served,
        row.depth or "-", result.attempts or "-",
        human(result.sent_bytes) if result.sent_bytes else "-", f"{result.seconds:.2f}" if result.seconds else "-",
        without_name(failure.message, result) if failure else "",
    )  # fmt: skip
    return "<tr>" + "".join(f"<td>{_shown(cell)}" for cell in cells) + "\n"
