"""Access: what this user may read, and who else may."""

from __future__ import annotations

import os
import stat
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ezpz.yeet.model.entry import Entry


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


def classes(mode: int) -> int:
    """Return the classes, a part of EVERYBODY, that a mode lets read a file, or list and enter a directory."""
    wanted = 0o5 if stat.S_ISDIR(mode) else 0o4
    return sum(0o7 << shift for shift in (3, 0) if mode >> shift & wanted == wanted)


@cache
def readers(path: bytes) -> int:
    """Return the classes that may read what is at `path`, by its mode and those of all directories above it.

    Links are resolved. A group counts as one, whichever it is. Raises OSError.
    """
    path = os.path.realpath(path)
    own = classes(os.stat(path).st_mode)
    return own if path == b"/" else own & readers(os.path.dirname(path))


def readers_of_all(root: bytes, entries: Iterable[Entry]) -> int:
    """Return the classes that may read all of a tree, and all that comes into it from elsewhere. Raises OSError."""
    found = readers(root)
    for entry in entries:
        if not found:
            break
        if not entry.is_symlink:
            found &= classes(entry.mode)
        if entry.origin:
            found &= readers(os.path.dirname(entry.origin))
    return found


def exposed(top: int, entries: Iterable[Entry], folders: Iterable[bytes]) -> Iterator[bytes]:
    """Return what fewer may read where it stands than below a top of mode `top`. Raises OSError.

    entries: of a tree, parents first; of what a link led to, only the first is told
    folders: what comes along besides
    """
    led_to: set[bytes] = set()
    for entry in entries:
        if not entry.origin:
            continue
        is_first = os.path.dirname(entry.path) not in led_to
        if entry.is_directory:
            led_to.add(entry.path)
        if is_first and classes(top) & ~readers(os.path.dirname(entry.origin)):
            yield entry.path
    for folder in folders:
        if classes(top) & ~readers(folder):
            yield folder
