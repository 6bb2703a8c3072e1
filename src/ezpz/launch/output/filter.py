"""What of one rank's output is shown, and when: without noise, and at once. Pure: the clock is an argument."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from ezpz.launch.launchers.output_labels import HOLD

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 1 << 20  # bytes of a line that are kept together


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
        self.left_out = 0
        self._held = b""
        self._begun = False

    def feed(self, data: bytes, now: float) -> bytes:
        """Take output; return what is shown now."""
        if not self.waits:
            return data
        *whole, rest = (self._held + data).split(b"\n")
        shown = [line + b"\n" for line in whole if self._shows(line)]
        if whole or not self._held:
            self.due = now + HOLD
        self._held = b"" if self._begun else rest
        if self._begun:
            shown.append(rest)
        if not self._held:
            self.due = math.inf
        return b"".join(shown)

    def _shows(self, line: bytes) -> bool:
        shows = self._begun or not self._is_noise(line)
        self.left_out += not shows
        self._begun = False
        return shows

    def flush(self, now: float) -> bytes:
        """The begin of a line that has waited long enough; at the end of the stream, `now` is infinite."""
        if not self._held or now < self.due:
            return b""
        held, self._held, self.due = self._held, b"", math.inf
        if now == math.inf and self._is_noise(held):
            self.left_out += 1
            return b""
        self._begun = True
        return held

    def _is_noise(self, line: bytes) -> bool:
        text = line.rstrip(b"\r")
        return any(pattern.search(text) for pattern in self.noise)


class LineSplitter:
    """One rank's output, cut into lines without their ends, for a log and for whoever looks for something in it.

    What a progress bar draws over is a line of its own: a carriage return ends one, too.
    """

    def __init__(self) -> None:
        self._held = b""

    @property
    def has_begun(self) -> bool:
        """Whether the next line has begun in an earlier piece."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that this completes; one that grows beyond `LONGEST` is cut."""
        text = self._held + data
        *lines, self._held = text.split(b"\n")
        if b"\r" in text:
            *drawn, self._held = _DRAWN_OVER.split(self._held)
            lines = [part for line in lines for part in _drawn(line) or (b"",)] + list(filter(None, drawn))
        while len(self._held) > LONGEST:
            lines.append(self._held[:LONGEST])
            self._held = self._held[LONGEST:]
        return lines

    def flush(self) -> list[bytes]:
        """What is left at the end of the stream, if anything."""
        held, self._held = self._held, b""
        return _drawn(held)


_DRAWN_OVER = re.compile(rb"\r(?!\r*\Z)")  # those at the end may belong to a line feed that is still to come


def _drawn(line: bytes) -> list[bytes]:
    return [part for part in line.split(b"\r") if part]
