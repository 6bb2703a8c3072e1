"""What of one rank's output is shown, and when: without noise, and at once. Pure: the clock is an argument."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from ezpz.launch.launchers.output_labels import HOLD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LINE_BYTES = 1 << 20  # bytes of a line that are kept together


class NoiseFilter:
    """One rank's output on its way to the user.

    A line that matches one of `noise` is left out. The begin of a line (a prompt, or a progress bar, which goes back by
    carriage returns and does not end its line) is shown without waiting for the end; where there is noise to leave out,
    or other ranks share the screen and might break into it, it waits `HOLD` seconds, and then what follows is shown
    whatever it is.
    """

    def __init__(self, noise: Sequence[re.Pattern[bytes]] = (), *, shared: bool = False) -> None:
        self.noise = tuple(noise)
        self.waits = shared or bool(noise)
        self.due = math.inf
        self.hidden_lines = 0
        self._pending = b""
        self._in_line = False

    def feed(self, data: bytes, now: float) -> bytes:
        """Take output; return what is shown now."""
        if not self.waits:
            return data
        *whole, rest = (self._pending + data).split(b"\n")
        shown = [line + b"\n" for line in whole if self._is_shown(line)]
        if whole or not self._pending:
            self.due = now + HOLD_SECONDS
        self._pending = b"" if self._in_line else rest
        if self._in_line:
            shown.append(rest)
        if not self._pending:
            self.due = math.inf
        return b"".join(shown)

    def _is_shown(self, line: bytes) -> bool:
        shows = self._in_line or not self._is_noise(line)
        self.hidden_lines += not shows
        self._in_line = False
        return shows

    def flush(self, now: float) -> bytes:
        """The begin of a line that has waited long enough; at the end of the stream, `now` is infinite."""
        if not self._pending or now < self.due:
            return b""
        held, self._pending, self.due = self._pending, b"", math.inf
        if now == math.inf and self._is_noise(held):
            self.hidden_lines += 1
            return b""
        self._in_line = True
        return held

    def _is_noise(self, line: bytes) -> bool:
        text = line.rstrip(b"\r")
        return any(pattern.search(text) for pattern in self.noise)


class LineSplitter:
    """One rank's output, cut into lines without their ends, for a log and for whoever looks for something in it.

    What a progress bar draws over is a line of its own: a carriage return ends one, too.
    """

    def __init__(self) -> None:
        self._pending = b""

    @property
    def has_partial(self) -> bool:
        """Whether the next line has begun in an earlier piece."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that this completes; one that grows beyond `LONGEST` is cut."""
        text = self._pending + data
        *lines, self._pending = text.split(b"\n")
        if b"\r" in text:
            *drawn, self._pending = _DRAWN_OVER.split(self._pending)
            lines = [part for line in lines for part in _split_overdrawn(line) or (b"",)] + list(filter(None, drawn))
        while len(self._pending) > MAX_LINE_BYTES:
            lines.append(self._pending[:MAX_LINE_BYTES])
            self._pending = self._pending[MAX_LINE_BYTES:]
        return lines

    def flush(self) -> list[bytes]:
        """What is left at the end of the stream, if anything."""
        held, self._pending = self._pending, b""
        return _split_overdrawn(held)


_DRAWN_OVER = re.compile(rb"\r(?!\r*\Z)")  # those at the end may belong to a line feed that is still to come


def _split_overdrawn(line: bytes) -> list[bytes]:
    return [part for part in line.split(b"\r") if part]
