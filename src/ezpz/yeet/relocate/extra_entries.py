"""Graft: entries that stand elsewhere than below the source and come along, each at a place of its own in the tree."""

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

EPOCH = 315_532_800 * 10**9  # 1980, as in zip archives: what is made anew has the same time in every run


class ExtraEntries:
    """What was collected so far, as a Scan whose entries all are foreign; parents come first.

    standing: folders that the source has itself
    """

    def __init__(self, cancel: CancelToken | None = None, standing: tuple[bytes, ...] = ()) -> None:
        self.scan = Scan(b"/")
        self.cancel = cancel
        self._made = set(standing)

    def add_folder(self, target: bytes, path: bytes, exclude: tuple[str, ...] = ()) -> list[bytes]:
        """Take what is below the folder `path`, links out of it followed; where its shared libraries stand.

        Raises what `scan` raises.
        """
        names = tuple(dict.fromkeys((path, os.path.realpath(path))))
        found = scan_directory(path, exclude=exclude, link_policy=LinkPolicy(names, image=()), cancel=self.cancel)
        self._make_folders(target)
        libraries: list[bytes] = []
        for batch in found.batches():
            moved = [
                entry for entry in (_moved(entry, target, path) for entry in batch) if entry.path not in self._made
            ]
            self._made.update(entry.path for entry in moved)
            self.scan.add(moved)
            libraries += [os.path.join(path, e.path) for e in batch if e.is_regular and b".so" in e.path]
        self.scan.followed += found.followed
        self.scan.followed_bytes += found.followed_bytes
        self.scan.listings.update(found.listings)
        found.close()
        return libraries

    def add_file(self, target: bytes, path: bytes) -> None:
        """Take one file, once. Raises OSError."""
        if target in self._made:
            return
        self._made.add(target)
        self._make_folders(os.path.dirname(target))
        status = os.stat(path)
        mode, identity = status.st_mode & ~SET_ID, identity_of(status)
        self.scan.add([Entry(target, mode, status.st_mtime_ns, status.st_size, origin=path, identity=identity)])

    def add_content(self, target: bytes, content: bytes, mode: int = 0o644) -> None:
        """Make a file that stands nowhere yet."""
        self._make_folders(os.path.dirname(target))
        self.scan.add([Entry(target, stat.S_IFREG | mode, EPOCH, len(content), content=content)])

    def add_link(self, target: bytes, leads_to: bytes, mtime_ns: int) -> None:
        """Make a symbolic link beside what was taken."""
        if target not in self._made:
            self._made.add(target)
            self.scan.add([Entry(target, stat.S_IFLNK | 0o777, mtime_ns, 0, target=leads_to, content=b"")])

    def _make_folders(self, path: bytes) -> None:
        parts = path.split(b"/") if path else []
        folders = [b"/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        new = (folder for folder in folders if folder not in self._made)
        self.scan.add(Entry(folder, stat.S_IFDIR | 0o755, EPOCH, 0, content=b"") for folder in new)
        self._made.update(folders)


def _moved(entry: Entry, target: bytes, folder: bytes) -> Entry:
    """An entry of a folder elsewhere, as it stands in the tree."""
    return entry._replace(
        path=os.path.join(target, entry.path),
        link=entry.link and os.path.join(target, entry.link),
        origin=entry.origin or os.path.join(folder, entry.path),
    )
