"""Labels: how a launcher is asked to tell which rank says what, and how its output is taken apart again. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

HOLD_SECONDS = 0.1  # seconds that the begin of a line may wait for its end, where its end decides what becomes of it
LONGEST_LABEL = 300  # bytes


@dataclass(frozen=True, slots=True)
class LabelFormat:
    """One launcher's way to label output.

    options: what asks for it, right behind the launcher's name
    pattern: a label; its group `rank` is the rank, `node`, if there is one, the node
    users: words by which users ask for labels, which they want to see then
    opens: what begins a label that can stand anywhere; b"" where labels stand at the begin of lines only
    longest: bytes after which a longer line is broken, and goes on behind a further label; 0 if none is
    """

    options: tuple[str, ...]
    pattern: re.Pattern[bytes]
    user_options: frozenset[str]
    opening: bytes = b""
    max_line: int = 0


def add_label_options(label: LabelFormat | None, argv: Sequence[str]) -> tuple[str, ...]:
    """The command line that makes the launcher label what the ranks say."""
    return (argv[0], *label.options, *argv[1:]) if label else tuple(argv)


@dataclass(frozen=True, slots=True)
class LabeledText:
    """A part of the output without its label, and who said it: no rank where that is unknown or it is the launcher."""

    text: bytes
    rank: int | None = None
    node: str | None = None


class LabelParser:
    """One stream of labelled output, taken apart. Without a label all of it is `rank`'s. `held` waits for its end."""

    def __init__(self, label: LabelFormat | None, rank: int | None = None) -> None:
        self.label = label
        self.rank = rank
        self.due = math.inf
        self.held = b""
        self._whose = LabeledText(b"", rank)
        self._begun = False

    def feed(self, data: bytes, now: float) -> list[LabeledText]:
        """Take output; return what of it is complete enough to know whose it is."""
        if self.label is None:
            return [LabeledText(data, self.rank)] if data else []
        data, self.held, self.due = self.held + data, b"", math.inf
        return self._anywhere(data, now) if self.label.opening else self._by_line(data, now)

    def flush(self, now: float) -> list[LabeledText]:
        """What was held back, once it has waited long enough; all of it when `now` is infinite."""
        if not self.held or now < self.due:
            return []
        held, self.held, self.due = self.held, b"", math.inf
        self._begun = True
        return [self._read(held)]

    def _by_line(self, data: bytes, now: float) -> list[LabeledText]:
        pieces = []
        for line in _lines(data):
            if self._begun or line.endswith(b"\n"):
                pieces.append(
                    LabeledText(line, self._whose.rank, self._whose.node) if self._begun else self._read(line)
                )
                self._begun = not line.endswith(b"\n")
            else:
                self._hold(line, now)
        return pieces

    def _read(self, line: bytes) -> LabeledText:
        assert self.label is not None
        match = self.label.pattern.match(line)
        if match is None:
            if not self.label.opening:
                self._whose = LabeledText(b"", self.rank)
            return LabeledText(line, self._whose.rank, self._whose.node)
        self._whose = _whose(match)
        text = line[match.end() :]
        if self.label.max_line and len(text) == self.label.max_line + 1:
            text = text.removesuffix(b"\n")
        return LabeledText(text, self._whose.rank, self._whose.node)

    def _anywhere(self, data: bytes, now: float) -> list[LabeledText]:
        assert self.label is not None
        pieces = []
        place = 0
        for match in self.label.pattern.finditer(data):
            pieces += self._spoken(data[place : match.start()])
            self._whose, place = _whose(match), match.end()
        rest = data[place:]
        cut = _begun_label(rest, self.label.opening)
        if cut < len(rest):
            self._hold(rest[cut:], now)
        return [*pieces, *self._spoken(rest[:cut])]

    def _spoken(self, text: bytes) -> list[LabeledText]:
        """What follows a label: the rank's to the end of the line; what comes then without a label is nobody's."""
        line, end, more = text.partition(b"\n")
        pieces = [LabeledText(line + end, self._whose.rank, self._whose.node)]
        if end:
            self._whose = LabeledText(b"", self.rank)
            pieces.append(LabeledText(more, self.rank))
        return [piece for piece in pieces if piece.text]

    def _hold(self, data: bytes, now: float) -> None:
        self.held = data
        self.due = now + HOLD_SECONDS


def _whose(match: re.Match[bytes]) -> LabeledText:
    node = match.groupdict().get("node")
    return LabeledText(b"", int(match["rank"]) if match["rank"] else None, node.decode() if node else None)


def _lines(data: bytes) -> list[bytes]:
    """The lines with their ends; a carriage return ends none."""
    *whole, rest = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


def _begun_label(data: bytes, opening: bytes) -> int:
    """Where a label begins that has not ended; the length of the data if none does."""
    place = data.rfind(opening)
    if place >= 0:
        begun = len(data) - place < LONGEST_LABEL and b"|>" not in data[place:] and b"\n" not in data[place:]
        return place if begun else len(data)
    return len(data) - 1 if data.endswith(opening[:1]) else len(data)
