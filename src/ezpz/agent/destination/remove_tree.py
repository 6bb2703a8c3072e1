"""Removal of directory trees by descriptors, to any depth, and never across a mount."""

import errno
import os
import stat
from contextlib import suppress
from typing import List, Optional, Union

from ..common import mounts
from ..common.text import printable_path

TO_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TO_PASS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC  # needs no right to read it

Name = Union[bytes, str]


def remove_tree(root: bytes) -> None:
    """Remove a tree, its read-only directories included; a link is removed, never followed. Raise OSError.

    Nothing is removed if a filesystem is mounted at or below `root`, and no later mount is crossed. The tree may have
    any depth: a few descriptors are open at a time, and no path is longer than one name.
    """
    directory, name = os.path.split(root)
    try:
        above = os.open(directory or b".", TO_PASS)
    except FileNotFoundError:
        return
    try:
        if _unlink(name, above):
            return
        mounted = mounts.within(root)
        if mounted:
            raise _mounted_at(mounted[0].point)
        try:
            top = open_directory(name, above)
        except FileNotFoundError:
            return
        _empty(root, top)
        _remove_empty(name, above)
    finally:
        os.close(above)


def _mounted_at(path: bytes) -> OSError:
    return OSError(errno.EBUSY, "another filesystem is mounted at '{}'".format(printable_path(path)), os.fsdecode(path))


def _unlink(name: Name, above: int) -> bool:
    """Remove a file or link. Return False for a directory, which stays. Raise OSError."""
    try:
        os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):  # POSIX has EPERM for a directory
        if stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            return False
        raise
    return True


def open_directory(name: Name, above: Optional[int] = None) -> int:
    """Open a directory, not a link, and give its owner full access to it first. Raise OSError."""
    try:
        fd = os.open(name, TO_LIST, dir_fd=above)
    except PermissionError:
        closed = os.open(name, TO_PASS | os.O_NOFOLLOW, dir_fd=above)
        try:
            itself = "/proc/self/fd/{}".format(closed)
            if os.fstat(closed).st_uid == os.geteuid():
                os.chmod(itself, stat.S_IMODE(os.fstat(closed).st_mode) | 0o700)
            return os.open(itself, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(closed)
    try:
        status = os.fstat(fd)
        if status.st_mode & 0o700 != 0o700 and status.st_uid == os.geteuid():
            os.fchmod(fd, stat.S_IMODE(status.st_mode) | 0o700)
    except OSError:
        os.close(fd)
        raise
    return fd


def _remove_empty(name: Name, above: int) -> None:
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=above)


class _Level:
    """A directory that is being emptied, with the names of the directories that are still in it."""

    def __init__(self, name: str, fd: int) -> None:
        """Remove the files and links in it. Raise OSError."""
        self.name = name
        self.status = os.fstat(fd)
        self.mount = mounts.mount_id(fd)
        self.directories = [each for each in os.listdir(fd) if not _unlink(each, fd)]

    def is_on_mount_of(self, fd: int) -> bool:
        return os.fstat(fd).st_dev == self.status.st_dev and mounts.mount_id(fd) == self.mount


def _empty(root: bytes, here: int) -> None:
    """Remove what is in a directory, given its path for messages and a descriptor, which is closed. Raise OSError."""
    above: "List[_Level]" = []
    try:
        level = _Level("", here)
        while level.directories or above:
            if level.directories:
                name = level.directories.pop()
                try:
                    below = open_directory(name, here)
                except FileNotFoundError:
                    continue
                os.close(here)
                here = below
                if not level.is_on_mount_of(here):
                    names = [each.name for each in above[1:]] + [level.name] * bool(above) + [name]
                    raise _mounted_at(os.path.join(root, *map(os.fsencode, names)))
                above.append(level)
                level = _Level(name, here)
                continue
            up = os.open("..", TO_PASS, dir_fd=here)
            os.close(here)
            here = up
            name, level = level.name, above.pop()
            if not os.path.samestat(os.fstat(here), level.status):
                raise OSError(errno.ESTALE, "a directory in it was moved meanwhile", os.fsdecode(root))
            _remove_empty(name, here)
    finally:
        os.close(here)
