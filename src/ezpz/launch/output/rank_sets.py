"""Sets of ranks as short text: `0-3,7,12-15 (9 ranks)`. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def fold(ranks: Iterable[int]) -> str:
    """Return the ranks in order, with three or more in a row as `first-last`: "0-3,7,12,13"; "" for none."""
    pieces: list[str] = []
    for first, last in runs(ranks):
        if last - first >= 2:
            pieces.append(f"{first}-{last}")
        else:
            pieces += [str(rank) for rank in range(first, last + 1)]
    return ",".join(pieces)


def parse(text: str, *, below: int) -> frozenset[int]:
    """Return the ranks in text such as `fold` makes. Leave out ranks from `below` on and text of another form."""
    found: set[int] = set()
    for first, last in re.findall(r"(?a)(?<![^,])(\d{1,9})(?:-(\d{1,9}))?(?![^,])", text):
        found.update(range(int(first), min(int(last or first), below - 1) + 1))
    return frozenset(found)


def describe(ranks: Iterable[int]) -> str:
    """Return the ranks and their number: "0-3,7 (5 ranks)", "7 (1 rank)", "no rank"."""
    each = frozenset(ranks)
    return f"{fold(each)} ({len(each)} rank{'s' if len(each) != 1 else ''})" if each else "no rank"


def runs(ranks: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and the last rank of each series without gaps, in order."""
    found: list[tuple[int, int]] = []
    for rank in sorted(frozenset(ranks)):
        if found and rank == found[-1][1] + 1:
            found[-1] = (found[-1][0], rank)
        else:
            found.append((rank, rank))
    return found
