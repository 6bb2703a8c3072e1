"""Picture: the one live display of a run on a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ezpz.yeet.agent.place import human
from ezpz.yeet.display import PHASES
from ezpz.yeet.tally import TO_NODES, State

if TYPE_CHECKING:
    from ezpz.yeet.tally import Tally

FRAMES_A_SECOND = 8
BAR = 24  # characters
LEAST_BAR = 6  # of which less is none
STYLES = {
    State.RECEIVING: "blue",
    State.WAITING: "dim",
    State.PARKED: "yellow",
    State.CHECKING: "magenta",
    State.DONE: "green",
    State.FAILED: "bold red",
}


class Picture:
    """Draws a Tally on stderr until it is closed, then leaves nothing; what is written meanwhile goes above it."""

    def __init__(self, tally: Tally, console: Console | None = None) -> None:
        self.tally = tally
        self.console = console or Console(stderr=True)
        self.began = time.monotonic()
        self.live = Live(
            console=self.console, get_renderable=lambda: self.render(time.monotonic()),
            refresh_per_second=FRAMES_A_SECOND, transient=True,
        )  # fmt: skip
        self.live.start()

    def close(self) -> None:
        self.live.stop()

    def render(self, now: float) -> Group:
        """What to draw at a time: the phase, then the nodes by state, then the tree; always as many lines in a phase.

        No line is wider than the terminal, which would make it jump.
        """
        tally = self.tally
        row = self._row(now)
        if tally.phase not in TO_NODES:
            return Group(row, Text(f"{tally.failed} failed" if tally.failed else "", style="bold red"))
        return Group(row, self._nodes(), self._tree(now))

    def _row(self, now: float) -> Table:
        """The phase, how far it is, and facts; the bar gives way to the words where the terminal is narrow."""
        tally, facts = self.tally, self._facts(now)
        words = PHASES.get(tally.phase, "starting")
        room = min(BAR, self.console.width - len(words) - len(facts) - 2)
        cells: list[Text | ProgressBar] = [Text(words, style="bold", no_wrap=True, overflow="ellipsis")]
        if room >= LEAST_BAR:
            pulse = tally.phase in ("", "reach", "check", "compare", "publish", "count")
            cells.append(ProgressBar(total=1.0, completed=tally.fraction, width=room, pulse=pulse))
        row = Table.grid(padding=(0, 1))
        row.add_row(*cells, Text(facts, no_wrap=True, overflow="ellipsis"))
        return row

    def _facts(self, now: float) -> str:
        tally = self.tally
        facts = [f"{now - self.began:.0f} s"]
        if tally.phase in ("read", "pack"):
            facts.append(f"{human(tally.moved)}  {human(tally.rate(now))}/s")
        if tally.phase in ("read", "pack", *TO_NODES):
            left = tally.left(now)
            facts.append(f"{left:.0f} s left" if left is not None and left >= 1 else "")
        return "  ".join(fact for fact in facts if fact)

    def _nodes(self) -> Text:
        """12 receiving · 2 checking · 40 of 55 done · 1 failed."""
        states, of = self.tally.states, f" of {self.tally.nodes}"
        parts = [
            (f"{states[state]}{of if state is State.DONE else ''} {state.value}", style)
            for state, style in STYLES.items()
            if states[state] or state is State.DONE
        ]
        between = ", " if self.console.options.ascii_only else " · "
        line = Text(no_wrap=True, overflow="ellipsis")
        for number, part in enumerate(parts):
            line.append(between if number else "", style="dim").append(*part)
        return line

    def _tree(self, now: float) -> Text:
        """1.2 GB  400 MB/s  depth 6  3 adopted  slowest: n017, 12 MB."""
        tally, slowest = self.tally, self.tally.slowest
        facts = [f"{human(tally.moved)}  {human(tally.rate(now))}/s"]
        if tally.depth:
            facts.append(f"depth {tally.depth}")
        if tally.adopted:
            facts.append(f"{tally.adopted} adopted")
        if slowest:
            facts.append(f"slowest: {slowest[0].given}, {human(slowest[1])}")
        return Text("  ".join(facts), style="dim", no_wrap=True, overflow="ellipsis")
