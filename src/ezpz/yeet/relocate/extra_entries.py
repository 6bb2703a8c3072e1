"""Collect entries from outside of the source, each with a path of its own in the copy."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ezpz.yeet.model.entry import Entry
from ezpz.yeet.source.identity import identity_of
from ezpz.yeet.source.link_policy import LinkPolicy
from ezpz.yeet.source.scan import Scan
from ezpz.yeet.source.scanner import SET_ID, scan_directory

if TYPE_CHECKING:
    from ezpz.agent.common.cancel import CancelToken

GENERATED_MTIME = 315_532_800 * 10**9  # 1980, as in zip archives; the same in every run


class ExtraEntries:
    """A scan of entries that are not in the source, parents first.

    Attributes:
        scan: The entries so far.
        cancel: Stops the scan of a directory when it is set.
    """

    def __init__(self, cancel: CancelToken | None = None, existing: tuple[bytes, ...] = ()) -> None:
        self.scan = Scan(b"/")
        self.cancel = cancel
        self._added = set(existing)

    def add_directory(self, target: bytes, path: bytes, exclude: tuple[str, ...] = ()) -> list[bytes]:
        """Add everything below a directory, with links out of it replaced by what they point to.

        Args:
            target: Path in the copy.
            path: Path of the directory on this host.
            exclude: Patterns of paths to leave out, see ExcludeFilter.

        Returns:
            The paths of its shared libraries.

        Raises:
            SourceUnreadable, SourceChanged, `Cancelled`: See `scan_directory`.
        """
        names = tuple(dict.fromkeys((path, os.path.realpath(path))))
        found = scan_directory(path, exclude=exclude, link_policy=LinkPolicy(names, image=()), cancel=self.cancel)
        self._add_parents(target)
        libraries: list[bytes] = []
        for batch in found.batches():
            entries = [
                entry for entry in (_relocated(entry, target, path) for entry in batch) if entry.path not in self._added
            ]
            self._added.update(entry.path for entry in entries)
            self.scan.add(entries)
            libraries += [os.path.join(path, e.path) for e in batch if e.is_regular and b".so" in e.path]
        self.scan.followed += found.followed
        self.scan.followed_bytes += found.followed_bytes
        self.scan.listings.update(found.listings)
        found.close()
        return libraries

    def add_file(self, target: bytes, path: bytes) -> None:
        """Add one file, unless it was added before. Raises OSError."""
        if target in self._added:
            return
        self._added.add(target)
        self._add_parents(os.path.dirname(target))
        status = os.stat(path)
        mode, identity = status.st_mode & ~SET_ID, identity_of(status)
        self.scan.add([Entry(target, mode, status.st_mtime_ns, status.st_size, origin=path, identity=identity)])

    def add_content(self, target: bytes, content: bytes, mode: int = 0o644) -> None:
        """Add a file with generated content."""
        self._add_parents(os.path.dirname(target))
        self.scan.add([Entry(target, stat.S_IFREG | mode, GENERATED_MTIME, len(content), content=content)])

    def add_link(self, target: bytes, points_to: bytes, mtime_ns: int) -> None:
        """Add a generated symbolic link, unless it was added before."""
        if target not in self._added:
            self._added.add(target)
            self.scan.add([Entry(target, stat.S_IFLNK | 0o777, mtime_ns, 0, target=points_to, content=b"")])

    def _add_parents(self, path: bytes) -> None:
        """Add a generated directory for each component of a path that does not exist yet."""
        parts = path.split(b"/") if path else []
        directories = [b"/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        new = (directory for directory in directories if directory not in self._added)
        self.scan.add(Entry(directory, stat.S_IFDIR | 0o755, GENERATED_MTIME, 0, content=b"") for directory in new)
        self._added.update(directories)


def _relocated(entry: Entry, target: bytes, directory: bytes) -> Entry:
    """Return an entry of another directory with its path in the copy."""
    return entry._replace(
        path=os.path.join(target, entry.path),
        link=entry.link and os.path.join(target, entry.link),
        origin=entry.origin or os.path.join(directory, entry.path),
    )
