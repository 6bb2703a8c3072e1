"""Journal: what `--log-dir` keeps: a file for each attempt, every line with its rank, and a summary."""

from __future__ import annotations

import contextlib
import os
import re
from typing import IO, TYPE_CHECKING

from ezpz.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

SUMMARY = "summary.txt"
_NAME = re.compile(r"attempt-(\d+)\.log")
LAUNCHER = b"launcher: "


class Journal:
    """One directory. Numbers go on where an earlier run stopped, and nothing is ever overwritten."""

    def __init__(self, directory: str) -> None:
        """Make the directory if it is not there. Raises UsageError."""
        self.directory = directory
        try:
            os.makedirs(directory, exist_ok=True)
            numbers = [int(match[1]) for match in map(_NAME.fullmatch, os.listdir(directory)) if match]
        except OSError as e:
            raise _cannot(directory, e) from e
        self._last = max(numbers, default=0)

    def attempt(self) -> AttemptLog:
        """The log of the next attempt. Raises UsageError."""
        self._last += 1
        path = os.path.join(self.directory, f"attempt-{self._last}.log")
        try:
            return AttemptLog(path, open(path, "xb"))
        except OSError as e:
            raise _cannot(path, e) from e

    def summarize(self, lines: Iterable[str]) -> None:
        """Append to the summary. Raises UsageError."""
        path = os.path.join(self.directory, SUMMARY)
        try:
            with open(path, "a", encoding="utf-8", errors="replace") as file:
                file.write("".join(f"{line}\n" for line in lines))
        except OSError as e:
            raise _cannot(path, e) from e


class AttemptLog:
    """The log of one attempt. A disk that is full, or gone, costs the log and not the run: see `complaint`."""

    def __init__(self, path: str, file: IO[bytes]) -> None:
        self.path = path
        self.complaint = ""
        self._file = file

    def write(self, rank: int | None, line: bytes) -> None:
        """A line that a rank (None: the launcher) has said."""
        if self.complaint:
            return
        try:
            self._file.write((LAUNCHER if rank is None else b"%d: " % rank) + line + b"\n")
            self._file.flush()
        except OSError as e:
            self.complaint = f"'{self.path}' cannot be written, and ends here: {e.strerror}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def _cannot(path: str, error: OSError) -> UsageError:
    return UsageError(f"--log-dir: '{path}' cannot be written: {error.strerror}", hint="choose another directory")
