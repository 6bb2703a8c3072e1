"""Identities of files and directories at the time of a scan, to tell later whether they changed.

Bytecode does not count as a change of a directory: it appears when programs of the tree run, ezpz among them.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.agent.common.layout import OWN_FILES
from ezpz.yeet.model.entry import BYTECODE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ezpz.yeet.source.exclude import ExcludeFilter

COPIED_TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


def identity_of(status: os.stat_result) -> int:
    """Return one number for the device, inode, size, and times. Any change of the file changes the number."""
    return hash((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@dataclass(slots=True)
class Listing:
    """One directory as it was listed.

    Attributes:
        location: Path on disk.
        path: Path in the tree, which `excluded` is asked about.
        excluded: Filter of the scan.
        identity: Identity of the directory from before it was listed.
        content: Digest of its entries, see `digest_of`.
    """

    location: bytes
    path: bytes
    excluded: ExcludeFilter
    identity: int
    content: int = 0

    def is_unchanged(self, status: os.stat_result) -> bool:
        """Return whether the directory, which now has this status, has the same entries. Raises OSError."""
        return identity_of(status) == self.identity or self._current_digest() == self.content

    def digest_of(self, entries: Iterable[tuple[bytes, os.stat_result]]) -> int:
        """Return the digest of entries. The digests of parts of a directory add up to the digest of all of it.

        A subdirectory counts by its name only: its entries belong to its own listing.
        """
        total = 0
        for name, status in entries:
            if self.is_relevant(name, status):
                total += hash((name, 0 if stat.S_ISDIR(status.st_mode) else identity_of(status)))
        return total

    def is_relevant(self, name: bytes, status: os.stat_result) -> bool:
        """Return whether an entry matters: it may be copied, and is not bytecode."""
        if name == BYTECODE_DIRECTORY or stat.S_IFMT(status.st_mode) not in COPIED_TYPES:
            return False
        path = self.path + b"/" + name if self.path else name
        return path not in OWN_FILES and not self.excluded.matches(path)

    def _current_digest(self) -> int:
        return self.digest_of((entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(self.location))


@dataclass(slots=True)
class Listings:
    """The directories of a scan as they were listed, without those of bytecode."""

    _listings: dict[tuple[bytes, bytes], Listing] = field(default_factory=dict)

    def add(self, location: bytes, path: bytes, excluded: ExcludeFilter) -> None:
        """Record a directory before it is listed. Raises OSError."""
        if os.path.basename(path) != BYTECODE_DIRECTORY:
            self._listings[location, path] = Listing(location, path, excluded, identity_of(os.stat(location)))

    def get(self, location: bytes, path: bytes) -> Listing | None:
        """Return a recorded directory, or None."""
        return self._listings.get((location, path))

    def all(self) -> list[Listing]:
        """Return all recorded directories."""
        return list(self._listings.values())

    def update(self, other: Listings) -> None:
        """Add the directories of another scan."""
        self._listings.update(other._listings)
