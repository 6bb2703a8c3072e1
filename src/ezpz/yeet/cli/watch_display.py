"""Display of the progress of runs for `ezpz yeet status --watch`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ezpz.agent.common.text import format_bytes
from ezpz.runtime.text import pluralize
from ezpz.yeet.cli.status_rows import escape

if TYPE_CHECKING:
    from rich.live import Live

    from ezpz.cli.output import Output
    from ezpz.yeet.inventory.progress import RunProgress

REPEAT_AFTER = 10.0  # seconds; elsewhere than on a terminal a line is repeated if only the amount has changed


class WatchDisplay:
    """Display of every run: on a terminal redrawn in place, elsewhere a line for each change."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.has_runs = False
        self._live: Live | None = None
        self._printed: tuple[tuple[str, str, str], ...] = ()
        self._printed_at = 0.0

    def __enter__(self) -> WatchDisplay:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if kind is None and not self.has_runs:
            self.output.note("no run is under way")

    def __call__(self, runs: tuple[RunProgress, ...]) -> None:
        """Display the progress of all runs."""
        self.has_runs = True
        if self.output.live:
            self._draw(runs)
            return
        counts = tuple((each.destination, each.run, describe_progress(each)[0]) for each in runs)
        now = time.monotonic()
        if counts != self._printed or now - self._printed_at >= REPEAT_AFTER:
            self._printed, self._printed_at = counts, now
            for each in runs:
                self.output.note(f"{escape(each.destination)}: {', '.join(describe_progress(each))}")

    def _draw(self, runs: tuple[RunProgress, ...]) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        lines = []
        for each in runs:
            title = f"{escape(each.destination)}  run {escape(each.run)} of {escape(each.user)}"
            lines.append(Text(title, style="bold", no_wrap=True, overflow="ellipsis"))
            lines.extend(Text(f"  {text}", no_wrap=True, overflow="ellipsis") for text in describe_progress(each))
        self._live.update(Group(*lines), refresh=True)


def describe_progress(progress: RunProgress) -> tuple[str, str]:
    """Return how many nodes are at which stage, and how many bytes are written."""
    parts = [f"{progress.published:,} of {pluralize(progress.nodes, 'node')} have it"]
    for number, word in (
        (progress.writing, "writing"), (progress.preparing, "preparing"), (progress.waiting, "waiting"),
        (progress.lost, "unreachable"),
    ):  # fmt: skip
        if number:
            parts.append(f"{number:,} {word}")
    total = "" if progress.total_bytes is None else f" of {format_bytes(progress.total_bytes)}"
    return ", ".join(parts), f"{format_bytes(progress.written_bytes)}{total} on their disks"
