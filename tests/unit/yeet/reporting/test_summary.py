"""What a report's numbers are called, in a line."""

from __future__ import annotations

import dataclasses

import pytest

from ezpz.yeet.model.report import RelocationSummary, RunReport
from ezpz.yeet.reporting.summary import relocated
from tests.unit.yeet.plans import plan


def said(carried: RelocationSummary) -> list[str]:
    return list(relocated(RunReport(plan(count=1), (), relocation=carried)))


@pytest.mark.parametrize(
    ("own", "words"),
    [(0, "76.0 MB as .python"), (12_000_000, "76.0 MB as .python, 12.0 MB of it its own packages")],
)
def test_case_09_the_size_of_the_packages_of_the_base_is_told(own: int, words: str) -> None:
    carried = RelocationSummary(base="embedded", python="Python 3.11.7", base_bytes=76_000_000, base_site_packages=own)
    assert said(carried) == [f"Python 3.11.7 came along ({words})"]
    assert said(dataclasses.replace(carried, base="kept")) == []
