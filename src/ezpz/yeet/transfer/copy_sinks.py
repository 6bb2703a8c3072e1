"""Sinks for the entries of a source while it is read: the protocol, and the staging directory."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING, Protocol

from ezpz.yeet.source.io import write_all
from ezpz.yeet.transfer.previous_version import NO_PREVIOUS_VERSION

if TYPE_CHECKING:
    from ezpz.yeet.model.entry import Entry, Provenance
    from ezpz.yeet.transfer.previous_version import PreviousFile, PreviousVersion, UnchangedFile


class CopySink(Protocol):
    """A consumer of entries. Files and symbolic links come from any thread, directories and hard links from one.

    A directory comes before its content, and the first name of a file before its hard links.
    """

    def directory(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """Take a directory. The top is b""; of several calls for one path, the last one counts."""

    def symlink(self, entry: Entry) -> None:
        """Take a symbolic link."""

    def hard_link(self, path: bytes, first: bytes) -> None:
        """Take a hard link to the file or symbolic link that was taken as `first`."""

    def file(self, entry: Entry, data: bytes, made: Provenance | None = None) -> None:
        """Take a file and its content. `made` is None for a file that was not made from the source."""

    def open_file(self, entry: Entry, fd: int, made: Provenance | None = None) -> None:
        """Take a file whose content is behind a descriptor. It is the file at `path_of`, if that is a path."""

    def path_of(self, path: bytes) -> bytes | None:
        """Return the path at which this sink keeps an entry on this host, or None if it keeps nothing."""

    def can_reuse(self, entry: Entry, file: PreviousFile, unchanged: UnchangedFile | None) -> bool:
        """Return whether `reuse` would succeed. After True, call it, or call no sink for this entry again."""

    def reuse(self, entry: Entry, file: PreviousFile, unchanged: UnchangedFile | None) -> None:
        """Take a file as the previous version has it."""

    def finish(self) -> None:
        """Finish the directories: every entry was taken."""


class StagingSink:
    """Writes entries to a directory on this host.

    Args:
        root: The directory, which is empty or lacks the entries.
        previous: The version whose unchanged files are hard-linked instead of written.
    """

    def __init__(self, root: bytes, previous: PreviousVersion = NO_PREVIOUS_VERSION) -> None:
        self.root = root
        self.previous = previous
        self._directories: dict[bytes, tuple[int, int]] = {}
        self._changed_directories: set[bytes] = set()  # that are no directories in the previous version
        self._claimed: set[int] = set()  # inodes of the previous version that are linked into this one
        self._lock = threading.Lock()

    def directory(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """Create a directory, writable for now. The top exists already."""
        self._directories[path] = (mode, mtime_ns)
        if not path:
            return
        os.mkdir(self.path_of(path), 0o700)
        if self.previous.root is None:
            return
        was = os.path.join(self.previous.root, path)
        if os.path.dirname(path) in self._changed_directories or os.path.islink(was) or not os.path.isdir(was):
            self._changed_directories.add(path)

    def symlink(self, entry: Entry) -> None:
        """Create a symbolic link."""
        path = self.path_of(entry.path)
        os.symlink(entry.target, path)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def hard_link(self, path: bytes, first: bytes) -> None:
        """Create a hard link."""
        os.link(self.path_of(first), self.path_of(path), follow_symlinks=False)

    def file(self, entry: Entry, data: bytes, made: Provenance | None = None) -> None:
        """Create a file with its content."""
        fd = create_file(self.path_of(entry.path))
        try:
            write_all(fd, data)
            self.open_file(entry, fd, made)
        finally:
            os.close(fd)

    def open_file(self, entry: Entry, fd: int, made: Provenance | None = None) -> None:  # noqa: ARG002 - the protocol's
        """Give a file that was written here its mode and time."""
        os.fchmod(fd, entry.permissions)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def path_of(self, path: bytes) -> bytes:
        """Return the path of an entry in the directory."""
        return self.root + b"/" + path

    def can_reuse(self, entry: Entry, file: PreviousFile, unchanged: UnchangedFile | None) -> bool:  # noqa: ARG002
        """Return whether the previous version has the file on this host, and claim its inode."""
        if unchanged is None or os.path.dirname(entry.path) in self._changed_directories:
            return False
        return self._claim_inode(unchanged.inode)

    def reuse(self, entry: Entry, file: PreviousFile, unchanged: UnchangedFile | None) -> None:  # noqa: ARG002
        """Hard-link the file of the previous version."""
        if unchanged is not None:
            os.link(unchanged.path, self.path_of(entry.path), follow_symlinks=False)

    def finish(self) -> None:
        """Give the directories their modes and times."""
        finish_directories(self.root, self._directories)

    def _claim_inode(self, inode: int) -> bool:
        """Return whether an inode is still free. It is linked once: names that are separate now must stay separate."""
        with self._lock:
            if inode in self._claimed:
                return False
            self._claimed.add(inode)
            return True


def create_file(path: bytes) -> int:
    """Create a file and return its descriptor. Raise OSError if the path exists."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def finish_directories(root: bytes, directories: dict[bytes, tuple[int, int]]) -> None:
    """Give directories their modes and times, children before parents and the top last. Raise OSError.

    Args:
        root: The top, which is the directory b"".
        directories: The mode and the time in ns by path, parents before children.
    """
    children_first = [path for path in reversed(directories) if path]
    for path in (*children_first, b"") if b"" in directories else children_first:
        mode, mtime_ns = directories[path]
        full = os.path.join(root, path) if path else root
        os.utime(full, ns=(mtime_ns, mtime_ns))
        os.chmod(full, stat.S_IMODE(mode))
