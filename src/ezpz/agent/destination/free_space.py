"""Whether a version fits on the filesystem of a destination, and can run there."""

import os
from typing import Any, Dict, Optional

from ..common.errors import AgentError
from ..common.filesystem import filesystem
from ..common.text import format_bytes, printable_path

ST_NOEXEC = 8  # statvfs(3)
INODES_SPARE = 16
MEMORY_FILESYSTEMS = ("tmpfs", "ramfs")


def check_free_space(parent: bytes, *, size: int, files: int, executable: bool) -> Dict[str, Any]:
    """Return what the filesystem of `parent` offers. Raise AgentError if a version does not fit, or cannot run."""
    room = os.statvfs(parent)
    free = room.f_bavail * room.f_frsize
    kind = filesystem(parent)
    where = "'{}' ({})".format(printable_path(parent), kind or "filesystem unknown")
    if executable and room.f_flag & ST_NOEXEC:
        raise AgentError(
            "noexec",
            "{} is mounted noexec: an environment cannot run there".format(where),
            "choose another place with --dst",
        )
    if size > free:
        raise AgentError(
            "no-space",
            "{} has {} free, {} needed".format(where, format_bytes(free), format_bytes(size)),
            "free some space there, or choose another place with --dst",
        )
    if room.f_files and files + INODES_SPARE > room.f_favail:
        raise AgentError(
            "no-space",
            "{} has {} inodes free, {} needed".format(where, room.f_favail, files + INODES_SPARE),
            "remove some files there, or choose another place with --dst",
        )
    memory = _memory_available() if kind in MEMORY_FILESYSTEMS else None
    if memory is not None and size > memory:
        raise AgentError(
            "no-space",
            "{} lives in memory, of which {} is available, {} needed".format(
                where, format_bytes(memory), format_bytes(size)
            ),
            "choose a place on disk with --dst",
        )
    return {"free_bytes": free, "free_files": room.f_favail if room.f_files else None, "filesystem": kind}


def _memory_available() -> Optional[int]:
    try:
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None
