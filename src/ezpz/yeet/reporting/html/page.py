"""The page of `--report`: one HTML file without external parts, made of the report and the timeline of a run.

Tables are HTML; the scripts in `assets/` draw the charts. Names and messages come from other hosts: they are escaped
here, and the page allows no script except its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.agent.common.text import format_bytes
from ezpz.cluster.hostnames import fold
from ezpz.errors import EzpzError, UsageError
from ezpz.runtime.atomic_file import EVERYBODY, atomic_file
from ezpz.runtime.text import pluralize
from ezpz.yeet.model.events import PHASES
from ezpz.yeet.model.report import RunStatus
from ezpz.yeet.reporting.html.chart_data import ChartData, chart_data
from ezpz.yeet.reporting.summary import causes, plan_facts, relocated, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ezpz.yeet.model.report import RunReport
    from ezpz.yeet.model.results import NodeResult
    from ezpz.yeet.reporting.timeline import Timeline

SCRIPTS = ("base.js", "charts.js", "tree.js", "lanes.js", "main.js")
MARKS = {RunStatus.SUCCESS: "✓", RunStatus.PARTIAL: "◐", RunStatus.FAILURE: "✕"}


def render_page(report: RunReport, timeline: Timeline) -> str:
    """Return the complete page as text that UTF-8 can encode."""
    charts = chart_data(report, timeline)
    style, script = _part("style.css"), "".join(map(_part, SCRIPTS))
    text = Template(_part("page.html")).substitute(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}",
        title=_shown(f"ezpz yeet {report.plan.source.name}: {report.status.value}"),
        style=style,
        script=script,
        data=_embedded(charts.to_dict()),
        status=report.status.value,
        mark=MARKS[report.status],
        verdict=_shown(verdict(report)),
        run=_shown(f"run {report.plan.id}, ezpz {__version__}"),
        tiles="".join(f"<div><b>{_shown(value)}</b>{_shown(name)}</div>" for name, value in _tiles(report, charts)),
        failures=_failures(report),
        facts=_rows(_facts(report)),
        nodes="".join(_node(result, charts, index) for index, result in enumerate(report.results)),
        open="open" if len(report.results) <= 32 else "",
    )
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _part(name: str) -> str:
    return (files("ezpz.yeet.reporting.html") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the source expression of a content security policy for an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _shown(text: object) -> str:
    """Return text escaped for HTML; characters that are not printable are written as escape sequences."""
    plain = "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in str(text))
    return escape(plain)


def _embedded(data: dict[str, Any]) -> str:
    """Return JSON that cannot end the element that contains it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _tiles(report: RunReport, charts: ChartData) -> Iterable[tuple[str, str]]:
    """Yield the most important numbers, each with its name."""
    yield f"of {pluralize(len(report.results), 'node')} have it", f"{len(report.succeeded):,}"
    yield "seconds", f"{report.seconds:.1f}"
    yield f"in {pluralize(report.files, 'file')}", format_bytes(report.bytes)
    if charts.peak:
        yield "at most, over all nodes", f"{format_bytes(charts.peak)}/s"
    if charts.depth > 1:
        yield "hops to the farthest", f"{charts.depth}"
    for name, number in (
        ("adopted by another", charts.reassignments),
        ("parked", charts.deferrals),
        ("tried again", charts.retries),
    ):
        if number:
            yield name, f"{number:,}"


def _facts(report: RunReport) -> Iterable[tuple[str, str]]:
    yield from plan_facts(report.plan)
    if report.version:
        yield "version", report.version
    for name, seconds in report.phases.items():
        yield PHASES.get(name, name), f"{seconds:.2f} s"
    for line in relocated(report):
        yield "relocated", line
    for line in report.plan.allocation.evidence:
        yield "evidence", line
    for warning in (*report.plan.allocation.warnings, *(warned.text for warned in report.relocation.warnings)):
        yield "warning", warning
    if report.failed_list:
        yield "failed nodes", f"listed in {report.failed_list}"


def _rows(facts: Iterable[tuple[str, str]]) -> str:
    """Return table rows; equal names of consecutive rows are printed once."""
    rows, before = [], ""
    for name, value in facts:
        rows.append(f"<tr><th scope=row>{_shown('' if name == before else name)}<td>{_shown(value)}")
        before = name
    return "\n".join(rows)


def _failures(report: RunReport) -> str:
    """Return the table of failures, one row for each cause, the most frequent first; "" if no node failed."""
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
    """Return folded names that may be broken between two of them; long lists scroll."""
    return f"<div class=names tabindex=0>{_shown(fold(names)).replace(',', ',<wbr>')}</div>"


def _node(result: NodeResult, charts: ChartData, index: int) -> str:
    """Return a row of the table of nodes."""
    row = charts.rows[index]
    served = row.served_by or ("itself" if result.node.is_local else "-")
    failure = result.failure
    outcome = "unchanged" if result.unchanged else result.outcome.value.replace("_", " ")
    cells = (
        result.node.given, f"{outcome} ({failure.code})" if failure else outcome, served,
        row.depth or "-", result.attempts or "-",
        format_bytes(result.sent_bytes) if result.sent_bytes else "-",
        f"{result.seconds:.2f}" if result.seconds else "-",
        failure.text_next_to(result.node.given) if failure else "",
    )  # fmt: skip
    return "<tr>" + "".join(f"<td>{_shown(cell)}" for cell in cells) + "\n"


def check_report_path(path: str) -> str:
    """Return the absolute path of the page, with the links of its directory resolved.

    The file name itself is not resolved: a link there is replaced. Raises UsageError if the page cannot be written.
    """
    directory, name = os.path.split(os.path.abspath(path))
    directory = os.path.realpath(directory)
    real = os.path.join(directory, name)
    if not os.path.basename(path) or os.path.isdir(real):
        raise UsageError(f"--report '{path}' is a directory", hint="name a file, as in --report run.html")
    if not os.path.isdir(directory):
        raise UsageError(f"--report '{path}': there is no directory '{directory}'", hint="make it first")
    if os.path.exists(real) and not os.path.isfile(real):
        raise UsageError(f"--report '{path}' is no ordinary file", hint="name a file, as in --report run.html")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"--report '{path}': you may not write to '{directory}'", hint="choose another directory")
    if _belongs_to_another_user(directory, real):
        raise UsageError(
            f"--report '{path}' belongs to another user", hint="choose another name, or your own directory"
        )
    return real


def _belongs_to_another_user(directory: str, path: str) -> bool:
    """Return whether a file of another user in a sticky directory is at the path, which cannot be replaced."""
    above = os.stat(directory)
    if not os.path.lexists(path) or not above.st_mode & stat.S_ISVTX:
        return False
    return os.geteuid() not in (0, above.st_uid, os.lstat(path).st_uid)


def write_report(path: str, text: str) -> None:
    """Write `text` to a path from `check_report_path`. Raises EzpzError; an existing file is unchanged then."""
    try:
        with atomic_file(path, EVERYBODY) as file:
            file.write(text.encode())
    except OSError as e:
        raise EzpzError(
            f"the report '{path}' cannot be written: {e.strerror}", hint="only the report is missing"
        ) from e
