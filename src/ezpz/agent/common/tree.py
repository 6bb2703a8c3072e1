"""Directory trees: walk, count, digest, remove."""

import errno
import hashlib
import operator
import os
import stat
from contextlib import suppress
from typing import Iterator, List, NamedTuple, Optional, Tuple, Union

from . import mounts
from .cancel import NEVER, CancelToken
from .layout import CARRIED, OWN_FILES
from .text import printable_path

MISSING = (errno.ENOENT, errno.ENAMETOOLONG)  # no copy has a path that is too long
TO_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TO_PASS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC  # needs no right to read it

Name = Union[bytes, str]

Survey = NamedTuple("Survey", [("files", int), ("bytes", int), ("entries", int), ("version", str)])
"""files: everything that is not a directory; bytes: sum of regular files' sizes; version: see `summarize`."""


def walk(root: bytes) -> Iterator[Tuple[bytes, os.stat_result]]:
    """Yield every directory, file, and link below `root` as (relative path, lstat), parents first, names sorted.

    Files of ezpz, and what is never copied (FIFOs, sockets, devices), are left out. So is what is removed meanwhile,
    or has a path that is too long to be opened.
    """
    pending = [b""]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(os.path.join(root, directory)) as found:
                entries = sorted(found, key=operator.attrgetter("name"))
        except OSError as e:
            if e.errno in MISSING:
                continue
            raise
        before = directory + b"/" if directory else b""
        for entry in entries:
            name = entry.name
            if directory or name not in OWN_FILES:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as e:
                    if e.errno in MISSING:
                        continue
                    raise
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFDIR:
                    pending.append(before + name)
                if kind in CARRIED:
                    yield before + name, status


def summarize(root: bytes, cancel: CancelToken = NEVER) -> Survey:
    """Count a tree and digest its entries; `cancel` is checked for each entry.

    The version is the sum of the entries' fingerprints modulo 2**256, in hex: it does not depend on their order.
    """
    total = files = size = entries = 0
    for path, status in walk(root):
        cancel.raise_if_cancelled()
        mode = status.st_mode
        target = os.readlink(os.path.join(root, path)) if stat.S_ISLNK(mode) else b""
        size += status.st_size if stat.S_ISREG(mode) else 0
        entries += 1
        files += not stat.S_ISDIR(mode)
        total += fingerprint(path, mode, status.st_size, status.st_mtime_ns, target)
    return Survey(files, size, entries, version_of(total))


def fingerprint(path: bytes, mode: int, size: int, mtime_ns: int, target: bytes) -> int:
    """Return the SHA-256 of an entry: path, type, permissions, size, modification time, link target.

    Times count in seconds, because some filesystems and tools keep no more. Times of directories and links, and
    permissions of links, do not count.
    """
    if stat.S_ISREG(mode):
        facts = b"%o %d %d" % (mode & 0o7777, size, mtime_ns // 10**9)
    else:
        facts = target if stat.S_ISLNK(mode) else b"%o" % (mode & 0o7777)
    digest = hashlib.sha256(b"%d %d %o %b%b" % (len(path), len(facts), stat.S_IFMT(mode), path, facts)).digest()
    return int.from_bytes(digest, "big")


def version_of(total: int) -> str:
    """Return the version of a tree, from the sum of its fingerprints."""
    return "%064x" % (total % (1 << 256))


def count_missing(old: bytes, new: bytes) -> int:
    """Return how many files of `old` have no counterpart in `new`, by names alone."""
    count = 0
    pending = [b""]
    while pending:
        directory = pending.pop()
        try:
            names = set(os.listdir(os.path.join(new, directory)))
        except OSError:
            names = set()
        names.update(() if directory else OWN_FILES)
        try:
            found = os.scandir(os.path.join(old, directory))
        except OSError as e:
            if e.errno in MISSING:
                continue
            raise
        with found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(os.path.join(directory, entry.name))
                elif entry.name not in names and (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
                    count += 1
    return count


def remove(root: bytes) -> None:
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
