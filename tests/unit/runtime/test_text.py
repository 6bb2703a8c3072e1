"""Numbers and times as people read them."""

from __future__ import annotations

import pytest

from ezpz.runtime.text import age, pluralize


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(0, "node", "0 nodes"), (1, "node", "1 node"), (2, "entry", "2 entries"), (12_345, "file", "12,345 files")],
)
def test_a_number_with_its_noun(number: int, noun: str, text: str) -> None:
    assert pluralize(number, noun) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1.0, "0 s"), (59.0, "59 s"), (60.0, "1 min"), (7200.0, "2 h"), (259_200.0, "3 d")]
)
def test_an_age_has_one_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text
