"""Plan of an archive: its entries in order, and what its manifest says about all of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ezpz.yeet.model.entry import Entry
from ezpz.yeet.source.identity import Listings
from ezpz.yeet.source.permissions import readers_of_all

if TYPE_CHECKING:
    from ezpz.yeet.relocate.recorder import RelocationRecorder
    from ezpz.yeet.source.scan import Scan

EMBEDDED, EXTERNAL, NO_BASE = "embedded", "kept", "none"
"""Modes of a base Python: in the archive, outside of it, or absent."""


@dataclass(frozen=True, slots=True)
class ArchivedBase:
    """Base Python of an archived environment.

    Attributes:
        mode: one of EMBEDDED, EXTERNAL, NO_BASE
        python: its version, "" if unknown
        prefix: its installation prefix on the host that made the archive
    """

    mode: str = NO_BASE
    python: str = ""
    prefix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as the manifest holds them."""
        return {"mode": self.mode, "python": self.python, "prefix": self.prefix}


@dataclass(frozen=True, slots=True)
class ArchiveDescription:
    """Facts about a whole archive in its manifest.

    Attributes:
        kind: "venv", "conda", "tool" or "data"
        prefix: the original path of the tree if something in it may contain that path, else ""
        base: its base Python
    """

    kind: str = "data"
    prefix: str = ""
    base: ArchivedBase = ArchivedBase()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as the manifest holds them."""
        return {"kind": self.kind, "prefix": self.prefix, "base": self.base.to_dict()}


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """Entries of an archive: the top, then each directory followed by its content.

    Plain tar sets the times of a directory when it leaves it, so nothing may come back to that directory later.

    Attributes:
        root: the directory that the entries are read from
        entries: the top first
        threads: how many may read at once
        recorder: relocates the content, None to leave it as it is
        listings: the directories as they were when their entries were counted
        description: what the manifest says about all of it
    """

    root: bytes
    entries: tuple[Entry, ...]
    threads: int
    recorder: RelocationRecorder | None = None
    listings: Listings = field(default_factory=Listings)
    description: ArchiveDescription = ArchiveDescription()

    @property
    def size(self) -> int:
        """Bytes of content."""
        return sum(entry.size for entry in self.entries if not entry.link)

    @property
    def readers(self) -> int:
        """Classes of users that may read all entries in the source, as in `source.permissions`. Raises OSError."""
        return readers_of_all(self.root, self.entries)


def plan_archive(scanned: Scan, recorder: RelocationRecorder | None = None) -> ArchivePlan:
    """Return the plan for the entries of a scan, with a file's first name before the hard links to it.

    Args:
        scanned: the source
        recorder: relocates the entries and their content, None to leave them as they are

    Raises:
        OSError: the top of the source cannot be read.
    """
    top = os.stat(scanned.root)
    entries = [entry for batch in scanned.batches() for entry in batch]
    if recorder is not None:
        entries = [recorder.relocate_entry(entry) for entry in entries]
    entries.sort(key=lambda entry: entry.path.replace(b"/", b"\0"))
    linked = {entry.link for entry in entries if entry.link}
    if linked:
        _link_to_first(entries, linked)
    ordered = (Entry(b"", top.st_mode, top.st_mtime_ns, 0), *entries)
    return ArchivePlan(scanned.root, ordered, scanned.threads, recorder, scanned.listings)


def _link_to_first(entries: list[Entry], linked: set[bytes]) -> None:
    """Make all hard links of a file point to its first name in `entries`, since a scan finds the names in any order.

    A symbolic link with several names may have another target in each of them after relocation. Then each name becomes
    a symbolic link of its own.
    """
    first: dict[bytes, Entry] = {}
    for number, entry in enumerate(entries):
        if not entry.link and entry.path not in linked:
            continue
        known = first.setdefault(entry.link or entry.path, entry)
        same = known is not entry and (known.mode, known.target) == (entry.mode, entry.target)
        entries[number] = entry._replace(link=known.path if same else b"")
