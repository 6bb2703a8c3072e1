"""Filter for the output of one rank: it is shown without noise and without delay. Pure: the clock is an argument."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from ezpz.launch.launchers.output_labels import HOLD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LINE_BYTES = 1 << 20


class NoiseFilter:
    """Removes the lines that match one of `noise` from the output of one rank.

    The start of a line is shown before its end arrives. It can be a prompt or a progress bar, which returns to the
    start of the line. If there is noise to remove, or if other ranks print to the same terminal, the start waits
    `HOLD_SECONDS`. After that the rest of the line is shown in any case.
    """

    def __init__(self, noise: Sequence[re.Pattern[bytes]] = (), *, shared: bool = False) -> None:
        self.noise = tuple(noise)
        self.waits = shared or bool(noise)
        self.due = math.inf
        self.hidden_lines = 0
        self._pending = b""
        self._in_line = False

    def feed(self, data: bytes, now: float) -> bytes:
        """Take output. Return what to show now."""
        if not self.waits:
            return data
        *complete, rest = (self._pending + data).split(b"\n")
        shown = [line + b"\n" for line in complete if self._end_line(line)]
        if complete or not self._pending:
            self.due = now + HOLD_SECONDS
        self._pending = b"" if self._in_line else rest
        if self._in_line:
            shown.append(rest)
        if not self._pending:
            self.due = math.inf
        return b"".join(shown)

    def _end_line(self, line: bytes) -> bool:
        """Count a line if it is hidden. Return whether it is shown."""
        is_shown = self._in_line or not self._is_noise(line)
        self.hidden_lines += not is_shown
        self._in_line = False
        return is_shown

    def flush(self, now: float) -> bytes:
        """Return the start of a line that has waited long enough. At the end of the stream `now` is infinite."""
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
    """Splits the output of one rank into lines without their ends, for the log and the search for errors.

    A carriage return ends a line, too: each state of a progress bar is a line of its own.
    """

    def __init__(self) -> None:
        self._pending = b""

    @property
    def has_partial(self) -> bool:
        """Whether an earlier piece ended within a line."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that this completes. A line of more than `MAX_LINE_BYTES` is cut."""
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
        """Return the rest at the end of the stream."""
        held, self._pending = self._pending, b""
        return _split_overdrawn(held)


_DRAWN_OVER = re.compile(rb"\r(?!\r*\Z)")  # one at the end can be followed by a line feed that has not arrived


def _split_overdrawn(line: bytes) -> list[bytes]:
    return [part for part in line.split(b"\r") if part]
