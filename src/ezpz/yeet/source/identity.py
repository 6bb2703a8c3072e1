"""Counted: what identifies files and directories when they are counted, to tell later whether they are still the same.

Bytecode does not count as a change of a directory: it comes from running what is there, which may be ezpz itself.
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

CARRIED = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


def identity_of(status: os.stat_result) -> int:
    """Return one number for the device, inode, size and times; any change of the file makes it another one."""
    return hash((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@dataclass(slots=True)
class Listing:
    """One directory as it was listed.

    where: its path; folder: its path in the tree, for `excluded`
    identity: its own, from before it was listed; content: the sum over its entries, see `content_of`
    """

    where: bytes
    folder: bytes
    excluded: ExcludeFilter
    identity: int
    content: int = 0

    def is_unchanged(self, status: os.stat_result) -> bool:
        """Return whether the directory, which now has this status, has the same entries. Raises OSError."""
        return identity_of(status) == self.identity or self.content_now() == self.content

    def content_now(self) -> int:
        """Return the sum over the entries that are there now. Raises OSError."""
        return self.content_of((entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(self.where))

    def content_of(self, entries: Iterable[tuple[bytes, os.stat_result]]) -> int:
        """Return the sum over some entries, in any order: what a directory holds is a matter of its own listing."""
        total = 0
        for name, status in entries:
            if self.counts(name, status):
                total += hash((name, 0 if stat.S_ISDIR(status.st_mode) else identity_of(status)))
        return total

    def counts(self, name: bytes, status: os.stat_result) -> bool:
        """Return whether an entry matters: it may be carried, and is not bytecode."""
        if name == BYTECODE_DIRECTORY or stat.S_IFMT(status.st_mode) not in CARRIED:
            return False
        path = self.folder + b"/" + name if self.folder else name
        return path not in OWN_FILES and not self.excluded.matches(path)


@dataclass(slots=True)
class Listings:
    """The directories of a scan as they were listed, but for those of bytecode."""

    _listings: dict[tuple[bytes, bytes], Listing] = field(default_factory=dict)

    def begin(self, where: bytes, folder: bytes, excluded: ExcludeFilter) -> None:
        """Note a directory that is about to be listed. Raises OSError."""
        if os.path.basename(folder) != BYTECODE_DIRECTORY:
            self._listings[where, folder] = Listing(where, folder, excluded, identity_of(os.stat(where)))

    def of(self, where: bytes, folder: bytes) -> Listing | None:
        """Return a directory that was begun."""
        return self._listings.get((where, folder))

    def all(self) -> list[Listing]:
        """Return all of them."""
        return list(self._listings.values())

    def update(self, other: Listings) -> None:
        """Add those of another scan."""
        self._listings.update(other._listings)
