"""Search a file that is too large to be held in memory for old prefixes, and find places to split it."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from ezpz.yeet.relocate.formats.prefix import MAX_PATH

if TYPE_CHECKING:
    from ezpz.yeet.relocate.formats.prefix import PrefixMap, PrefixMatch

MAX_ESCAPE = 6  # bytes that JSON writes for one byte, as in \u00e9
LOOK_AHEAD = 8  # bytes after a path that show whether it ends there; more than are needed


class PrefixScanner:
    """Searches the pieces of one file in order. Prefixes across two pieces are found.

    Attributes:
        has_prefix: Whether an old prefix was found, as a whole path or not.
        has_whole_path: Whether a whole old path was found. Reliable after `finish`.
        is_text: Whether there is no NUL byte and no hole.
    """

    def __init__(self, prefixes: PrefixMap) -> None:
        self.prefixes = prefixes
        self.has_prefix = self.has_whole_path = False
        self.is_text = True
        self._max_length = _max_length(prefixes)
        self._tail = b""
        self._end = 0
        self._has_more_before = False  # whether there was more text before the tail, without a hole

    def feed(self, offset: int, piece: bytes) -> None:
        """Search the next piece. Between it and the previous one there may be a hole."""
        if offset != self._end:
            self._end_run()
        self.is_text = self.is_text and offset == self._end and b"\0" not in piece
        self._end = offset + len(piece)
        if not self.has_whole_path and self._max_length:
            self._search(piece)

    def finish(self, size: int) -> None:
        """Search what is left. The file has `size` bytes."""
        self.is_text = self.is_text and size == self._end
        self._end_run()

    def _search(self, piece: bytes) -> None:
        if self.prefixes.may_occur_in(piece) or self.prefixes.may_occur_in(self._tail + piece[: self._max_length]):
            self.has_prefix = True
            self.has_whole_path = self._contains_whole_path(self._tail + piece, LOOK_AHEAD)
        keep = MAX_PATH + self._max_length + LOOK_AHEAD
        self._has_more_before = self._has_more_before or len(self._tail) + len(piece) > keep
        self._tail = (piece if len(piece) >= keep else self._tail + piece)[-keep:]

    def _contains_whole_path(self, text: bytes, lookahead: int) -> bool:
        """Return whether a whole old path is in `text`. What is too near to either end is found in another piece."""
        first = MAX_PATH if self._has_more_before else 0
        return any(first <= found.start and found.end <= len(text) - lookahead for found in self.prefixes.find(text))

    def _end_run(self) -> None:
        """Search what is left before a hole or the end of the file."""
        if self.has_prefix and not self.has_whole_path:
            self.has_whole_path = self._contains_whole_path(self._tail, 0)
        self._tail = b""
        self._has_more_before = False


def find_split(text: bytes, prefixes: PrefixMap) -> int:
    """Return where an incomplete text can be split, or 0 if it is too short.

    After a line break if there is one. Both parts contain the same whole old paths as the text.
    """
    reach = MAX_PATH + _max_length(prefixes) + LOOK_AHEAD
    last = max(0, len(text) - reach)
    line = text.rfind(b"\n", 0, last) + 1
    for end in chain((line or last,), range(last, 0, -1)):
        around = text[max(0, end - reach) : end + reach]
        at = min(end, reach)
        after = [_shifted(found, at) for found in prefixes.find(around[at:])]
        if [*prefixes.find(around)] == [*prefixes.find(around[:at]), *after]:
            return end
    return 0


def _max_length(prefixes: PrefixMap) -> int:
    """Return the maximum length of an old prefix in any spelling."""
    return max((len(old) for old in prefixes.old), default=0) * MAX_ESCAPE


def _shifted(found: PrefixMatch, by: int) -> PrefixMatch:
    return found._replace(start=found.start + by, end=found.end + by)
