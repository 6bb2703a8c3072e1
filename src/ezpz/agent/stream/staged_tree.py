"""A staged tree that is written piece by piece, in any order."""

import os
import stat
import threading
from typing import Dict, Tuple

from ..common.cancel import CancelToken
from ..destination.reuse import NEW
from .chunk_entry import ChunkEntry

EXISTING = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class StagedTree:
    """Creates entries below a directory; modes, times, and hard links that have to wait are left to `finish`."""

    def __init__(self, root: int) -> None:
        """Take a descriptor of the directory, so that the directory may move meanwhile."""
        self.root = root
        self.directories: "Dict[bytes, Tuple[int, int]]" = {}
        self.links: "Dict[bytes, bytes]" = {}
        self.large: "Dict[bytes, Tuple[int, int]]" = {}
        self.umask = os.umask(0o077)
        os.umask(self.umask)
        self._lock = threading.Lock()

    def make_directory(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """Create a directory, unless it exists; the last mode and time count. Raise OSError."""
        if path and path not in self.directories:
            try:
                os.mkdir(path, 0o700, dir_fd=self.root)
            except FileExistsError:
                pass
        self.directories[path] = (stat.S_IMODE(mode), mtime_ns)

    def add_hard_link(self, path: bytes, first: bytes) -> None:
        """Let `finish` create a hard link to a file that may not be there yet."""
        self.links[path] = first

    def make_symlink(self, path: bytes, mtime_ns: int, target: bytes) -> None:
        """Create a symbolic link, in place of what may be there from a chunk that comes again. Raise OSError."""
        self.remove(path)
        os.symlink(target, path, dir_fd=self.root)
        os.utime(path, ns=(mtime_ns, mtime_ns), dir_fd=self.root, follow_symlinks=False)

    def remove(self, path: bytes) -> None:
        """Remove a file, a link, or an empty directory, if it exists. Raise OSError."""
        self.large.pop(path, None)
        self.links.pop(path, None)
        try:
            os.unlink(path, dir_fd=self.root)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            os.rmdir(path, dir_fd=self.root)
            self.directories.pop(path, None)

    def write(self, piece: ChunkEntry, content: memoryview) -> None:
        """Write a file, or a piece of one. Raise OSError."""
        complete = piece.length == piece.size
        fd = self._create(piece) if complete else self._open_large(piece)
        try:
            done = 0
            if complete:
                while done < piece.length:
                    done += os.write(fd, content[done:])
                os.utime(fd, ns=(piece.mtime_ns, piece.mtime_ns))
            else:
                while done < piece.length:
                    done += os.pwrite(fd, content[done:], piece.offset + done)
        finally:
            os.close(fd)

    def _create(self, piece: ChunkEntry) -> int:
        """Return a new file, in place of what may be there from a chunk that comes again."""
        mode = stat.S_IMODE(piece.mode)
        try:
            fd = os.open(piece.path, NEW, mode, dir_fd=self.root)
        except FileExistsError:
            self.remove(piece.path)
            fd = os.open(piece.path, NEW, mode, dir_fd=self.root)
        if mode & self.umask:
            os.fchmod(fd, mode)
        return fd

    def _open_large(self, piece: ChunkEntry) -> int:
        """Return a file that several chunks write to; its time and mode wait for the last of them."""
        with self._lock:
            if piece.path not in self.large:
                self.remove(piece.path)
                fd = os.open(piece.path, NEW, 0o600, dir_fd=self.root)
                self.large[piece.path] = (stat.S_IMODE(piece.mode), piece.mtime_ns)
                os.ftruncate(fd, piece.size)
                return fd
        return os.open(piece.path, EXISTING, dir_fd=self.root)

    def finish(self, cancel: CancelToken) -> None:
        """Create the hard links, and set the times and modes that had to wait, once all is written. Raise OSError."""
        for path, (mode, mtime_ns) in self.large.items():
            cancel.raise_if_cancelled()
            fd = os.open(path, EXISTING, dir_fd=self.root)
            try:
                os.fchmod(fd, mode)
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)
        for path, first in self.links.items():
            cancel.raise_if_cancelled()
            try:
                os.unlink(path, dir_fd=self.root)
            except FileNotFoundError:
                pass
            os.link(first, path, src_dir_fd=self.root, dst_dir_fd=self.root, follow_symlinks=False)
        for path in sorted(self.directories, reverse=True):
            cancel.raise_if_cancelled()
            mode, mtime_ns = self.directories[path]
            where = path or b"."
            os.utime(where, ns=(mtime_ns, mtime_ns), dir_fd=self.root)
            os.chmod(where, mode, dir_fd=self.root)

    def make_writable(self) -> None:
        """Make everything writable again, because something has to be written once more. Raise OSError."""
        for path in sorted(self.directories):
            os.chmod(path or b".", self.directories[path][0] | 0o700, dir_fd=self.root)
        for path, (mode, _) in self.large.items():
            os.chmod(path, mode | 0o600, dir_fd=self.root)

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        """Return what a file contains. Raise OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self.root)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)
