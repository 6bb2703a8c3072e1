"""The first error of each rank, for the report about a failed run. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINES = 60  # lines of one error
MAX_LINE_CHARS = 500  # characters of a line
MAX_RANKS = 4096  # ranks whose error is kept
TRACEBACK = "Traceback (most recent call last)"
ERROR = re.compile(
    r"(?:^|[^\w])[\w.]*(?:Error|Exception|Interrupt|Exit)\b\s*:|\b(?:error|fatal|panic)\b\s*[:!]|\bFATAL\b|\bERROR\b"
    r"|Segmentation fault|Bus error|Illegal instruction|core dumped|terminate called|[Oo]ut of memory|MPI_Abort"
    r"|Assertion .*failed|command not found|No such file or directory|Permission denied",
    re.IGNORECASE,
)
KEYWORDS = (
    "error", "exception", "interrupt", "exit", "fatal", "panic", "fault", "illegal", "dumped", "terminate", "of memory",
    "abort", "assert", "not found", "no such", "denied", "traceback",
)  # fmt: skip
"""The first line of an error contains one of them. Searching for them first is cheaper."""


class FirstErrors:
    """Collects the first error of each rank, and the complete Python traceback if it is one."""

    def __init__(self) -> None:
        self._errors: dict[int | None, list[str]] = {}
        self._collecting: set[int | None] = set()

    def is_collecting(self, rank: int | None) -> bool:
        """Return whether the next line of this rank belongs to its error."""
        return rank in self._collecting

    def feed(self, line: str, rank: int | None) -> None:
        """Take a line without its end. `rank` is None for the launcher and where the rank is unknown."""
        if rank in self._collecting:
            self._continue(line.rstrip()[:MAX_LINE_CHARS], rank)
        elif rank not in self._errors and len(self._errors) < MAX_RANKS and self._starts_error(line[:MAX_LINE_CHARS]):
            traceback = line.find(TRACEBACK)  # a progress bar can precede it
            self._errors[rank] = [line[max(0, traceback) :].rstrip()[:MAX_LINE_CHARS]]
            if traceback >= 0:
                self._collecting.add(rank)

    def _starts_error(self, line: str) -> bool:
        if TRACEBACK in line:
            return True
        small = line.lower()
        return any(word in small for word in KEYWORDS) and ERROR.search(line) is not None

    def _continue(self, line: str, rank: int | None) -> None:
        kept = self._errors[rank]
        ends = bool(line) and not line[0].isspace()
        if len(kept) < MAX_LINES or ends:
            kept.append(line)
        if ends:
            self._collecting.discard(rank)

    def first_of(self, failed: Iterable[int | None]) -> tuple[int | None, tuple[str, ...]] | None:
        """Return the rank and the lines of the error to show: of the first of `failed` that has one, else of any rank.

        The launcher's own errors are last, because it also reports what it does at the end of a run.
        """
        for rank in (*failed, *(rank for rank in self._errors if rank is not None), None):
            if rank in self._errors:
                return rank, tuple(self._errors[rank])
        return None
