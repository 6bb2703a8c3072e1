"""How a run is shown that somebody follows: redrawn in place on a terminal, a line when something changed elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ezpz.runtime.text import pluralize
from ezpz.yeet.agent.place import human
from ezpz.yeet.agent.refusal import shown

if TYPE_CHECKING:
    from ezpz.cli.output import Output
    from ezpz.yeet.watch import Progress

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
    of = "" if progress.total is None else f" of {human(progress.total)}"
    return ", ".join(parts), f"{human(progress.landed)}{of} on their disks"


def _safe(text: str) -> str:
    return shown(text.encode("utf-8", "surrogateescape"))
