"""Atomic renames, and write access to a directory whose owner may not write to it."""

import errno
import os
import stat
from contextlib import contextmanager
from typing import Iterator, Optional

from .remove_tree import open_directory

AT_FDCWD = -100
RENAME_NOREPLACE = 1  # renameat2(2)
RENAME_EXCHANGE = 2
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


@contextmanager
def writable(directory: bytes) -> Iterator[None]:
    """Let the owner write to a directory; afterwards restore the mode of what is there."""
    before = os.lstat(directory)
    if before.st_mode & 0o700 == 0o700 or not stat.S_ISDIR(before.st_mode):
        yield
        return
    fd = open_directory(directory)
    try:
        yield
    finally:
        try:
            if is_same(os.fstat(fd), directory):
                os.fchmod(fd, stat.S_IMODE(before.st_mode))
        finally:
            os.close(fd)


def is_same(before: Optional[os.stat_result], path: bytes) -> bool:
    """Return whether a path is what it was before, given its lstat then, None for nothing."""
    if before is None:
        return not os.path.lexists(path)
    try:
        return os.path.samestat(before, os.lstat(path))
    except FileNotFoundError:
        return False


def move_in(new: bytes, dst: bytes) -> None:
    """Rename `new` to `dst`, where nothing must be. Raise OSError."""
    if not _renameat2(new, dst, RENAME_NOREPLACE):
        if os.path.lexists(dst):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(dst))
        os.rename(new, dst)


def swap(new: bytes, dst: bytes, *, aside: bytes) -> bytes:
    """Rename `new` to `dst` in one step, and return where the previous one is now: `new` or `aside`.

    Uses renameat2(2) with RENAME_EXCHANGE. Where the kernel or the filesystem has none, these are two renames, and the
    first is undone if the second fails. Raises OSError.
    """
    if _renameat2(new, dst, RENAME_EXCHANGE):
        return new
    os.rename(dst, aside)
    try:
        os.rename(new, dst)
    except OSError:
        os.rename(aside, dst)
        raise
    return aside


def _renameat2(old: bytes, new: bytes, flags: int) -> bool:
    """Return True once it is done, False when this system cannot do it. Raise OSError."""
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    if function(AT_FDCWD, ctypes.c_char_p(old), AT_FDCWD, ctypes.c_char_p(new), ctypes.c_uint(flags)) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), os.fsdecode(new))
