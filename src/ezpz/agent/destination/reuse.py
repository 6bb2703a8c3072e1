"""Files of the new version from files of the version in place with the same content, without sending them."""

import errno
import fcntl
import os
import stat
from typing import List, NamedTuple, Sequence, Set

from ..common import manifest
from ..common.cancel import NEVER, CancelToken
from ..common.manifest import ManifestEntry
from ..common.wire_paths import decode_path

FICLONE = 0x40049409  # ioctl_ficlone(2)
PIECE_SIZE = 8 << 20  # bytes for one call of sendfile(2)
NO_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
EXISTING = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

Clone = NamedTuple(
    "Clone",
    [
        ("path", bytes), ("mode", int), ("mtime_ns", int), ("size", int), ("digest", str), ("old", bytes),
        ("old_mtime_ns", int),
    ],
)  # fmt: skip
"""old: the path in the version in place; old_mtime_ns: its time, by which a change is seen."""


class MissingSource(Exception):
    """A file that the version in place does not have, or not any more."""


class FileReuser:
    """Takes files of one tree into another.

    A file becomes a hard link to the old one if nothing about it changes. That is done once for each old file, since
    two files must not become one. Otherwise it is a copy, which shares the blocks if the filesystem can.
    """

    def __init__(self, old: int, new: int, cancel: CancelToken = NEVER) -> None:
        """Take descriptors of the two directories, and a token that is checked for each piece that is copied."""
        self.old = old
        self.new = new
        self.cancel = cancel
        self._linked: "Set[int]" = set()

    def take(self, what: Clone) -> None:
        """Create one file, where nothing must be. Raise MissingSource or OSError."""
        try:
            status = os.stat(what.old, dir_fd=self.old, follow_symlinks=False)
        except OSError as e:
            raise MissingSource("'{}': {}".format(os.fsdecode(what.old), e.strerror))
        _check(what, status)
        if not self._link(what, status):
            self._copy(what)

    def _link(self, what: Clone, status: os.stat_result) -> bool:
        same = stat.S_IMODE(status.st_mode) == what.mode and manifest.same_time(status.st_mtime_ns, what.mtime_ns)
        if not same or status.st_ino in self._linked:
            return False
        try:
            os.link(what.old, what.path, src_dir_fd=self.old, dst_dir_fd=self.new, follow_symlinks=False)
        except OSError as e:
            if e.errno not in NO_LINK:
                raise
            return False
        self._linked.add(status.st_ino)
        return True

    def _copy(self, what: Clone) -> None:
        source = os.open(what.old, EXISTING, dir_fd=self.old)
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
            copy_content(source, fd, what.size, self.cancel)
        if manifest.digest_file(fd, what.size, self.cancel) != what.digest:
            os.unlink(what.path, dir_fd=self.new)
            raise MissingSource("'{}' has been changed".format(os.fsdecode(what.old)))
        os.fchmod(fd, what.mode)
        os.utime(fd, ns=(what.mtime_ns, what.mtime_ns))


def _check(what: Clone, status: os.stat_result) -> None:
    """Raise MissingSource if a file is not what it was."""
    unchanged = stat.S_ISREG(status.st_mode) and status.st_size == what.size
    if not unchanged or not manifest.same_time(status.st_mtime_ns, what.old_mtime_ns):
        raise MissingSource("'{}' has been changed".format(os.fsdecode(what.old)))


def copy_content(source: int, sink: int, size: int, cancel: CancelToken = NEVER) -> None:
    """Copy a file with its holes into an empty one. Raise OSError."""
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
            cancel.raise_if_cancelled()
            sent = os.sendfile(sink, source, start, min(PIECE_SIZE, end - start))
            if not sent:
                break
            start += sent
    os.ftruncate(sink, size)


def adopt(have: List[ManifestEntry], changed: Sequence[str], wanted: List[ManifestEntry], reuser: FileReuser) -> int:
    """Create the files of a manifest that another one has, and their directories; return how many.

    Args:
        have: entries of the version in place
        changed: its paths that are not what they were
        wanted: entries of the new version
        reuser: creates the files

    Raises:
        OSError: the disk fails.
        ProtocolError: a path of a manifest points out of the tree.
    """
    gone = set(changed)
    known = {entry.digest: entry for entry in have if entry.kind == "f" and entry.path not in gone}
    count = 0
    for entry in wanted:
        held = known.get(entry.digest) if entry.kind == "f" else None
        if held is None or held.size != entry.size:
            continue
        path, old = decode_path(entry.path), decode_path(held.path)
        _make_directories(os.path.dirname(path), reuser.new)
        mode = stat.S_IMODE(entry.mode)
        try:
            reuser.take(Clone(path, mode, entry.mtime_ns, entry.size, entry.digest, old, held.mtime_ns))
        except MissingSource:
            continue
        count += 1
    return count


def _make_directories(path: bytes, root: int) -> None:
    missing = []
    while path and not _is_made(path, root):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        os.mkdir(each, 0o700, dir_fd=root)


def _is_made(path: bytes, root: int) -> bool:
    """Create a directory if its parent exists. Return whether it exists now."""
    try:
        os.mkdir(path, 0o700, dir_fd=root)
    except FileExistsError:
        pass
    except FileNotFoundError:
        return False
    return True
