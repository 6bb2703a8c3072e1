"""Strategy: the port that every local-copy strategy implements, and the job that each is given."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from ezpz.agent.common.text import printable_path
from ezpz.errors import (
    SourceUnreadable,
)
from ezpz.runtime.plugins import Registry
from ezpz.yeet.source.archive_formats import detect_format

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.model.source import Source
    from ezpz.yeet.relocate.recorder import RelocationRecorder
    from ezpz.yeet.source.scan import Scan
    from ezpz.yeet.transfer.entry_tee import EntryTee
    from ezpz.yeet.transfer.previous_version import PreviousVersion
    from ezpz.yeet.transfer.unpack_feed import UnpackFeed


@dataclass(frozen=True, slots=True)
class CopyJob:
    """One local copy.

    root: the real path of the source; scan: its entries (empty for an archive)
    staging: an existing, empty, private directory
    feed: what sends the same to other hosts while it is read, or None; kept: whether it is written to staging as well
    trail: the same for an archive, which is always written to staging
    ledger: relocates what is copied
    known: what an earlier run made of the same source by the same rules, or None; what is unchanged is not read
    cancel: cancelled when the run was interrupted; moved: is told how many more bytes of content have been written
    """

    root: bytes
    scan: Scan
    staging: bytes
    ledger: RelocationRecorder
    cancel: CancelToken
    moved: Callable[[int], None]
    known: PreviousVersion | None = None
    feed: EntryTee | None = None
    kept: bool = True
    trail: UnpackFeed | None = None

    def finish_folders(self, folders: list[Entry]) -> None:
        """Give folders, listed parents first, and the top their modes and times, children first. Raises OSError."""
        top = os.stat(self.root)
        if self.feed is not None:
            self.feed.folder(b"", top.st_mode, top.st_mtime_ns)
        if not self.kept:
            return
        self.finish_below(folders)
        os.utime(self.staging, ns=(top.st_mtime_ns, top.st_mtime_ns))
        os.chmod(self.staging, stat.S_IMODE(top.st_mode))

    def finish_below(self, folders: list[Entry]) -> None:
        """The same without the top."""
        for entry in reversed(folders):
            path = os.path.join(self.staging, entry.path)
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
            os.chmod(path, entry.permissions)


class Strategy(Protocol):
    """A way to get a source into staging on the launching host; one file and one entry-point line.

    All of them end with the same tree: modes, modification times, links, hard links, empty directories and names
    survive, what the scan left out is not there, and the environment is relocated.
    """

    name: ClassVar[str]
    reads_archives: ClassVar[bool]
    feeds: ClassVar[bool]
    """Whether `fill` gives the job's feed all that it reads, and can do without writing, or tells the job's trail of
    all that it unpacks; else the job has neither."""
    tools: ClassVar[tuple[str, ...]]
    """Programs that must be on PATH here."""

    def fill(self, job: CopyJob) -> None:
        """Fill `job.staging`. Raises EzpzError, or Cancelled by `job.cancel`; staging may then hold anything."""


STRATEGIES: Registry[type[Strategy]] = Registry("ezpz.yeet.strategies", "strategy")


def choose(source: Source, wanted: str | None) -> tuple[str, str]:
    """The name of the strategy for this source, and the reason. Raises SourceUnreadable."""
    if wanted is not None:
        return wanted, "asked for"
    if not source.is_archive:
        return "direct", "default for a directory"
    try:
        return detect_format(source.real).strategy, "the source is an archive"
    except OSError as e:
        raise SourceUnreadable(f"cannot read '{printable_path(os.fsencode(source.path))}': {e.strerror}") from e


def name_list(scan: Scan) -> bytes:
    """Every path of a scan's own entries, NUL-terminated, as `--files-from` and `-T` take them."""
    own = (entry.path for batch in scan.batches() for entry in batch if not entry.is_foreign)
    return b"".join(b"./" + path + b"\0" for path in own)
