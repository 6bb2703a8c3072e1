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
    """One directory. Numbers go on where any other run is, and nothing is ever overwritten.

    Once it is there, a disk that is full, or gone, costs what would be kept, and not the run: see `complaint`.
    """

    def __init__(self, directory: str) -> None:
        """Make the directory if it is not there. Raises UsageError if nothing can be written into it."""
        self.directory = directory
        self.complaint = ""
        self._summary = os.path.join(directory, SUMMARY)
        try:
            os.makedirs(directory, exist_ok=True)
            numbers = [int(match[1]) for match in map(_NAME.fullmatch, os.listdir(directory)) if match]
            with open(self._summary, "ab"):
                pass
        except OSError as e:
            hint = "choose another directory"
            raise UsageError(f"--log-dir: '{directory}' cannot be written: {e.strerror}", hint=hint) from e
        self._last = max(numbers, default=0)

    def attempt(self) -> AttemptLog:
        """The log of the next attempt."""
        while True:
            self._last += 1
            path = os.path.join(self.directory, f"attempt-{self._last}.log")
            try:
                return AttemptLog(path, open(path, "xb"))
            except FileExistsError:
                continue  # of a run that goes on at the same time
            except OSError as e:
                return AttemptLog(path, open(os.devnull, "wb"), f"'{path}' cannot be written: {e.strerror}")

    def summarize(self, lines: Iterable[str]) -> None:
        """Append to the summary, all at once: another run may do the same."""
        try:
            with open(self._summary, "ab", buffering=0) as file:
                file.write("".join(f"{line}\n" for line in lines).encode(errors="replace"))
        except OSError as e:
            self.complaint = f"'{self._summary}' cannot be written: {e.strerror}"


class AttemptLog:
    """The log of one attempt. A disk that is full, or gone, costs the log and not the run: see `complaint`."""

    def __init__(self, path: str, file: IO[bytes], complaint: str = "") -> None:
        self.path = path
        self.complaint = complaint
        self._file = file

    def write(self, said: Iterable[tuple[int | None, bytes]]) -> None:
        """Lines, each with the rank that said it (None: the launcher); they are on the disk then."""
        if self.complaint:
            return
        try:
            self._file.writelines(
                b"%b%b\n" % (LAUNCHER if rank is None else b"%d: " % rank, line) for rank, line in said
            )
            self._file.flush()
        except OSError as e:
            self.complaint = f"'{self.path}' cannot be written, and ends here: {e.strerror}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
