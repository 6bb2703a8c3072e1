"""What is told of a run while it goes on: lines off a terminal, a picture on one."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from ezpz.cli.output import Output
from ezpz.yeet.cli.live_progress import LiveProgress
from ezpz.yeet.cli.progress import ProgressDisplay
from ezpz.yeet.model.events import (
    Event,
    NodeConnected,
    NodeDeferred,
    NodeDone,
    NodeProgress,
    NodeRetrying,
    PhaseStarted,
    Read,
    RunStarted,
)
from ezpz.yeet.model.results import Failure, NodeResult, Outcome
from ezpz.yeet.reporting.progress_state import ProgressState
from tests.unit.yeet.plans import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B, C = nodes(3)
SIZE = 100_000_000
TROUBLE: tuple[Event, ...] = (
    RunStarted(3), PhaseStarted("stream", SIZE), NodeConnected(B, "n000", 1), NodeConnected(C, "n001", 2),
    NodeDeferred(B),
    NodeConnected(C, "n000", 1, True),
    NodeRetrying(C, Failure("node-lost", "it broke", node="n002")), NodeDone(NodeResult(A, Outcome.OK)),
    NodeDone(NodeResult(B, Outcome.FAILED, failure=Failure("node-lost", "it stopped answering", node="n001"))),
)  # fmt: skip


class TestPlain:
    """Off a terminal: a line for what matters, and no picture."""

    def test_what_goes_wrong_and_what_is_done_about_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        with ProgressDisplay(Output()) as display:
            for event in TROUBLE:
                display(event)
        assert capsys.readouterr().err.splitlines() == [
            "reading and sending, 100.0 MB ...",
            "parked: n001.domain cannot keep up, and is served at the end",
            "adopted: n002.domain is served by n000 now",
            "tried again: n002: it broke",
            "  1 of 3 nodes have it",
            "failed: n001: it stopped answering",
        ]

    @pytest.mark.parametrize("output", [Output(json=True), Output(quiet=True)], ids=["json", "quiet"])
    def test_nothing_where_nothing_is_wanted(self, output: Output, capsys: pytest.CaptureFixture[str]) -> None:
        with ProgressDisplay(output) as display:
            for event in TROUBLE:
                display(event)
        assert capsys.readouterr().err == ""


@pytest.fixture(params=[30, 44, 60, 80, 200])
def picture(request: pytest.FixtureRequest) -> Iterator[tuple[LiveProgress, Console]]:
    console = Console(file=io.StringIO(), width=request.param, height=30, force_terminal=True, color_system=None)
    made = LiveProgress(ProgressState(), console)
    yield made, console
    made.close()


class TestPicture:
    """On a terminal: as many lines all the time, however narrow it is."""

    def test_it_does_not_jump(self, picture: tuple[LiveProgress, Console]) -> None:
        made, console = picture
        heights: dict[str, set[int]] = {}
        events: tuple[Event, ...] = (
            RunStarted(3), PhaseStarted("reach"), PhaseStarted("check"), PhaseStarted("stream", SIZE), Read(SIZE // 2),
            NodeConnected(B, "n000", 1), NodeConnected(C, "n001", 2), NodeProgress(B, SIZE // 3), NodeDeferred(B),
            NodeConnected(C, "n000", 1, True), NodeProgress(C, SIZE), NodeDone(NodeResult(B, Outcome.FAILED)),
        )  # fmt: skip
        for at, event in enumerate(events):
            made.state.add_event(event, at)
            lines = console.render_lines(made.render(at), pad=False)
            heights.setdefault(made.state.phase, set()).add(len(lines))
            assert all(sum(part.cell_length for part in line) <= console.width for line in lines)
        assert heights == {"": {2}, "reach": {2}, "check": {2}, "stream": {3}}

    def test_packing_has_a_rate_and_the_time_that_is_left(self) -> None:
        tally, console = ProgressState(), Console(file=io.StringIO(), width=100, color_system=None)
        made = LiveProgress(tally, console)
        made.close()
        made.started = 0
        for event in (PhaseStarted("count"), PhaseStarted("pack", SIZE), Read(SIZE // 4)):
            tally.add_event(event, 0)
        said = "".join(part.text for line in console.render_lines(made.render(5), pad=False) for part in line)
        assert "packing" in said
        assert "25.0 MB  5.0 MB/s" in said
        assert "15 s left" in said

    def test_it_says_where_each_node_is(self) -> None:
        tally, console = ProgressState(), Console(file=io.StringIO(), width=100, color_system=None)
        made = LiveProgress(tally, console)
        made.close()
        made.started = 0
        events: tuple[Event, ...] = (
            RunStarted(3), PhaseStarted("stream", SIZE), NodeConnected(B, "n000", 1), NodeConnected(C, "n001", 2),
            Read(SIZE // 2), NodeProgress(B, SIZE // 2), NodeProgress(C, SIZE // 4), NodeDeferred(B),
            NodeConnected(C, "n000", 1, True),
        )  # fmt: skip
        for event in events:
            tally.add_event(event, 0)
        said = [
            "".join(part.text for part in line).rstrip() for line in console.render_lines(made.render(5), pad=False)
        ]
        assert said[0].endswith("5 s  8 s left")
        assert said[1].replace(" · ", ", ") == "2 receiving, 1 parked, 0 of 3 done"
        assert said[2] == "75.0 MB  15.0 MB/s  depth 1  1 adopted  slowest: n002.domain, 25.0 MB"
