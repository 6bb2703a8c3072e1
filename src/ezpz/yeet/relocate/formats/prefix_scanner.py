"""Search: which old prefixes occur in a file that is too large to be held in memory, and where it can be parted."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from ezpz.yeet.relocate.formats.prefix import LOOK_BACK

if TYPE_CHECKING:
    from ezpz.yeet.relocate.formats.prefix import PrefixMap, PrefixMatch

LONGEST_SPELLING = 6  # bytes that JSON writes for one, as in \u00e9
AHEAD = 8  # bytes behind a path that tell whether it ends there; more than there are


class PrefixScanner:
    """Takes the pieces of one file in order, and tells what is in them or across two of them.

    found: an old prefix, as a whole path or not; named: a whole one, for sure once `finish` was called
    is_text: no NUL byte, and no hole
    """

    def __init__(self, prefixes: PrefixMap) -> None:
        self.prefixes = prefixes
        self.found = self.named = False
        self.is_text = True
        self._longest = _longest(prefixes)
        self._tail = b""
        self._end = 0
        self._has_more_before = False  # than the tail, without a break

    def take(self, offset: int, piece: bytes) -> None:
        """Look at the next piece; between it and the one before it there may be a hole."""
        if offset != self._end:
            self._close()
        self.is_text = self.is_text and offset == self._end and b"\0" not in piece
        self._end = offset + len(piece)
        if not self.named and self._longest:
            self._look(piece)

    def finish(self, size: int) -> None:
        """Look at what is left; the file has `size` bytes."""
        self.is_text = self.is_text and size == self._end
        self._close()

    def _look(self, piece: bytes) -> None:
        if self.prefixes.found_in(piece) or self.prefixes.found_in(self._tail + piece[: self._longest]):
            self.found = True
            self.named = self._names_one(self._tail + piece, AHEAD)
        keep = LOOK_BACK + self._longest + AHEAD
        self._has_more_before = self._has_more_before or len(self._tail) + len(piece) > keep
        self._tail = (piece if len(piece) >= keep else self._tail + piece)[-keep:]

    def _names_one(self, text: bytes, ahead: int) -> bool:
        """Whether a whole old path is in `text`; what stands too near to either end is told by another piece."""
        first = LOOK_BACK if self._has_more_before else 0
        return any(first <= found.start and found.end <= len(text) - ahead for found in self.prefixes.find(text))

    def _close(self) -> None:
        """NULs or nothing follow what was taken."""
        if self.found and not self.named:
            self.named = self._names_one(self._tail, 0)
        self._tail = b""
        self._has_more_before = False


def cut(text: bytes, prefixes: PrefixMap) -> int:
    """Where a text whose end is not there yet may be parted; 0 when it is too short for that.

    Behind a line break if there is one: both parts hold the same whole old paths as the text.
    """
    reach = LOOK_BACK + _longest(prefixes) + AHEAD
    last = max(0, len(text) - reach)
    line = text.rfind(b"\n", 0, last) + 1
    for end in chain((line or last,), range(last, 0, -1)):
        around = text[max(0, end - reach) : end + reach]
        at = min(end, reach)
        after = [_moved(found, at) for found in prefixes.find(around[at:])]
        if [*prefixes.find(around)] == [*prefixes.find(around[:at]), *after]:
            return end
    return 0


def _longest(prefixes: PrefixMap) -> int:
    """The length that an old prefix can have in any spelling."""
    return max((len(old) for old in prefixes.old), default=0) * LONGEST_SPELLING


def _moved(found: PrefixMatch, by: int) -> PrefixMatch:
    return found._replace(start=found.start + by, end=found.end + by)
