"""Journal: what `--log-dir` keeps: a file for each attempt, every line with its rank, and a summary."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from typing import IO, TYPE_CHECKING

from ezpz.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

SUMMARY = "summary.txt"
_NAME = re.compile(r"attempt-(\d+)\.log")
LAUNCHER = b"launcher: "
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LogDirectory:
    """One directory. Numbers go on where any other run is, and nothing is ever overwritten, nor a link followed.

    Directory and files are made for this user alone: what programs print may hold secrets.
    Once it is there, a disk that is full, or gone, costs what would be kept, and not the run: see `complaint`.
    """

    def __init__(self, directory: str) -> None:
        """Make the directory if it is not there. Raises UsageError if nothing can be written into it."""
        self.directory = directory
        self.write_error = ""
        self._summary = os.path.join(directory, SUMMARY)
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            numbers = [int(match[1]) for match in map(_NAME.fullmatch, os.listdir(directory)) if match]
            os.close(_open_own(self._summary))
        except OSError as e:
            where, why = e.filename or directory, _why(e)
            raise UsageError(f"--log-dir: '{where}' cannot be written: {why}", hint="choose another directory") from e
        self._last = max(numbers, default=0)

    def attempt(self) -> AttemptLog:
        """The log of the next attempt."""
        while True:
            self._last += 1
            path = os.path.join(self.directory, f"attempt-{self._last}.log")
            try:
                return AttemptLog(path, os.fdopen(os.open(path, _NEW_FILE, 0o600), "wb"))
            except FileExistsError:
                continue  # of a run that goes on at the same time
            except OSError as e:
                return AttemptLog(path, open(os.devnull, "wb"), f"'{path}' cannot be written: {e.strerror}")

    def append_summary(self, lines: Iterable[str]) -> None:
        """Append to the summary, all at once: another run may do the same."""
        try:
            with os.fdopen(_open_own(self._summary), "ab", buffering=0) as file:
                file.write("".join(f"{line}\n" for line in lines).encode(errors="replace"))
        except OSError as e:
            self.write_error = f"'{self._summary}' cannot be written: {_why(e)}"


def _why(error: OSError) -> str:
    return "it is a link" if error.errno == errno.ELOOP else str(error.strerror)


def _open_own(path: str) -> int:
    """Open a file of this user for appending, or make it. Raises OSError if anything else is there.

    A file of this user that has another name elsewhere is refused as well: somebody may have put it here.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1:
        return fd
    os.close(fd)
    raise PermissionError(errno.EPERM, "it is not a file of yours alone", path)


class AttemptLog:
    """The log of one attempt. A disk that is full, or gone, costs the log and not the run: see `complaint`."""

    def __init__(self, path: str, file: IO[bytes], write_error: str = "") -> None:
        self.path = path
        self.write_error = write_error
        self._file = file

    def write(self, said: Iterable[tuple[int | None, bytes]]) -> None:
        """Lines, each with the rank that said it (None: the launcher); they are on the disk then."""
        if self.write_error:
            return
        try:
            self._file.writelines(
                b"%b%b\n" % (LAUNCHER if rank is None else b"%d: " % rank, line) for rank, line in said
            )
            self._file.flush()
        except OSError as e:
            self.write_error = f"'{self.path}' cannot be written, and ends here: {e.strerror}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
