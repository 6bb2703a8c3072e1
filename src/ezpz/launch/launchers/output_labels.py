"""Labels in the output of a launcher: how to ask for them, and how to split the output by rank. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

HOLD_SECONDS = 0.1  # seconds that the start of a line waits for its end, if the end decides what is shown
MAX_LABEL_BYTES = 300  # bytes


@dataclass(frozen=True, slots=True)
class LabelFormat:
    """The label format of one launcher.

    Attributes:
        options: The options that turn labels on. They follow the launcher's name.
        pattern: A label. Its group `rank` is the rank; the group `node`, if it has one, is the node.
        user_options: Options with which users ask for labels. Such labels are shown to them.
        opening: The start of a label that can be anywhere; b"" if labels are only at the start of lines.
        max_line: Bytes after which a line is broken and continued after another label; 0 if lines are not broken.
    """

    options: tuple[str, ...]
    pattern: re.Pattern[bytes]
    user_options: frozenset[str]
    opening: bytes = b""
    max_line: int = 0


def add_label_options(label: LabelFormat | None, argv: Sequence[str]) -> tuple[str, ...]:
    """Return the command line with the options that make the launcher label output."""
    return (argv[0], *label.options, *argv[1:]) if label else tuple(argv)


@dataclass(frozen=True, slots=True)
class LabeledText:
    """A part of the output without its label. `rank` is None for the launcher's own output and where it is unknown."""

    text: bytes
    rank: int | None = None
    node: str | None = None


class LabelParser:
    """Splits one stream of output by label.

    Without a label format all output belongs to `rank`. `held` is incomplete output, `due` is when it must be flushed.
    """

    def __init__(self, label: LabelFormat | None, rank: int | None = None) -> None:
        self.label = label
        self.rank = rank
        self.due = math.inf
        self.held = b""
        self._source = LabeledText(b"", rank)
        self._in_line = False

    def feed(self, data: bytes, now: float) -> list[LabeledText]:
        """Take output. Return the parts whose rank is known."""
        label = self.label
        if label is None:
            return [LabeledText(data, self.rank)] if data else []
        data, self.held, self.due = self.held + data, b"", math.inf
        return self._split_anywhere(label, data, now) if label.opening else self._split_lines(label, data, now)

    def flush(self, now: float) -> list[LabeledText]:
        """Return the incomplete output if it has waited long enough. An infinite `now` returns all of it."""
        if self.label is None or not self.held or now < self.due:
            return []
        held, self.held, self.due = self.held, b"", math.inf
        self._in_line = True
        return [self._read(self.label, held)]

    def _split_lines(self, label: LabelFormat, data: bytes, now: float) -> list[LabeledText]:
        pieces = []
        for line in _lines(data):
            if self._in_line or line.endswith(b"\n"):
                pieces.append(replace(self._source, text=line) if self._in_line else self._read(label, line))
                self._in_line = not line.endswith(b"\n")
            else:
                self._hold(line, now)
        return pieces

    def _read(self, label: LabelFormat, line: bytes) -> LabeledText:
        match = label.pattern.match(line)
        if match is None:
            if not label.opening:
                self._source = LabeledText(b"", self.rank)
            return replace(self._source, text=line)
        self._source = _source_of(match)
        text = line[match.end() :]
        if label.max_line and len(text) == label.max_line + 1:
            text = text.removesuffix(b"\n")
        return replace(self._source, text=text)

    def _split_anywhere(self, label: LabelFormat, data: bytes, now: float) -> list[LabeledText]:
        pieces = []
        start = 0
        for match in label.pattern.finditer(data):
            pieces += self._after_label(data[start : match.start()])
            self._source, start = _source_of(match), match.end()
        rest = data[start:]
        cut = _incomplete_label(rest, label.opening)
        if cut < len(rest):
            self._hold(rest[cut:], now)
        return [*pieces, *self._after_label(rest[:cut])]

    def _after_label(self, text: bytes) -> list[LabeledText]:
        """Return the text after a label. It belongs to the rank up to the end of the line; what follows has no rank."""
        line, end, more = text.partition(b"\n")
        pieces = [replace(self._source, text=line + end)]
        if end:
            self._source = LabeledText(b"", self.rank)
            pieces.append(LabeledText(more, self.rank))
        return [piece for piece in pieces if piece.text]

    def _hold(self, data: bytes, now: float) -> None:
        self.held = data
        self.due = now + HOLD_SECONDS


def _source_of(match: re.Match[bytes]) -> LabeledText:
    node = match.groupdict().get("node")
    return LabeledText(b"", int(match["rank"]) if match["rank"] else None, node.decode() if node else None)


def _lines(data: bytes) -> list[bytes]:
    """Return the lines with their ends. A carriage return does not end a line."""
    *complete, rest = data.split(b"\n")
    return [line + b"\n" for line in complete] + ([rest] if rest else [])


def _incomplete_label(data: bytes, opening: bytes) -> int:
    """Return the index of an incomplete label at the end of the data; the length of the data if there is none."""
    start = data.rfind(opening)
    if start >= 0:
        is_incomplete = len(data) - start < MAX_LABEL_BYTES and b"|>" not in data[start:] and b"\n" not in data[start:]
        return start if is_incomplete else len(data)
    return len(data) - 1 if data.endswith(opening[:1]) else len(data)
