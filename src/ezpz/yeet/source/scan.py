"""The result of scanning a source: its entries, spooled, and their totals."""

from __future__ import annotations

import marshal
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ezpz.yeet.model.entry import Entry
from ezpz.yeet.model.warnings import SourceWarnings
from ezpz.yeet.source.identity import Listings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DISK_BLOCK = 4096  # bytes; the space of a file on a disk is a multiple of this
SPOOL_HEADER = 4  # bytes before a batch in the spool that hold its length
SPOOL_MEMORY = 32 << 20  # bytes of entries kept in memory; more go to a temporary file
CPU_PER_FILE = 60e-6  # seconds of interpreter time to read and write one small file
MIN_THREADS, MAX_THREADS = 2, 32  # for a filesystem that answers from memory (4 take 1.4 times as long), and a slow one


class LeftOut(NamedTuple):
    """An entry that is not copied.

    Attributes:
        path: Path relative to the source.
        why: "special-file", "unreadable", "excluded", or "ours" for a file of ezpz, such as an earlier receipt.
    """

    path: bytes
    why: str


@dataclass(slots=True)
class Scan:
    """The entries of a tree, parents before children, and their totals. Grows until it is closed.

    Attributes:
        root: Path of the tree.
        files: Number of entries that are not directories.
        directories: Number of directories.
        size: Bytes of content. Each hard-linked file counts once.
        allocated: Bytes on a disk with blocks of 4 KiB.
        linked: Bytes that the other names of hard-linked files show.
        followed: Number of files that replace links out of the tree.
        followed_bytes: Bytes of content of these files.
        altered: Number of entries that differ from the source: followed links, dropped setuid bits, changed targets.
        longest: Length in bytes of the longest path.
        longest_name: Length in bytes of the longest name.
        clash: A path that differs from another one only in case, or b"".
        latency: Mean seconds of one metadata call.
        archive: Identity of the source if it is an archive, else 0.
        listings: The directories as they were listed.
        left_out: Entries that are not copied.
        notices: Warnings about entries.
    """

    root: bytes
    files: int = 0
    directories: int = 0
    size: int = 0
    allocated: int = 0
    linked: int = 0
    followed: int = 0
    followed_bytes: int = 0
    altered: int = 0
    longest: int = 0
    longest_name: int = 0
    clash: bytes = b""
    latency: float = 0.0
    archive: int = 0
    listings: Listings = field(default_factory=Listings)
    left_out: list[LeftOut] = field(default_factory=list)
    notices: SourceWarnings = field(default_factory=SourceWarnings)
    _spool: tempfile.SpooledTemporaryFile[bytes] = field(
        default_factory=lambda: tempfile.SpooledTemporaryFile(SPOOL_MEMORY)  # noqa: SIM115 - closed by close()
    )

    @property
    def threads(self) -> int:
        """Number of threads to read this source with: as many as wait while one of them computes."""
        return max(MIN_THREADS, min(MAX_THREADS, round(self.latency / CPU_PER_FILE)))

    def batches(self) -> Iterator[list[Entry]]:
        """Yield the entries in the order they were found, at most 256 at a time."""
        self._spool.seek(0)
        while header := self._spool.read(SPOOL_HEADER):
            batch = self._spool.read(int.from_bytes(header, "little"))
            yield [Entry(*facts) for facts in marshal.loads(batch)]  # noqa: S302 - our own file, which never had a name

    def add(self, found: Iterable[Entry]) -> None:
        """Count some entries and append them to the spool."""
        found = list(found)
        for entry in found:
            if entry.is_directory:
                self.directories += 1
            else:
                self.files += 1
                self.linked += entry.size if entry.link else 0
                self.size += 0 if entry.link else entry.size
            if not entry.link:
                self.allocated += disk_usage(entry.size)
            if len(entry.path) > self.longest:
                self.longest = len(entry.path)
            name = len(entry.path) - 1 - entry.path.rfind(b"/")
            if name > self.longest_name:
                self.longest_name = name
        batch = marshal.dumps([tuple(entry) for entry in found])
        self._spool.write(len(batch).to_bytes(SPOOL_HEADER, "little") + batch)

    def add_all(self, scans: Iterable[Scan]) -> None:
        """Add the entries of other scans, and close these."""
        for other in scans:
            for batch in other.batches():
                self.add(batch)
            self.listings.update(other.listings)
            other.close()

    def close(self) -> None:
        """Release the entries. The totals stay."""
        self._spool.close()


def entries_of(scanned: Scan) -> Iterator[Entry]:
    """Return all entries of a scan, one by one."""
    return (entry for batch in scanned.batches() for entry in batch)


def disk_usage(size: float) -> int:
    """Return the bytes that a file of `size` bytes, which may be an estimate, needs on a disk."""
    return max(1, int(-(-size // DISK_BLOCK))) * DISK_BLOCK
