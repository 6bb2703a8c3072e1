"""The run that holds a lock, seen from outside."""

import json
import os
from typing import Any, Optional

from ..common.messages.queries import LockHolder
from ..common.receipt import read_own_file

CONTENT_LIMIT = 4096  # bytes of a lock that are read
MAX_NAME = 80  # characters of a name in it


def lock_holder(path: bytes) -> Optional[LockHolder]:
    """Return the run that holds a lock, as its file says; None if no process holds it.

    The lock is not touched: to take it, even for a moment, would turn away a run that starts right then.
    """
    found = read_own_file(path, CONTENT_LIMIT)
    if found is None:
        return None
    content, status = found
    try:
        said = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        said = {}
    said = said if isinstance(said, dict) else {}
    pid, since = (said[name] if _is_count(said.get(name)) else 0 for name in ("pid", "since"))
    if not _is_locked(status, pid):
        return None
    run, user, host = (str(said.get(name, ""))[:MAX_NAME] for name in ("run", "user", "host"))
    return LockHolder(run=run, user=user, host=host, pid=pid, since=since)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_locked(status: os.stat_result, pid: int) -> bool:
    """Return whether a process has locked a file with flock(2), as /proc/locks says.

    On filesystems whose device numbers are not those of their files (btrfs, overlayfs) the process decides.
    """
    try:
        with open("/proc/locks", "rb") as file:
            lines = [line.split() for line in file]
    except OSError:
        return pid > 1 and os.path.isdir("/proc/{}".format(pid))
    for line in lines:
        if b"FLOCK" not in line or line[1] == b"->":
            continue
        holder, where = line[-4], line[-3].split(b":")
        if int(where[2]) != status.st_ino:
            continue
        device = (int(where[0], 16), int(where[1], 16))
        if device == (os.major(status.st_dev), os.minor(status.st_dev)) or int(holder) == pid:
            return True
    return False
