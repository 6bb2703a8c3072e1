"""Strategy: the port that every local-copy strategy implements, and the job that each is given."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from ezpz.errors import (
    CopyFailed,
    DestinationRefused,
    DestinationUnwritable,
    EzpzError,
    NoSpace,
    SourceChanged,
    SourceUnreadable,
)
from ezpz.runtime.plugins import Registry
from ezpz.yeet.agent.refusal import shown
from ezpz.yeet.archive.formats import format_at
from ezpz.yeet.counted import identity_of
from ezpz.yeet.words import beginning

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.runtime.process import Completed
    from ezpz.yeet.agent.cancel import CancelToken
    from ezpz.yeet.entry import Entry
    from ezpz.yeet.intake import Intake
    from ezpz.yeet.known import Known
    from ezpz.yeet.relocate.ledger import Ledger
    from ezpz.yeet.scan import Scan
    from ezpz.yeet.source import Source
    from ezpz.yeet.trail import Trail


@dataclass(frozen=True, slots=True)
class Job:
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
    ledger: Ledger
    cancel: CancelToken
    moved: Callable[[int], None]
    known: Known | None = None
    feed: Intake | None = None
    kept: bool = True
    trail: Trail | None = None

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

    def fill(self, job: Job) -> None:
        """Fill `job.staging`. Raises EzpzError, or Cancelled by `job.cancel`; staging may then hold anything."""


STRATEGIES: Registry[type[Strategy]] = Registry("ezpz.yeet.strategies", "strategy")


def choose(source: Source, wanted: str | None) -> tuple[str, str]:
    """The name of the strategy for this source, and the reason. Raises SourceUnreadable."""
    if wanted is not None:
        return wanted, "asked for"
    if not source.is_archive:
        return "direct", "default for a directory"
    try:
        return format_at(source.real).strategy, "the source is an archive"
    except OSError as e:
        raise SourceUnreadable(f"cannot read '{shown(os.fsencode(source.path))}': {e.strerror}") from e


def name_list(scan: Scan) -> bytes:
    """Every path of a scan's own entries, NUL-terminated, as `--files-from` and `-T` take them."""
    own = (entry.path for batch in scan.batches() for entry in batch if not entry.is_foreign)
    return b"".join(b"./" + path + b"\0" for path in own)


def demand(done: Completed, tool: str) -> None:
    """Raise the EzpzError that explains why a copying tool ended badly."""
    if done.returncode == 0:
        return
    said = done.err or f"exit status {done.returncode}"
    full = [line for line in said.splitlines() if "No space left on device" in line or "Disk quota exceeded" in line]
    if full:
        raise NoSpace(
            f"{tool}: the local disk is full: {full[-1]}",
            hint="free some space, or choose another place with --dst",
        )
    if "Read-only file system" in said:
        raise DestinationUnwritable(f"{tool}: {said.splitlines()[-1]}", hint="choose another place with --dst")
    if "Permission denied" in said:
        raise SourceUnreadable(f"{tool}: {said.splitlines()[0]}", hint="are you allowed to read all of the source?")
    raise CopyFailed(f"{tool} failed: {said}")


def open_source(root: bytes, path: bytes = b"", identity: int = 0) -> tuple[int, os.stat_result]:
    """The regular file at `path` below `root`, or `root`: a descriptor, and what it is.

    identity: what it had when it was counted, 0 for what was not. Raises SourceUnreadable, SourceChanged.
    """
    whole = os.path.join(root, path) if path else root
    try:
        fd = os.open(whole, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise changed(path or root) from e
        raise unreadable(whole, e) from e
    status = os.fstat(fd)
    try:
        if not stat.S_ISREG(status.st_mode):
            raise changed(path or root)
        refuse_other(path or root, status, identity)
    except SourceChanged:
        os.close(fd)
        raise
    return fd, status


def refuse_other(path: bytes, status: os.stat_result | None, identity: int) -> None:
    """Raise SourceChanged for a file that is not the one that was counted.

    status: what it is now, before or after it was read, None when it is gone; identity: see `counted`, 0 for a file
    that was not counted
    """
    if status is None or (identity and identity_of(status) != identity):
        raise changed(path)


def unreadable(path: bytes, error: OSError) -> SourceUnreadable:
    """What a file of the source that cannot be opened or read means."""
    denied = error.errno in (errno.EACCES, errno.EPERM)
    hint = "are you allowed to read it?" if denied else "is its filesystem well? look at it with `stat`, then try again"
    return SourceUnreadable(f"cannot read '{shown(path)}': {error.strerror}", hint=hint)


def changed(path: bytes) -> SourceChanged:
    """What a file of the source that is not what the scan saw means."""
    return SourceChanged(
        f"'{shown(path)}' changed during the run",
        hint="is something still being installed there? run it again when that is done",
    )


def local_failure(error: OSError) -> EzpzError:
    """What an operating system error while staging means to a user."""
    named = isinstance(error.filename, (str, bytes)) and error.filename
    where = f"'{shown(os.fsencode(error.filename))}'" if named else "the local disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"the local disk is full: {where}: {error.strerror}",
            hint="free some space, or choose another place with --dst",
        )
    if error.errno == errno.ENAMETOOLONG:
        return DestinationRefused(f"a path is too long: {beginning(where)}", hint="choose a shorter --dst")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DestinationUnwritable(f"cannot write {where}: {error.strerror}", hint="choose another place with --dst")
    return CopyFailed(f"cannot copy {where}: {error.strerror}")
