"""Access: what this user may read."""

from __future__ import annotations

import os
import stat


def readable_by_mode(status: os.stat_result) -> bool:
    """Whether the mode alone tells that this user may read a file or list a folder; it need not."""
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return True
    wanted = 0o555 if stat.S_ISDIR(mode) else 0o444
    return mode & wanted == wanted or (mode & wanted & 0o700 == wanted & 0o700 and status.st_uid == os.geteuid())


def readable(path: bytes, status: os.stat_result) -> bool:
    """Whether this user may read a file or list a folder, as far as trying tells."""
    return os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(status.st_mode) else 0)) or _opens(path, status)


def _opens(path: bytes, status: os.stat_result) -> bool:
    """The same by trying, since access(2) knows nothing of capabilities."""
    try:
        if stat.S_ISDIR(status.st_mode):
            os.stat(os.path.join(path, b"."))
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError:
        return False
    return True
