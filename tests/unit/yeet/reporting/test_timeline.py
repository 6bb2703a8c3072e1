"""What is remembered of a run: every node's moments and how much it had, in a memory that has an end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.model.events import (
    Event,
    NodeConnected,
    NodeDeferred,
    NodeDone,
    NodeProgress,
    NodeReceived,
    NodeRetrying,
    NodeStarted,
    PhaseStarted,
    Read,
    RunStarted,
)
from ezpz.yeet.model.results import Failure, NodeResult, Outcome
from ezpz.yeet.reporting.progress_state import DisplayState
from ezpz.yeet.reporting.timeline import MAX_BINS, MAX_MOMENTS, MAX_SAMPLES, Flow, Moment, Phase, Timeline, Track
from tests.unit.yeet.plans import nodes

A, B, C = nodes(3)
BROKEN = Failure("node-lost", "it broke", node=B.given)


def timeline(*events: tuple[float, Event]) -> Timeline:
    made = Timeline()
    for now, event in events:
        made.add_event(event, now)
    return made


class TestMoments:
    """When a node came into which state, and who served it."""

    def test_of_a_stream(self) -> None:
        made = timeline(
            (100, RunStarted(3)), (101, PhaseStarted("stream", 50)), (101, NodeConnected(B, "this host", 1)),
            (102, NodeConnected(C, "n001.domain", 2)), (103, NodeDeferred(C)),
            (104, NodeConnected(C, "this host", 1, True)),
            (105, NodeReceived(C)), (106, NodeDone(NodeResult(C, Outcome.OK))), (107, NodeRetrying(B, BROKEN)),
            (108, NodeDone(NodeResult(B, Outcome.TIMED_OUT))),
        )  # fmt: skip
        assert made.tracks["n002"].moments == [
            Moment(2, DisplayState.RECEIVING, "n001.domain", 2), Moment(3, DisplayState.DEFERRED),
            Moment(4, DisplayState.RECEIVING, "this host", 1, reassigned=True), Moment(5, DisplayState.CHECKING),
            Moment(6, DisplayState.DONE),
        ]  # fmt: skip
        assert made.tracks["n001"].moments[1:] == [
            Moment(7, DisplayState.WAITING, why="it broke"),
            Moment(8, DisplayState.FAILED),
        ]
        assert made.phases == [Phase(1, "stream", 50)]
        assert "n000" not in made.tracks

    def test_of_copies_one_after_the_other(self) -> None:
        made = timeline(
            (0, NodeStarted(B, "this host", 1)), (1, NodeRetrying(B, BROKEN)), (2, NodeStarted(B, "n002", 2))
        )
        assert [(each.via, each.reassigned) for each in made.tracks["n001"].moments] == [
            ("this host", False), ("", False), ("n002", True),
        ]  # fmt: skip

    def test_of_a_node_that_is_served_for_ever_the_first_and_the_latest(self) -> None:
        made = timeline(*((number, NodeConnected(B, f"n{number}", 1)) for number in range(1000)))
        moments = made.tracks["n001"].moments
        assert len(moments) == MAX_MOMENTS
        assert (moments[0].via, moments[1].via, moments[-1].via) == ("n0", f"n{1001 - MAX_MOMENTS}", "n999")


class TestSamples:
    """How much a node had, and when, in no more than so many pairs."""

    def test_few_are_kept_as_they_are(self) -> None:
        made = timeline((10, RunStarted(1)), (11, NodeProgress(B, 5)), (12, NodeProgress(B, 9)))
        assert made.tracks["n001"].samples == ((1, 5), (2, 9))

    @given(st.lists(st.floats(0, 3), min_size=1, max_size=400))
    def test_of_many_the_first_the_latest_and_some_between_in_order(self, pauses: list[float]) -> None:
        track, at = Track(), 0.0
        told = []
        for number, pause in enumerate(pauses):
            at += pause
            told.append((at, number))
            track.sample(at, number)
        assert len(track.samples) <= MAX_SAMPLES
        assert (track.samples[0], track.samples[-1]) == (told[0], told[-1]) or len(told) == 1
        assert set(track.samples) <= set(told)
        assert list(track.samples) == sorted(track.samples)

    def test_they_cover_all_of_a_long_run(self) -> None:
        track = Track()
        for number in range(20_000):
            track.sample(number / 4, number)
        times = [at for at, _ in track.samples]
        assert len(times) > MAX_SAMPLES / 3
        assert max(after - before for before, after in pairwise(times)) < 5000 / 12


class TestFlow:
    """Bytes over time: nothing is lost however long it takes."""

    @given(st.lists(st.tuples(st.floats(0, 60), st.integers(0, 10**9)), max_size=60))
    def test_all_of_it_is_there(self, moved: list[tuple[float, int]]) -> None:
        flow, at = Flow(), 0.0
        for pause, size in moved:
            flow.add(at, at + pause, size)
            at += pause
        assert sum(flow.bins) == sum(size for _, size in moved)
        assert len(flow.bins) <= MAX_BINS

    def test_what_is_told_at_once_moved_since_it_was_last_told(self) -> None:
        made = timeline(
            (0, RunStarted(1)), (0, NodeConnected(B, "x", 1)), (0.5, NodeProgress(B, 500)), (1, NodeProgress(B, 1000))
        )
        rates = [rate for _, rate in made.received.rates()]
        assert rates[:-1] == pytest.approx([1000] * 20, rel=0.05)
        assert rates[-1] < 100

    def test_a_node_that_begins_anew_receives_all_again(self) -> None:
        made = timeline(
            (0, NodeProgress(B, 80)),
            (1, NodeRetrying(B, BROKEN)),
            (2, NodeConnected(B, "x", 1)),
            (3, NodeProgress(B, 30)),
        )
        assert sum(made.received.bins) == 110
        made = timeline((0, NodeProgress(B, 80)), (1, NodeStarted(B, "x", 2)), (3, NodeProgress(B, 90)))
        assert sum(made.received.bins) == 170

    def test_what_is_read_here_is_counted_apart(self) -> None:
        made = timeline((0, RunStarted(1)), (1, Read(10)), (2, NodeProgress(B, 7)))
        assert (sum(made.read.bins), sum(made.received.bins)) == (10, 7)
