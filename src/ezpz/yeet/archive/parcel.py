"""Parcel: all that an archive is to hold, in order, and what its manifest says besides."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ezpz.yeet.access import readers_of_all
from ezpz.yeet.counted import Listings
from ezpz.yeet.entry import Entry

if TYPE_CHECKING:
    from ezpz.yeet.relocate.ledger import Ledger
    from ezpz.yeet.scan import Scan


@dataclass(slots=True)
class Parcel:
    """The top and the entries below it, a folder's content right behind it, since plain tar closes what it leaves.

    root: where they stand; ledger: relocates what is packed, None when nothing is
    listings: the directories that were counted, as they were
    about: what the manifest says of all of it, see `contents`
    """

    root: bytes
    entries: list[Entry]
    threads: int
    ledger: Ledger | None = None
    listings: Listings = field(default_factory=Listings)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return sum(entry.size for entry in self.entries if not entry.link)

    @property
    def readers(self) -> int:
        """Return the classes of `access` that may read all of it where it stands. Raises OSError."""
        return readers_of_all(self.root, self.entries)


def parcel_of(scanned: Scan, ledger: Ledger | None = None) -> Parcel:
    """What a scan has found, in order: the first name of a file comes before the others, which are links to it.

    Raises OSError.
    """
    top = os.stat(scanned.root)
    entries = [entry for batch in scanned.batches() for entry in batch]
    if ledger is not None:
        entries = [ledger.entry(entry) for entry in entries]
    entries.sort(key=lambda entry: entry.path.replace(b"/", b"\0"))
    linked = {entry.link for entry in entries if entry.link}
    if linked:
        _lead_to_first(entries, linked)
    entries.insert(0, Entry(b"", top.st_mode, top.st_mtime_ns, 0))
    return Parcel(scanned.root, entries, scanned.threads, ledger, scanned.listings)


def _lead_to_first(entries: list[Entry], linked: set[bytes]) -> None:
    """Let the further names of each file lead to the one that comes first here; a scan finds them in any order.

    A symbolic link of several names that does not say the same in all of them stands for itself.
    """
    first: dict[bytes, Entry] = {}
    for number, entry in enumerate(entries):
        if not entry.link and entry.path not in linked:
            continue
        known = first.setdefault(entry.link or entry.path, entry)
        same = known is not entry and (known.mode, known.target) == (entry.mode, entry.target)
        entries[number] = entry._replace(link=known.path if same else b"")
