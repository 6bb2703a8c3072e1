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

if TYPE_CHECKING:
    from ezpz.yeet.tally import Tally

FRAMES_A_SECOND = 8


class Picture:
    """Draws a Tally on stderr until it is closed, then leaves nothing; what is written meanwhile goes above it."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.began = time.monotonic()
        self.live = Live(
            console=Console(stderr=True), get_renderable=self.render, refresh_per_second=FRAMES_A_SECOND, transient=True
        )
        self.live.start()

    def close(self) -> None:
        self.live.stop()

    def render(self) -> Group:
        tally, now = self.tally, time.monotonic()
        row = Table.grid(padding=(0, 1))
        row.add_row(
            Text(PHASES.get(tally.phase, "starting"), style="bold"),
            ProgressBar(
                total=1.0, completed=tally.fraction, width=30, pulse=tally.phase in ("", "reach", "check", "publish")
            ),
            Text(self._facts(now)),
        )
        slowest = tally.slowest
        detail = Text(
            f"slowest: {slowest[0].given}, {human(slowest[1])}" if slowest and tally.phase == "send" else "",
            style="dim",
        )
        return Group(row, detail)

    def _facts(self, now: float) -> str:
        tally = self.tally
        facts = [f"{now - self.began:.0f} s"]
        if tally.phase == "send":
            facts.append(f"{tally.done}/{tally.nodes} nodes")
        if tally.failed:
            facts.append(f"{tally.failed} failed")
        if tally.phase in ("read", "send", "pack"):
            facts.append(f"{human(tally.moved)}  {human(tally.rate(now))}/s")
            left = tally.left(now)
            facts.append(f"{left:.0f} s left" if left is not None else "")
        return "  ".join(fact for fact in facts if fact)
