"""launch/ranks.py: what is folded unfolds to the same, and is short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.launch.output.rank_sets import describe, fold, parse, runs


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ((), "no rank"),
        ((7,), "7 (1 rank)"),
        ((0, 1, 2, 3, 7, 12, 13, 14, 15), "0-3,7,12-15 (9 ranks)"),
        ((3, 1, 2, 1), "1-3 (3 ranks)"),
        ((4, 5), "4,5 (2 ranks)"),
    ],
)
def test_shown(ranks: tuple[int, ...], text: str) -> None:
    assert describe(ranks) == text


@given(st.frozensets(st.integers(0, 300)))
def test_folding_loses_nothing_and_unfolding_adds_nothing(ranks: frozenset[int]) -> None:
    assert parse(fold(ranks), below=301) == ranks
    assert [rank for first, last in runs(ranks) for rank in range(first, last + 1)] == sorted(ranks)
    assert all(last + 1 < first for (_, last), (first, _) in zip(runs(ranks), runs(ranks)[1:], strict=False))


@given(st.frozensets(st.integers(0, 10_000)))
def test_it_is_never_longer_than_the_list(ranks: frozenset[int]) -> None:
    assert len(fold(ranks)) <= len(",".join(map(str, ranks)))


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("0-99999999", {0, 1, 2, 3}),
        ("7", set()),
        ("2,999999999999999999999999", {2}),
        ("-", set()),
        ("-3,x,1-,2", {2}),
        ("", set()),
    ],
)
def test_what_a_program_prints_costs_nothing(text: str, ranks: set[int]) -> None:
    assert parse(text, below=4) == ranks
