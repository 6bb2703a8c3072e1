"""What a run's events add up to; the time is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.model.events import (
    Event,
    NodeConnected,
    NodeDone,
    NodeProgress,
    NodeRetrying,
    NodeStarted,
    PhaseStarted,
    Read,
    RunStarted,
    WarningRaised,
)
from ezpz.yeet.model.results import Failure, NodeResult, Outcome
from ezpz.yeet.reporting.progress_state import DisplayState, ProgressState
from tests.unit.yeet.plans import nodes

A, B, C, D = nodes(4)
BROKEN = Failure("node-lost", "it broke")


def tally(*events: tuple[float, Event]) -> ProgressState:
    made = ProgressState()
    for now, event in events:
        made.add_event(event, now)
    return made


class TestReading:
    """By bytes, while this host reads."""

    def test_fraction_rate_and_time_left(self) -> None:
        made = tally((0, PhaseStarted("read", 1000)), (1, Read(100)), (2, Read(150)))
        assert (made.phase, made.size, made.read, made.moved) == ("read", 1000, 250, 250)
        assert made.fraction == pytest.approx(0.25)
        assert made.rate(2) == pytest.approx(125)
        assert made.seconds_left(2) == pytest.approx(6)

    def test_the_rate_is_that_of_the_last_seconds(self) -> None:
        made = tally((0, PhaseStarted("read", 10**9)), *((t, Read(1000)) for t in range(1, 100)))
        made.add_event(Read(100_000), 100)
        assert 15_000 < made.rate(100) < 30_000
        assert made.rate(1000) < 200

    def test_there_is_no_telling_at_the_beginning_nor_without_a_size(self) -> None:
        assert tally((0, PhaseStarted("read", 1000)), (5, Read(1))).seconds_left(5) is None
        made = tally((0, PhaseStarted("publish")), (1, Read(10)))
        assert (made.fraction, made.seconds_left(2)) == (0.0, None)

    def test_more_than_was_expected_is_no_more_than_all(self) -> None:
        made = tally((0, PhaseStarted("read", 10)), (1, Read(500)))
        assert (made.fraction, made.seconds_left(3)) == (1.0, 0.0)

    def test_a_new_phase_begins_at_nothing(self) -> None:
        made = tally((0, PhaseStarted("read", 10)), (1, Read(10)), (2, PhaseStarted("publish", 100)))
        assert (made.fraction, made.moved, made.rate(3)) == (0.0, 0, 0.0)
        assert made.read == 10


class TestSending:
    """By nodes, and by bytes of those under way."""

    def test_nodes_under_way_count_in_part(self) -> None:
        made = tally(
            (0, RunStarted(4)), (0, PhaseStarted("send", 100)), (0, NodeStarted(A, "this host", 1)),
            (0, NodeStarted(B, "this host", 1)), (1, NodeProgress(A, 50)), (1, NodeProgress(B, 100)),
        )  # fmt: skip
        assert made.fraction == pytest.approx(1.5 / 4)
        assert made.slowest == (A, 50)
        assert made.moved == 150

    def test_done_and_failed(self) -> None:
        made = tally(
            (0, RunStarted(4)), (0, PhaseStarted("send", 100)), (0, NodeStarted(A, "x", 1)),
            (0, NodeStarted(B, "x", 1)), (1, NodeDone(NodeResult(A, Outcome.OK))),
            (2, NodeDone(NodeResult(B, Outcome.TIMED_OUT))), (2, NodeDone(NodeResult(C, Outcome.UNREACHABLE))),
        )  # fmt: skip
        assert (made.done, made.failed, made.moving) == (1, 2, {})
        assert made.fraction == pytest.approx(0.5)
        assert made.seconds_left(2) == pytest.approx(2)
        assert made.slowest is None

    def test_a_retry_begins_at_nothing_and_what_moved_stays_moved(self) -> None:
        made = tally(
            (0, RunStarted(1)), (0, PhaseStarted("send", 100)), (0, NodeStarted(A, "x", 1)), (1, NodeProgress(A, 80)),
            (2, NodeRetrying(A, BROKEN)),
        )  # fmt: skip
        assert (made.fraction, made.slowest) == (0.0, None)
        made.add_event(NodeStarted(A, "y", 2), 3)
        made.add_event(NodeProgress(A, 30), 4)
        assert made.fraction == pytest.approx(0.3)
        assert made.moved == 110

    def test_what_is_left_takes_as_long_as_the_slow_ones_that_are_left_take(self) -> None:
        made = tally((0, RunStarted(2)), (0, PhaseStarted("stream", 1000)), (0, NodeConnected(A, "x", 1)))
        made.add_event(NodeConnected(B, "x", 1), 0)
        made.add_event(NodeProgress(A, 1000), 1)
        made.add_event(NodeDone(NodeResult(A, Outcome.OK)), 1)
        for at in range(1, 11):
            made.add_event(NodeProgress(B, 10 * at), at)
        assert made.rate(10) == pytest.approx(10, rel=0.2)
        assert made.seconds_left(10) == pytest.approx(90, rel=0.2)
        assert made.seconds_left(1000) != 0.0

    def test_this_host_receives_by_reading(self) -> None:
        made = tally((0, RunStarted(2)), (0, PhaseStarted("stream", 100)), (0, NodeConnected(B, "n000", 1)))
        assert made.states == {DisplayState.WAITING: 1, DisplayState.RECEIVING: 1}
        made.add_event(Read(50), 1)
        made.add_event(NodeProgress(B, 50), 1)
        assert made.states == {DisplayState.RECEIVING: 2}
        assert made.fraction == pytest.approx(0.5)
        assert made.seconds_left(1) == pytest.approx(1)
        made.add_event(NodeDone(NodeResult(A, Outcome.OK)), 2)
        assert made.states == {DisplayState.RECEIVING: 1, DisplayState.DONE: 1}

    def test_all_failed(self) -> None:
        made = tally((0, RunStarted(2)), (0, PhaseStarted("send", 100)))
        for node in (A, B):
            made.add_event(NodeDone(NodeResult(node, Outcome.FAILED)), 1)
        assert made.fraction == 0.0
        assert made.seconds_left(2) is None


EVENTS = st.one_of(
    st.builds(RunStarted, st.integers(0, 5)),
    st.builds(PhaseStarted, st.sampled_from(["reach", "read", "send", "stream", "publish"]), st.integers(0, 1000)),
    st.builds(Read, st.integers(0, 1000)),
    st.builds(NodeStarted, st.sampled_from([A, B, C]), st.just("x"), st.just(1)),
    st.builds(NodeProgress, st.sampled_from([A, B, C, D]), st.integers(0, 2000)),
    st.builds(NodeRetrying, st.sampled_from([A, B, C]), st.just(BROKEN)),
    st.builds(
        NodeDone, st.builds(NodeResult, st.sampled_from([A, B, C, D]), st.sampled_from(list(Outcome)))
    ),
    st.just(WarningRaised("careful")),
)  # fmt: skip


@given(st.lists(st.tuples(st.floats(0, 10), EVENTS), max_size=40))
def test_whatever_comes_the_numbers_make_sense(events: list[tuple[float, Event]]) -> None:
    made, now, moved = ProgressState(), 0.0, 0
    for after, event in events:
        now += after
        made.add_event(event, now)
        left = made.seconds_left(now)
        assert 0 <= made.fraction <= 1
        assert made.rate(now) >= 0
        assert left is None or left >= 0
        assert isinstance(event, PhaseStarted) or made.moved >= moved
        moved = made.moved
