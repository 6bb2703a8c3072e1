"""Access: what this user may read."""

from __future__ import annotations

import os
import stat


def readable(path: bytes, status: os.stat_result) -> bool:
    """Whether this user may read a file or list a folder; costs a system call only where the mode does not tell."""
    if stat.S_ISLNK(status.st_mode):
        return True
    wanted = 0o5 if stat.S_ISDIR(status.st_mode) else 0o4
    everybody, owner = status.st_mode & wanted == wanted, (status.st_mode >> 6) & wanted == wanted
    if everybody and owner and (status.st_mode >> 3) & wanted == wanted:
        return True
    if status.st_uid == os.geteuid() and owner:
        return True
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
