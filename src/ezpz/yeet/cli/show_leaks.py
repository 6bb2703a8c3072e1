"""Output of `ezpz yeet status --leaks`."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from ezpz.runtime.text import pluralize
from ezpz.yeet.cli.show_status import show_allocation

if TYPE_CHECKING:
    from ezpz.cli.output import Output
    from ezpz.cluster.allocation import Allocation
    from ezpz.yeet.inventory.leaks import LeakReport


def show_leaks(output: Output, allocation: Allocation, report: LeakReport) -> None:
    """Print each kind of leak with its remedy, and below it the directories with the number of paths in use."""
    output.document(report.to_dict())
    show_allocation(output, allocation)
    where = f"{report.destination} on {report.node.given}, Python {report.python}"
    if not report.leaks:
        output.line(f"{where}: nothing in it uses a shared filesystem", fg="green", bold=True)
        return
    output.line(f"{where}: {pluralize(len(report.leaks), 'place')} on a shared filesystem", fg="red", bold=True)
    for (what, remedy), group in groupby(report.leaks, key=lambda leak: (leak.what, leak.remedy)):
        output.line(f"{what}: {remedy}")
        for leak in group:
            output.line(f"{leak.count:>7,}  {leak.path}")
