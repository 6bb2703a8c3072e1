"""How leaks are shown: by what to do about them."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from ezpz.runtime.text import pluralize

if TYPE_CHECKING:
    from ezpz.cli.output import Output
    from ezpz.cluster.model import Allocation
    from ezpz.yeet.leak_report import LeakReport


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
