"""Check what this user may read, and who else may read it."""

from __future__ import annotations

import os
import stat
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ezpz.yeet.model.entry import Entry


def is_readable_by_mode(status: os.stat_result) -> bool:
    """Return whether the mode alone shows that this user may read a file or list a directory.

    False means that it has to be tried.
    """
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return True
    wanted = 0o555 if stat.S_ISDIR(mode) else 0o444
    return mode & wanted == wanted or (mode & wanted & 0o700 == wanted & 0o700 and status.st_uid == os.geteuid())


def is_readable(path: bytes, status: os.stat_result) -> bool:
    """Return whether this user may read a file or list a directory, by trying."""
    return os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(status.st_mode) else 0)) or _can_open(path, status)


def _can_open(path: bytes, status: os.stat_result) -> bool:
    """Return whether a file or directory can be opened: access(2) does not consider capabilities."""
    try:
        if stat.S_ISDIR(status.st_mode):
            os.stat(os.path.join(path, b"."))
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def reader_classes(mode: int) -> int:
    """Return the classes, a part of `EVERYBODY`, that a mode lets read a file, or list and enter a directory."""
    wanted = 0o5 if stat.S_ISDIR(mode) else 0o4
    return sum(0o7 << shift for shift in (3, 0) if mode >> shift & wanted == wanted)


@cache
def readers(path: bytes) -> int:
    """Return the classes that may read a path, by its mode and the modes of all directories above it.

    Links are resolved. All groups count as the same class. Raises OSError.
    """
    path = os.path.realpath(path)
    own = reader_classes(os.stat(path).st_mode)
    return own if path == b"/" else own & readers(os.path.dirname(path))


def readers_of_all(root: bytes, entries: Iterable[Entry]) -> int:
    """Return the classes that may read all of a tree, and everything that is added to it. Raises OSError."""
    found = readers(root)
    for entry in entries:
        if not found:
            break
        if not entry.is_symlink:
            found &= reader_classes(entry.mode)
        if entry.origin:
            found &= readers(os.path.dirname(entry.origin))
    return found


def find_exposed(top: int, entries: Iterable[Entry], directories: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the paths that fewer users may read in the source than below a top of mode `top`. Raises OSError.

    Args:
        top: Mode of the top of the copy.
        entries: Entries of a tree, parents first. Only the top of what a link was followed to is reported.
        directories: Other directories that are included.
    """
    targets: set[bytes] = set()
    for entry in entries:
        if not entry.origin:
            continue
        is_first = os.path.dirname(entry.path) not in targets
        if entry.is_directory:
            targets.add(entry.path)
        if is_first and reader_classes(top) & ~readers(os.path.dirname(entry.origin)):
            yield entry.path
    for directory in directories:
        if reader_classes(top) & ~readers(directory):
            yield directory
