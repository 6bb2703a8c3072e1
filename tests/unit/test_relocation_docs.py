"""The page about relocation has every warning in its own words, and every case with a test or why it has none."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from ezpz.yeet.model.warnings import MESSAGES

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "explanation" / "relocation.md").read_text()
CASES = range(1, 63)
UNTESTED = "not tested:"


def rows() -> dict[int, str]:
    """The rows of the list of cases, by number."""
    found = re.findall(r"^(\| (\d+) \|.*\|)$", PAGE, re.MULTILINE)
    assert len(found) == len({number for _, number in found}), "a number has two rows"
    return {int(number): row for row, number in found}


@functools.cache
def numbers_with_tests() -> set[int]:
    """The numbers that tests are named after."""
    names = (
        name for path in TESTS.rglob("test_*.py") for name in re.findall(r"def test_case_(\d\d)_\w", path.read_text())
    )
    return {int(name) for name in names}


@pytest.mark.parametrize("case", MESSAGES)
def test_the_page_has_every_warning_in_its_words(case: str) -> None:
    found = re.search(rf"^### {re.escape(case)}\n\n((?:> .*\n)+)\n(?=[^\n#>])", PAGE, re.MULTILINE)
    assert found, f"no section {case!r} with a quotation and an explanation"
    words = " ".join(line.removeprefix("> ") for line in found[1].splitlines())
    assert words == MESSAGES[case].format("…")


def test_the_page_has_no_warning_that_is_never_given() -> None:
    section = re.search(r"^## Warnings\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    assert section
    assert sorted(re.findall(r"^### (\S+)$", section[1], re.MULTILINE)) == sorted(MESSAGES)


def test_every_case_has_a_row() -> None:
    assert sorted(rows()) == list(CASES)
    for row in rows().values():
        assert re.search(r"\| (H|W|R)(, (H|W|R))* \|", row), row


@pytest.mark.parametrize("number", CASES)
def test_every_case_is_tested_or_its_row_says_why_not(number: int) -> None:
    has_test, says_why_not = number in numbers_with_tests(), UNTESTED in rows()[number]
    assert has_test or says_why_not, f"no test_case_{number:02}_..., and the row does not say why"
    assert not (has_test and says_why_not), "it is tested by now"
