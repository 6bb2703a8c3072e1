"""Part file: a file that is written beside its place and appears there whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def part_file(path: str) -> Iterator[BinaryIO]:
    """Within it, a file to write to; at the end it is synced and put at `path`. Raises OSError."""
    folder = os.path.dirname(path)
    fd, part = tempfile.mkstemp(prefix=".ezpz-", suffix=".part", dir=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
            os.fchmod(fd, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Let a rename last. Some filesystems cannot, and have no need to."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
