"""Mount points of this host, bind mounts included, as /proc lists them."""

import os
import re
from typing import Iterator, List, NamedTuple, Optional

MOUNTINFO = "/proc/self/mountinfo"
ESCAPED = re.compile(rb"\\([0-7]{3})")  # how the kernel writes spaces, tabs, line breaks and backslashes

Mount = NamedTuple("Mount", [("point", bytes), ("device", str), ("kind", str)])
"""point: the absolute path, links resolved; device: "MAJOR:MINOR"; kind: the type of the filesystem."""


def table() -> Iterator[Mount]:
    """Yield every mount that this process sees, in the order of the kernel; none if /proc cannot be read."""
    try:
        with open(MOUNTINFO, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        if len(fields) > 4:
            kind = after.split(b" ")[0].decode("utf-8", "replace")
            yield Mount(_unescaped(fields[4]), fields[2].decode("utf-8", "replace"), kind)


def _unescaped(text: bytes) -> bytes:
    return ESCAPED.sub(lambda found: bytes([int(found.group(1), 8) & 0xFF]), text)


def within(path: bytes) -> List[Mount]:
    """Return what is mounted at or below a path, sorted; of several mounts at one place the topmost.

    The parent of `path` is resolved; `path` itself is not followed.
    """
    parent, name = os.path.split(path)
    real = os.path.join(os.path.realpath(parent or b"."), name)
    below = real.rstrip(b"/") + b"/"
    found = {mount.point: mount for mount in table() if mount.point == real or mount.point.startswith(below)}
    return [found[point] for point in sorted(found)]


def mount_id(fd: int) -> Optional[int]:
    """Return the ID of the mount of an open file; None if the kernel (before 3.15) does not provide it."""
    try:
        with open("/proc/self/fdinfo/{}".format(fd), "rb") as file:
            for line in file:
                name, _, value = line.partition(b":")
                if name == b"mnt_id":
                    return int(value)
    except (OSError, ValueError):
        pass
    return None
