"""Clone: a file of the new version from one of the version in place that has the same content, without moving it."""

import errno
import fcntl
import os
import stat
from typing import Any, Callable, List, NamedTuple, Set

from ezpz.agent.common import manifest
from ezpz.agent.common.manifest import Record
from ezpz.agent.common.wire_paths import ProtocolError, decode_path

FICLONE = 0x40049409  # ioctl_ficlone(2)
PIECE = 8 << 20  # bytes asked of sendfile(2) at once
NO_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
STANDING = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

Clone = NamedTuple(
    "Clone",
    [
        ("path", bytes), ("mode", int), ("mtime_ns", int), ("size", int), ("digest", str), ("old", bytes),
        ("old_mtime_ns", int),
    ],
)  # fmt: skip
"""old: the path in the version in place, whose time tells that it is as it was"""


class MissingSource(Exception):
    """The version in place has not what it was thought to have."""


def clone_of(record: List[Any]) -> Clone:
    """A record of kind "k" of a chunk. Raises Malformed."""
    _, path, mode, mtime_ns, size, digest, old, old_mtime_ns = record
    if not isinstance(mode, int) or not isinstance(size, int) or size < 0:
        raise ProtocolError("no clone: {!r}".format(record)[:200])
    return Clone(decode_path(path), stat.S_IMODE(mode), mtime_ns, size, digest, decode_path(old), old_mtime_ns)


class FileReuser:
    """Takes files of the tree `old` into the tree `new`, both descriptors of folders.

    A file becomes a further name of the old one if nothing about it changes, for which there is one chance, since two
    files are two; else a copy, which shares the blocks if the filesystem can.

    going_on: is called for each piece of a file that is copied
    """

    def __init__(self, old: int, new: int, going_on: Callable[[], None] = lambda: None) -> None:
        self.old = old
        self.new = new
        self.going_on = going_on
        self._lent: "Set[int]" = set()

    def take(self, what: Clone) -> None:
        """Make one file, where nothing stands. Raises Lacking, OSError."""
        try:
            status = os.stat(what.old, dir_fd=self.old, follow_symlinks=False)
        except OSError as e:
            raise MissingSource("'{}': {}".format(os.fsdecode(what.old), e.strerror))
        _check(what, status)
        if not self._link(what, status):
            self._copy(what)

    def _link(self, what: Clone, status: os.stat_result) -> bool:
        same = stat.S_IMODE(status.st_mode) == what.mode and manifest.same_time(status.st_mtime_ns, what.mtime_ns)
        if not same or status.st_ino in self._lent:
            return False
        try:
            os.link(what.old, what.path, src_dir_fd=self.old, dst_dir_fd=self.new, follow_symlinks=False)
        except OSError as e:
            if e.errno not in NO_LINK:
                raise
            return False
        self._lent.add(status.st_ino)
        return True

    def _copy(self, what: Clone) -> None:
        source = os.open(what.old, STANDING, dir_fd=self.old)
        try:
            _check(what, os.fstat(source))
            fd = os.open(what.path, NEW, 0o600, dir_fd=self.new)
            try:
                self._copy_to(fd, source, what)
            finally:
                os.close(fd)
        finally:
            os.close(source)

    def _copy_to(self, fd: int, source: int, what: Clone) -> None:
        try:
            fcntl.ioctl(fd, FICLONE, source)
        except OSError:
            copy_content(source, fd, what.size, self.going_on)
        if manifest.digest_file(fd, what.size, self.going_on) != what.digest:
            os.unlink(what.path, dir_fd=self.new)
            raise MissingSource("'{}' has been changed".format(os.fsdecode(what.old)))
        os.fchmod(fd, what.mode)
        os.utime(fd, ns=(what.mtime_ns, what.mtime_ns))


def _check(what: Clone, status: os.stat_result) -> None:
    """Raise Lacking for what is not the file that was meant, as it was."""
    as_it_was = stat.S_ISREG(status.st_mode) and status.st_size == what.size
    if not as_it_was or not manifest.same_time(status.st_mtime_ns, what.old_mtime_ns):
        raise MissingSource("'{}' has been changed".format(os.fsdecode(what.old)))


def copy_content(source: int, sink: int, size: int, going_on: Callable[[], None] = lambda: None) -> None:
    """Copy a file with its holes into an empty one. Raises OSError."""
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
        except OSError as e:
            if e.errno == errno.ENXIO:  # but a hole is left
                break
            start, end = end, size
        os.lseek(sink, start, os.SEEK_SET)
        while start < end:
            going_on()
            sent = os.sendfile(sink, source, start, min(PIECE, end - start))
            if not sent:
                break
            start += sent
    os.ftruncate(sink, size)


def adopt(have: List[Record], changed: List[str], wanted: List[Record], cloner: FileReuser) -> int:
    """Make the files of a manifest that another one has, and the folders above them; how many. Raises OSError.

    have: of the version in place; changed: its paths that are not as it tells; wanted: of the new one
    Raises Malformed.
    """
    gone = set(changed)
    known = {record[5]: record for record in have if record[0] == "f" and record[1] not in gone}
    count = 0
    for _, path, mode, mtime_ns, size, digest in (record[:6] for record in wanted if record[0] == "f"):
        held = known.get(digest)
        if held is None or held[4] != size:
            continue
        _make_folders(os.path.dirname(decode_path(path)), cloner.new)
        try:
            cloner.take(clone_of(["k", path, mode, mtime_ns, size, digest, held[1], held[3]]))
        except MissingSource:
            continue
        count += 1
    return count


def _make_folders(path: bytes, root: int) -> None:
    missing = []
    while path and not _is_made(path, root):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        os.mkdir(each, 0o700, dir_fd=root)


def _is_made(path: bytes, root: int) -> bool:
    """Make a directory if the one above is there; whether it stands."""
    try:
        os.mkdir(path, 0o700, dir_fd=root)
    except FileExistsError:
        pass
    except FileNotFoundError:
        return False
    return True
