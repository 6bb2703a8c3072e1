"""Picture: the one live display of a run on a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ezpz.agent.common.text import format_bytes, printable_path
from ezpz.runtime.text import pluralize
from ezpz.yeet.model.events import PHASES
from ezpz.yeet.reporting.progress_state import TO_NODES, DisplayState

if TYPE_CHECKING:
    from ezpz.cli.output import Output
    from ezpz.yeet.inventory.progress import Progress
    from ezpz.yeet.reporting.progress_state import ProgressState

FRAMES_A_SECOND = 8
BAR = 24  # characters
LEAST_BAR = 6  # of which less is none
STYLES = {
    DisplayState.RECEIVING: "blue",
    DisplayState.WAITING: "dim",
    DisplayState.DEFERRED: "yellow",
    DisplayState.CHECKING: "magenta",
    DisplayState.DONE: "green",
    DisplayState.FAILED: "bold red",
}


class LiveProgress:
    """Draws a Tally on stderr until it is closed, then leaves nothing; what is written meanwhile goes above it."""

    def __init__(self, tally: ProgressState, console: Console | None = None) -> None:
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
            facts.append(f"{format_bytes(tally.moved)}  {format_bytes(tally.rate(now))}/s")
        if tally.phase in ("read", "pack", *TO_NODES):
            left = tally.seconds_left(now)
            facts.append(f"{left:.0f} s left" if left is not None and left >= 1 else "")
        return "  ".join(fact for fact in facts if fact)

    def _nodes(self) -> Text:
        """12 receiving · 2 checking · 40 of 55 done · 1 failed."""
        states, of = self.tally.states, f" of {self.tally.nodes}"
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
        """1.2 GB  400 MB/s  depth 6  3 adopted  slowest: n017, 12 MB."""
        tally, slowest = self.tally, self.tally.slowest
        facts = [f"{format_bytes(tally.moved)}  {format_bytes(tally.rate(now))}/s"]
        if tally.depth:
            facts.append(f"depth {tally.depth}")
        if tally.reassigned:
            facts.append(f"{tally.reassigned} adopted")
        if slowest:
            facts.append(f"slowest: {slowest[0].given}, {format_bytes(slowest[1])}")
        return Text("  ".join(facts), style="dim", no_wrap=True, overflow="ellipsis")


QUIET = 10.0  # seconds between two lines off a terminal, of which only the amount differs


class Watch:
    """Takes what `watch.follow` sees."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.seen = False
        self._live: Any = None
        self._said: tuple[Any, ...] = ()
        self._when = 0.0

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if kind is None and not self.seen:
            self.output.note("no run is under way")

    def __call__(self, found: tuple[Progress, ...]) -> None:
        self.seen = True
        if self.output.live:
            self._draw(found)
            return
        counts = tuple((each.destination, each.run, words_of(each)[0]) for each in found)
        now = time.monotonic()
        if counts != self._said or now - self._when >= QUIET:
            self._said, self._when = counts, now
            for each in found:
                self.output.note(f"{_safe(each.destination)}: {', '.join(words_of(each))}")

    def _draw(self, found: tuple[Progress, ...]) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        lines = []
        for each in found:
            title = f"{_safe(each.destination)}  run {_safe(each.run)} of {_safe(each.user)}"
            lines.append(Text(title, style="bold", no_wrap=True, overflow="ellipsis"))
            lines.extend(Text(f"  {words}", no_wrap=True, overflow="ellipsis") for words in words_of(each))
        self._live.update(Group(*lines), refresh=True)


def words_of(progress: Progress) -> tuple[str, str]:
    """Which nodes are how far, and how much of it is there."""
    parts = [f"{progress.published:,} of {pluralize(progress.nodes, 'node')} have it"]
    for number, word in (
        (progress.writing, "writing"), (progress.preparing, "preparing"), (progress.waiting, "waiting"),
        (progress.lost, "unreachable"),
    ):  # fmt: skip
        if number:
            parts.append(f"{number:,} {word}")
    of = "" if progress.total is None else f" of {format_bytes(progress.total)}"
    return ", ".join(parts), f"{format_bytes(progress.landed)}{of} on their disks"


def _safe(text: str) -> str:
    return printable_path(text.encode("utf-8", "surrogateescape"))
