"""Live display of a run on a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ezpz.agent.common.text import format_bytes
from ezpz.yeet.model.events import PHASES
from ezpz.yeet.reporting.progress_state import TO_NODES, DisplayState

if TYPE_CHECKING:
    from ezpz.yeet.reporting.progress_state import ProgressState

FRAME_RATE = 8  # per second
MIN_BAR_WIDTH, MAX_BAR_WIDTH = 6, 24  # columns; no bar is drawn in less
PULSING_PHASES = ("", "reach", "check", "compare", "publish", "count")  # phases without a known fraction
STYLES = {
    DisplayState.RECEIVING: "blue",
    DisplayState.WAITING: "dim",
    DisplayState.DEFERRED: "yellow",
    DisplayState.CHECKING: "magenta",
    DisplayState.DONE: "green",
    DisplayState.FAILED: "bold red",
}


class LiveProgress:
    """Display of the state of a run on stderr until it is closed. Lines written meanwhile appear above it."""

    def __init__(self, state: ProgressState, console: Console | None = None) -> None:
        self.state = state
        self.console = console or Console(stderr=True)
        self.started = time.monotonic()
        self.live = Live(
            console=self.console, get_renderable=lambda: self.render(time.monotonic()),
            refresh_per_second=FRAME_RATE, transient=True,
        )  # fmt: skip
        self.live.start()

    def close(self) -> None:
        """Remove the display."""
        self.live.stop()

    def render(self, now: float) -> Group:
        """Return what to draw: the phase, then the nodes by state, then the tree.

        The number of lines is the same throughout a phase, and no line is wider than the terminal. Otherwise the
        display would jump.
        """
        state = self.state
        row = self._phase(now)
        if state.phase not in TO_NODES:
            return Group(row, Text(f"{state.failed} failed" if state.failed else "", style="bold red"))
        return Group(row, self._nodes(), self._tree(now))

    def _phase(self, now: float) -> Table:
        """Return the phase, its progress, and facts; a narrow terminal has no progress bar."""
        state, facts = self.state, self._facts(now)
        words = PHASES.get(state.phase, "starting")
        width = min(MAX_BAR_WIDTH, self.console.width - len(words) - len(facts) - 2)
        cells: list[Text | ProgressBar] = [Text(words, style="bold", no_wrap=True, overflow="ellipsis")]
        if width >= MIN_BAR_WIDTH:
            pulse = state.phase in PULSING_PHASES
            cells.append(ProgressBar(total=1.0, completed=state.fraction, width=width, pulse=pulse))
        row = Table.grid(padding=(0, 1))
        row.add_row(*cells, Text(facts, no_wrap=True, overflow="ellipsis"))
        return row

    def _facts(self, now: float) -> str:
        """Return the elapsed time, and what is known about the amount and the time left."""
        state = self.state
        facts = [f"{now - self.started:.0f} s"]
        if state.phase in ("read", "pack"):
            facts.append(f"{format_bytes(state.moved)}  {format_bytes(state.rate(now))}/s")
        if state.phase in ("read", "pack", *TO_NODES):
            left = state.seconds_left(now)
            facts.append(f"{left:.0f} s left" if left is not None and left >= 1 else "")
        return "  ".join(fact for fact in facts if fact)

    def _nodes(self) -> Text:
        """Return the nodes by state: 12 receiving · 2 checking · 40 of 55 done · 1 failed."""
        states, of = self.state.states, f" of {self.state.nodes}"
        parts = [
            (f"{states[state]}{of if state is DisplayState.DONE else ''} {state.value}", style)
            for state, style in STYLES.items()
            if states[state] or state is DisplayState.DONE
        ]
        between = ", " if self.console.options.ascii_only else " · "
        line = Text(no_wrap=True, overflow="ellipsis")
        for number, part in enumerate(parts):
            line.append(between if number else "", style="dim").append(*part)
        return line

    def _tree(self, now: float) -> Text:
        """Return facts about the tree: 1.2 GB  400 MB/s  depth 6  slowest: n017, 12 MB."""
        state, slowest = self.state, self.state.slowest
        facts = [f"{format_bytes(state.moved)}  {format_bytes(state.rate(now))}/s"]
        if state.depth:
            facts.append(f"depth {state.depth}")
        if state.reassigned:
            facts.append(f"{state.reassigned} adopted")
        if slowest:
            facts.append(f"slowest: {slowest[0].given}, {format_bytes(slowest[1])}")
        return Text("  ".join(facts), style="dim", no_wrap=True, overflow="ellipsis")
