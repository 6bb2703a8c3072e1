"""The directory of `--log-dir`: a log for each attempt, with the rank before each line, and a summary."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import IO, TYPE_CHECKING

from ezpz.agent.common.receipt import open_own
from ezpz.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

SUMMARY = "summary.txt"
_NAME = re.compile(r"attempt-(\d+)\.log")
LAUNCHER = b"launcher: "
_NOT_OURS = "it is not a file of yours alone"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LogDirectory:
    """The directory. Numbering continues after the logs of earlier runs. No file is overwritten, no link is followed.

    Only this user can read the directory and its files, because output can contain secrets. When the run has started, a
    disk that fails or is full does not end it. The first problem is then in `write_error`.
    """

    def __init__(self, directory: str) -> None:
        """Create the directory if it does not exist.

        Raises:
            UsageError: Nothing can be written there.
        """
        self.directory = directory
        self.write_error = ""
        self._summary = os.path.join(directory, SUMMARY)
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            numbers = [int(match[1]) for match in map(_NAME.fullmatch, os.listdir(directory)) if match]
            os.close(_open_summary(self._summary))
        except OSError as e:
            where, why = os.fsdecode(e.filename or directory), _why(e)
            raise UsageError(f"--log-dir: '{where}' cannot be written: {why}", hint="choose another directory") from e
        self._last = max(numbers, default=0)

    def open_log(self) -> AttemptLog:
        """Return the log of the next attempt."""
        while True:
            self._last += 1
            path = os.path.join(self.directory, f"attempt-{self._last}.log")
            try:
                return AttemptLog(path, os.fdopen(os.open(path, _NEW_FILE, 0o600), "wb"))
            except FileExistsError:
                continue  # of another run at the same time
            except OSError as e:
                return AttemptLog(path, open(os.devnull, "wb"), f"'{path}' cannot be written: {e.strerror}")

    def append_summary(self, lines: Iterable[str]) -> None:
        """Append lines to the summary in one write, because another run can append, too."""
        try:
            with os.fdopen(_open_summary(self._summary), "ab", buffering=0) as file:
                file.write("".join(f"{line}\n" for line in lines).encode(errors="replace"))
        except OSError as e:
            self.write_error = f"'{self._summary}' cannot be written: {_why(e)}"


def _why(error: OSError) -> str:
    return "it is a link" if error.errno == errno.ELOOP else str(error.strerror)


def _open_summary(path: str) -> int:
    """Open the summary for appending, or create it.

    Raises:
        OSError: It is not a file of this user, or it has another name as well. Another user can create such a name.
    """
    try:
        fd = open_own(os.fsencode(path), flags=os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except PermissionError as e:
        if e.errno == errno.EPERM:
            raise PermissionError(errno.EPERM, _NOT_OURS, path) from e
        raise
    if os.fstat(fd).st_nlink == 1:
        return fd
    os.close(fd)
    raise PermissionError(errno.EPERM, _NOT_OURS, path)


class AttemptLog:
    """The log of one attempt. A disk that fails or is full ends the log, not the run: see `write_error`."""

    def __init__(self, path: str, file: IO[bytes], write_error: str = "") -> None:
        self.path = path
        self.write_error = write_error
        self._file = file

    def write(self, lines: Iterable[tuple[int | None, bytes]]) -> None:
        """Write lines, each with its rank (None: the launcher), and flush them."""
        if self.write_error:
            return
        try:
            self._file.writelines(
                b"%b%b\n" % (LAUNCHER if rank is None else b"%d: " % rank, line) for rank, line in lines
            )
            self._file.flush()
        except OSError as e:
            self.write_error = f"'{self.path}' cannot be written, and ends here: {e.strerror}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
