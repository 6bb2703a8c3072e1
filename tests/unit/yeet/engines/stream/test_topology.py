"""The shape of a stream: which node passes it on to which, and how wide the tree is."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.remote.startup import starter_of
from ezpz.yeet.engines.stream.topology import (
    MAX_CHILDREN,
    NetworkModel,
    choose_shape,
    depth,
    expected_seconds,
    parent_of,
)

WIDTHS = st.integers(1, MAX_CHILDREN)
HUNDRED_MBIT = NetworkModel(rate=12.5e6, size=32 << 20)


def levels(count: int, width: int) -> list[int]:
    """How many steps lead from each node to the root."""
    found: list[int] = []
    for index in range(count):
        above = parent_of(index, width)
        found.append(1 + (found[above] if above >= 0 else 0))
    return found


class TestTree:
    """The tree that `parent_of` makes of a list of nodes."""

    def test_a_chain(self) -> None:
        assert [parent_of(index, 1) for index in range(4)] == [-1, 0, 1, 2]

    def test_two_children_each(self) -> None:
        assert [parent_of(index, 2) for index in range(8)] == [-1, -1, 0, 0, 1, 1, 2, 2]

    @given(st.integers(0, 3000), WIDTHS)
    def test_a_parent_comes_before_its_children(self, index: int, width: int) -> None:
        assert -1 <= parent_of(index, width) < index

    @given(st.integers(1, 600), WIDTHS)
    def test_nobody_has_more_children_than_the_width_and_all_but_one_of_the_parents_have_as_many(
        self, count: int, width: int
    ) -> None:
        children = Counter(parent_of(index, width) for index in range(count))
        assert max(children.values()) <= width
        assert sum(served < width for served in children.values()) <= 1

    @given(st.integers(0, 1500), WIDTHS)
    def test_its_depth_is_counted_right(self, count: int, width: int) -> None:
        assert depth(count, width) == max(levels(count, width), default=0)

    @pytest.mark.parametrize("width", range(2, MAX_CHILDREN + 1))
    def test_its_depth_at_the_edge_of_every_level(self, width: int) -> None:
        full = 0
        for level in range(1, 14):
            full += width**level
            assert (depth(full, width), depth(full + 1, width)) == (level, level + 1)


class TestStart:
    """Who starts whose agent."""

    def test_the_launching_host_starts_the_first_and_each_of_them_as_many(self) -> None:
        assert [starter_of(index, 3) for index in range(12)] == [-1, -1, -1, 0, 0, 0, 1, 1, 1, 2, 2, 2]

    @given(st.integers(1, 3000), st.integers(1, 128))
    def test_nobody_starts_more_than_the_fan_nor_before_it_is_up(self, count: int, fan: int) -> None:
        starters = [starter_of(index, fan) for index in range(count)]
        assert max(Counter(starters).values()) <= fan
        assert all(-1 <= starter < index for index, starter in enumerate(starters))


class TestChoice:
    """The width with which it is expected to be quickest."""

    def test_a_chain_for_a_few_nodes_on_a_slow_network(self) -> None:
        shape = choose_shape(16, HUNDRED_MBIT)
        assert shape.width == 1
        assert "a chain, 16 deep" in shape.reason

    @pytest.mark.parametrize("count", [2048, 4096, 8192])
    def test_a_tree_for_thousands_on_a_fast_one(self, count: int) -> None:
        shape = choose_shape(count, NetworkModel(rate=1e9, size=8e9))
        assert shape.width == 2
        assert "a tree, 2 children a node" in shape.reason

    def test_a_wide_tree_for_little_data(self) -> None:
        assert choose_shape(8192, NetworkModel(size=1.0)).width == MAX_CHILDREN

    def test_thousands_take_little_longer_than_two_copies(self) -> None:
        assert 16 <= choose_shape(4096, NetworkModel()).seconds < 17

    def test_nodes_that_fail_often_speak_against_a_chain(self) -> None:
        assert choose_shape(256, NetworkModel()).width == 1
        assert choose_shape(256, NetworkModel(risk=0.05, recovery=5.0)).width == 2

    @pytest.mark.parametrize("count", [0, 1])
    def test_no_node_or_one(self, count: int) -> None:
        assert choose_shape(count, NetworkModel()).width == 1
        assert choose_shape(count, NetworkModel()).seconds == pytest.approx(8, abs=0.1)

    @given(st.integers(0, 5000), st.floats(1e5, 1e11), st.floats(1, 1e13))
    def test_no_other_width_would_be_quicker(self, count: int, rate: float, size: float) -> None:
        rates = NetworkModel(rate=rate, size=size)
        shape = choose_shape(count, rates)
        assert shape.seconds == min(expected_seconds(count, width, rates) for width in range(1, MAX_CHILDREN + 1))
        assert shape.seconds == expected_seconds(count, shape.width, rates)
