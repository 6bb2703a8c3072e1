"""Read the files of a tree that describe its environment."""

from __future__ import annotations

import errno
import os
import stat
from functools import cached_property
from typing import TYPE_CHECKING

from ezpz.yeet.relocate.formats.pyvenv_cfg import parse_settings
from ezpz.yeet.relocate.layout import PYVENV_CFG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_SMALL_FILE = 4 << 20  # bytes; the files that contain the path of an environment are smaller
SCRIPT_HEAD = 4096  # bytes; enough for the header of a script
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
ABSENT_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES)
"""Not a file of the tree. ENXIO is a socket's. The scan refuses or leaves out what may not be read."""


class TreeReader:
    """Reads a tree with few system calls: each one takes its time on a shared filesystem."""

    def __init__(self, root: bytes) -> None:
        self.root = root

    def read(self, path: bytes) -> bytes | None:
        """Return a small file of the tree by its relative path, or None if there is none. Raises OSError."""
        return self.configuration if path == PYVENV_CFG else self._read(path, limit=MAX_SMALL_FILE)

    def read_whole(self, path: bytes) -> bytes | None:
        """Return a file of any size by its relative path, or None if there is none. Raises OSError."""
        return self._read(path)

    def head(self, path: bytes, size: int) -> bytes | None:
        """Return the first bytes of a file by its relative path, or None if there is none. Raises OSError."""
        return self._read(path, size=size)

    def _read(self, path: bytes, *, size: int = -1, limit: int | None = None) -> bytes | None:
        try:
            fd = os.open(os.path.join(self.root, path), OPEN_FLAGS)
        except OSError as e:
            if e.errno in ABSENT_ERRORS:
                return None
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or (limit is not None and status.st_size > limit):
                return None
            with open(fd, "rb", buffering=0, closefd=False) as file:
                return file.read(size)
        finally:
            os.close(fd)

    def names(self, path: bytes) -> tuple[bytes, ...]:
        """Return the sorted names in a directory of the tree. Empty if there is no such directory."""
        try:
            return tuple(sorted(os.listdir(os.path.join(self.root, path))))
        except (FileNotFoundError, NotADirectoryError):
            return ()

    @property
    def scripts(self) -> Iterator[bytes]:
        """The heads of the files in `bin`, sorted by name. Each is read when it is needed."""
        return (self.head(b"bin/" + name, SCRIPT_HEAD) or b"" for name in self.names(b"bin"))

    @cached_property
    def configuration(self) -> bytes | None:
        """Its `pyvenv.cfg`, read once. None if there is none. Raises OSError."""
        return self._read(PYVENV_CFG, limit=MAX_SMALL_FILE)

    @cached_property
    def settings(self) -> Mapping[bytes, bytes]:
        """The settings in its `pyvenv.cfg`."""
        return parse_settings(self.configuration or b"")

    @property
    def shares_site_packages(self) -> bool:
        """Whether it also imports what is installed in its base Python."""
        return self.settings.get(b"include-system-site-packages", b"").lower() == b"true"
