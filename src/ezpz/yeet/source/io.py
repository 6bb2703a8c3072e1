"""Open, read, and write files, checking that a source file is the one that was scanned."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from ezpz.errors import SourceChanged
from ezpz.yeet.source.changes import check_same_file
from ezpz.yeet.source.errors import source_changed, source_unreadable

if TYPE_CHECKING:
    from ezpz.yeet.model.entry import Entry


def open_source(root: bytes, path: bytes = b"", identity: int = 0) -> tuple[int, os.stat_result]:
    """Open a regular file of the source and return its descriptor and status.

    Args:
        root: Path of the source, or of the file.
        path: Path of the file below the root. Empty if the root is the file.
        identity: Identity at the time of the scan. 0 for a file that was not scanned.

    Raises:
        SourceUnreadable: The file cannot be opened.
        SourceChanged: The file is missing, is not a regular file, or is not the one that was scanned.
    """
    full = os.path.join(root, path) if path else root
    try:
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise source_changed(path or root) from e
        raise source_unreadable(full, e) from e
    status = os.fstat(fd)
    try:
        if not stat.S_ISREG(status.st_mode):
            raise source_changed(path or root)
        check_same_file(path or root, status, identity)
    except SourceChanged:
        os.close(fd)
        raise
    return fd, status


def open_counted(root: bytes, entry: Entry) -> tuple[int, os.stat_result]:
    """Open a file of a scan, inside or outside of the root. Raises as `open_source` does."""
    if entry.origin:
        return open_source(entry.origin, identity=entry.identity)
    return open_source(root, entry.path, entry.identity)


def read_whole(fd: int, size: int, path: bytes) -> bytes:
    """Read a file of `size` bytes, and one byte more if it has grown. Raises SourceUnreadable, which names `path`."""
    try:
        data = os.read(fd, size + 1)
        while len(data) < size and (more := os.read(fd, size + 1 - len(data))):
            data += more
    except OSError as e:
        raise source_unreadable(path, e) from e
    return data


def write_all(fd: int, data: bytes) -> None:
    """Write data at the current position. Raises OSError."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
