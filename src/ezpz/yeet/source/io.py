"""Open and read source files, and translate what can go wrong with them."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from ezpz.agent.common.text import printable_path
from ezpz.errors import (
    CopyFailed,
    DestinationRefused,
    DestinationUnwritable,
    EzpzError,
    NoSpace,
    SourceChanged,
    SourceUnreadable,
)
from ezpz.runtime.text import shorten
from ezpz.yeet.source.identity import identity_of

if TYPE_CHECKING:
    from ezpz.runtime.process import Completed
    from ezpz.yeet.model.entry import Entry


def check_exit(done: Completed, tool: str) -> None:
    """Raise the EzpzError that explains why a copying tool ended badly."""
    if done.returncode == 0:
        return
    said = done.err or f"exit status {done.returncode}"
    full = [line for line in said.splitlines() if "No space left on device" in line or "Disk quota exceeded" in line]
    if full:
        raise NoSpace(
            f"{tool}: the local disk is full: {full[-1]}",
            hint="free some space, or choose another place with --dst",
        )
    if "Read-only file system" in said:
        raise DestinationUnwritable(f"{tool}: {said.splitlines()[-1]}", hint="choose another place with --dst")
    if "Permission denied" in said:
        raise SourceUnreadable(f"{tool}: {said.splitlines()[0]}", hint="are you allowed to read all of the source?")
    raise CopyFailed(f"{tool} failed: {said}")


def open_source(root: bytes, path: bytes = b"", identity: int = 0) -> tuple[int, os.stat_result]:
    """The regular file at `path` below `root`, or `root`: a descriptor, and what it is.

    identity: what it had when it was counted, 0 for what was not. Raises SourceUnreadable, SourceChanged.
    """
    whole = os.path.join(root, path) if path else root
    try:
        fd = os.open(whole, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise changed(path or root) from e
        raise unreadable(whole, e) from e
    status = os.fstat(fd)
    try:
        if not stat.S_ISREG(status.st_mode):
            raise changed(path or root)
        refuse_other(path or root, status, identity)
    except SourceChanged:
        os.close(fd)
        raise
    return fd, status


def refuse_other(path: bytes, status: os.stat_result | None, identity: int) -> None:
    """Raise SourceChanged for a file that is not the one that was counted.

    status: what it is now, before or after it was read, None when it is gone; identity: see `counted`, 0 for a file
    that was not counted
    """
    if status is None or (identity and identity_of(status) != identity):
        raise changed(path)


def unreadable(path: bytes, error: OSError) -> SourceUnreadable:
    """What a file of the source that cannot be opened or read means."""
    denied = error.errno in (errno.EACCES, errno.EPERM)
    hint = "are you allowed to read it?" if denied else "is its filesystem well? look at it with `stat`, then try again"
    return SourceUnreadable(f"cannot read '{printable_path(path)}': {error.strerror}", hint=hint)


def changed(path: bytes) -> SourceChanged:
    """What a file of the source that is not what the scan saw means."""
    return SourceChanged(
        f"'{printable_path(path)}' changed during the run",
        hint="is something still being installed there? run it again when that is done",
    )


def local_failure(error: OSError) -> EzpzError:
    """What an operating system error while staging means to a user."""
    named = isinstance(error.filename, (str, bytes)) and error.filename
    where = f"'{printable_path(os.fsencode(error.filename))}'" if named else "the local disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"the local disk is full: {where}: {error.strerror}",
            hint="free some space, or choose another place with --dst",
        )
    if error.errno == errno.ENAMETOOLONG:
        return DestinationRefused(f"a path is too long: {shorten(where)}", hint="choose a shorter --dst")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DestinationUnwritable(f"cannot write {where}: {error.strerror}", hint="choose another place with --dst")
    return CopyFailed(f"cannot copy {where}: {error.strerror}")


def open_counted(root: bytes, entry: Entry) -> tuple[int, os.stat_result]:
    """Open a file of a scan, wherever it stands; see `open_source`."""
    if entry.origin:
        return open_source(entry.origin, identity=entry.identity)
    return open_source(root, entry.path, entry.identity)


def read_whole(fd: int, size: int, place: bytes) -> bytes:
    """The whole of a file of `size` bytes, and one byte more if it has grown.

    place: its path. Raises SourceUnreadable.
    """
    try:
        data = os.read(fd, size + 1)
        while len(data) < size and (more := os.read(fd, size + 1 - len(data))):
            data += more
    except OSError as e:
        raise unreadable(place, e) from e
    return data


def write_all(fd: int, data: bytes) -> None:
    """Write all of it."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
