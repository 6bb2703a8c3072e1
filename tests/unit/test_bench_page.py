"""The page of benchmarks: what one run did not measure stays to the letter, written by a program or by hand."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from bench.page import HEAD, renew
from bench.registry import BENCHMARKS
from tests.contract.support import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.broken_only_by("bench")

NAMES = [benchmark.name for benchmark in BENCHMARKS]
PAGE = REPOSITORY / "docs" / "benchmarks.md"
BY_HAND = "What this means, in the words of somebody who thought about it.\n"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "docs" / "page.md"


def block(name: str, text: str) -> str:
    return f"<!-- bench:{name} -->\n\n{text}\n\n<!-- /bench -->\n"


def test_a_new_page_has_a_head_and_all_sections_in_order(page: Path) -> None:
    renew(page, BENCHMARKS, dict.fromkeys(reversed(NAMES), "## Title"))
    assert page.read_text() == "\n".join([HEAD, *(block(name, "## Title") for name in NAMES)])


@pytest.mark.parametrize("name", NAMES)
def test_of_the_real_page_only_the_section_that_was_measured_changes(page: Path, name: str) -> None:
    page.parent.mkdir()
    old = PAGE.read_text()
    page.write_text(old)
    renew(page, BENCHMARKS, {name: "## New"})
    new = page.read_text()
    if f"<!-- bench:{name} -->" in old:
        before, _, rest = old.partition(f"<!-- bench:{name} -->\n")
        after = rest.partition("<!-- /bench -->\n")[2]
        assert new == before + block(name, "## New") + after
    else:
        assert new.replace(block(name, "## New"), "").split() == old.split()
    renew(page, BENCHMARKS, {name: "## New"})
    assert page.read_text() == new


def test_what_is_written_by_hand_stays_wherever_it_stands(page: Path) -> None:
    page.parent.mkdir()
    parts = [HEAD, BY_HAND, *(part for name in NAMES for part in (block(name, "old"), BY_HAND))]
    page.write_text("\n".join(parts))
    renew(page, BENCHMARKS, {NAMES[0]: "new", NAMES[-1]: "new"})
    assert page.read_text() == "\n".join(parts).replace(block(NAMES[0], "old"), block(NAMES[0], "new")).replace(
        block(NAMES[-1], "old"), block(NAMES[-1], "new")
    )


def test_sections_come_into_their_order_whichever_is_measured_first(page: Path) -> None:
    for name in random.Random(1).sample(NAMES, len(NAMES)):
        renew(page, BENCHMARKS, {name: "## Title"})
    assert page.read_text() == "\n".join([HEAD, *(block(name, "## Title") for name in NAMES)])
