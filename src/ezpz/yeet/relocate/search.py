"""Search: whether an old prefix occurs in a file that is too large to be held in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ezpz.yeet.relocate.prefix import PrefixMap

LONGEST_SPELLING = 6  # bytes that JSON writes for one, as in \u00e9


class Search:
    """Takes the pieces of one file in order, and tells whether an old prefix is in them or across two of them."""

    def __init__(self, prefixes: PrefixMap) -> None:
        self.prefixes = prefixes
        self.found = False
        self._tail = b""
        self._overlap = max((len(old) for old in prefixes.old), default=0) * LONGEST_SPELLING

    def take(self, piece: bytes) -> None:
        """Look at the next piece."""
        if not self.found and self._overlap:
            across = self._tail + piece[: self._overlap]
            self.found = self.prefixes.found_in(piece) or self.prefixes.found_in(across)
            self._tail = piece[-self._overlap :]
