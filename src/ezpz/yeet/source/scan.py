"""Scan: what a source directory holds, counted and spooled in one parallel pass.

A shared filesystem answers slowly but in parallel, so threads are added for as long as it is slow. One that answers
from memory gets few: more of them would only wait for each other's interpreter lock.
"""

from __future__ import annotations

import errno
import marshal
import os
import stat
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.agent.common.layout import OWN_FILES
from ezpz.agent.common.text import printable_path
from ezpz.errors import SourceChanged, SourceUnreadable
from ezpz.runtime.text import shorten
from ezpz.runtime.threads import BackgroundThread
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.model.warnings import MAX_KEPT, SourceWarnings
from ezpz.yeet.source.exclude import ExcludeFilter, casefold_name
from ezpz.yeet.source.identity import CARRIED, Listings, identity_of
from ezpz.yeet.source.link_policy import LinkFollower, ScannedItem
from ezpz.yeet.source.permissions import readable, readable_by_mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ezpz.yeet.source.link_policy import LinkPolicy

BLOCK = 4096  # bytes; what a file takes on a disk is a multiple of this
BATCH = 256  # entries handed from thread to thread at once
SPOOL_HEADER = 4  # bytes before a batch in the spool that tell its length
SPOOL_MEMORY = 32 << 20  # bytes of entries kept in memory, beyond that in a temporary file
SLOW = 100e-6  # seconds for one metadata call: a filesystem that answers over a network
BUSY = 60e-6  # seconds of the interpreter that reading and writing one small file takes
FEW, MANY = 2, 32  # threads for a filesystem that answers from memory (4 take 1.4 times as long), and for a slow one
SET_ID = stat.S_ISUID | stat.S_ISGID


class LeftOut(NamedTuple):
    """An entry that is not carried, and why: "special-file", "unreadable", "excluded", "ours" (an earlier receipt)."""

    path: bytes
    why: str


@dataclass(slots=True)
class Scan:
    """The entries of a directory, parents before children, and their totals.

    files: everything but directories; size: bytes of content, each hard-linked file once; linked: bytes that its
    further names show; allocated: bytes on a disk with 4 KiB blocks; latency: mean seconds of one metadata call
    followed, followed_bytes: files that were put in place of links that lead out, and their content
    altered: entries that do not come as they stand in the source: followed, without setuid, links that change
    longest, longest_name: bytes of the longest path and name; clash: a path that differs from another only in case
    archive: the identity of the source when that is an archive, else 0; listings: its directories as they were listed
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
        """How many threads should read this source: as many as can wait while one of them computes."""
        return max(FEW, min(MANY, round(self.latency / BUSY)))

    def batches(self) -> Iterator[list[Entry]]:
        """The entries, a list of at most 256 at a time, in the order they were found."""
        self._spool.seek(0)
        while header := self._spool.read(SPOOL_HEADER):
            batch = self._spool.read(int.from_bytes(header, "little"))
            yield [Entry(*facts) for facts in marshal.loads(batch)]  # noqa: S302 - our own file, which never had a name

    def add(self, found: Iterable[Entry]) -> None:
        """Count and spool some entries, which come behind all that were added before."""
        found = list(found)
        for entry in found:
            if entry.is_directory:
                self.directories += 1
            else:
                self.files += 1
                self.linked += entry.size if entry.link else 0
                self.size += 0 if entry.link else entry.size
            if not entry.link:
                self.allocated += max(1, -(-entry.size // BLOCK)) * BLOCK
            if len(entry.path) > self.longest:
                self.longest = len(entry.path)
            name = len(entry.path) - 1 - entry.path.rfind(b"/")
            if name > self.longest_name:
                self.longest_name = name
        batch = marshal.dumps([tuple(entry) for entry in found])
        self._spool.write(len(batch).to_bytes(SPOOL_HEADER, "little") + batch)

    def add_all(self, scans: Iterable[Scan]) -> None:
        """Add the entries of other scans, which come along with this one's and are closed."""
        for other in scans:
            for batch in other.batches():
                self.add(batch)
            self.listings.update(other.listings)
            other.close()

    def close(self) -> None:
        """Forget the entries; the totals stay."""
        self._spool.close()


def scan(
    root: bytes,
    *,
    exclude: tuple[str, ...] = (),
    boundary: LinkPolicy | None = None,
    skip_unreadable: bool = False,
    cancel: CancelToken | None = None,
) -> Scan:
    """Walk `root` with as many threads as pay and return its Scan.

    boundary: which links lead out of the tree and are replaced by what they lead to; None carries every link as it is

    Raises SourceUnreadable, which names the first files and folders that cannot be read, SourceChanged, or Cancelled.
    """
    return _ParallelScan(root, exclude, boundary, cancel or CancelToken(), skip_unreadable=skip_unreadable).walk()


class _Task(NamedTuple):
    """A folder to look at: its path in the tree, where it stands, what of it (None for all of it), and below what.

    trail: the real directories that links were followed to on the way here
    """

    folder: bytes
    where: bytes
    listed: list[os.DirEntry[bytes]] | None = None
    trail: tuple[bytes, ...] = ()


class _ParallelScan:
    """The shared state of the threads of one scan."""

    def __init__(
        self,
        root: bytes,
        exclude: tuple[str, ...],
        boundary: LinkPolicy | None,
        cancel: CancelToken,
        *,
        skip_unreadable: bool,
    ) -> None:
        self.result = Scan(root)
        self.root = root
        self.excluded = ExcludeFilter(exclude)
        self.boundary = boundary
        self.follow = LinkFollower(root, boundary, self.excluded, self.result.notices)
        self.skip_unreadable = skip_unreadable
        self.cancel = cancel
        self.lock = threading.Condition()
        self.tasks: list[_Task] = [_Task(b"", root)]
        self.busy = 0
        self.threads: list[BackgroundThread[None]] = []
        self.failure: BaseException | None = None
        self.inodes: dict[tuple[int, int], bytes] = {}
        self.calls, self.seconds = 0, 0.0

    def walk(self) -> Scan:
        self._grow(FEW)
        with self.lock:
            while (self.tasks or self.busy) and self.failure is None and not self.cancel.is_cancelled:
                self.lock.wait(0.1)
            interrupted = self.cancel.is_cancelled
            if interrupted and self.failure is None:
                self.failure = OSError(errno.EINTR, "stopped")
            self.lock.notify_all()
        for thread in self.threads:
            thread.join()
        if interrupted:
            raise Cancelled
        self._judge()
        self.result.latency = self.seconds / max(1, self.calls)
        return self.result

    def _judge(self) -> None:
        """Raise what stands in the way of a copy of all that was found."""
        hint = "are you allowed to read it?"
        if self.failure is not None and not isinstance(self.failure, OSError):
            raise self.failure
        if self.failure is not None:
            where = printable_path(os.fsencode(self.failure.filename or self.root))
            if isinstance(self.failure, FileNotFoundError) and os.path.isdir(self.root):
                again = "run it again when nothing writes there"
                raise SourceChanged(f"'{where}' went away while it was counted", hint=again)
            if self.failure.errno == errno.ENAMETOOLONG:
                raise SourceUnreadable(
                    f"the source has a path that is too long to be opened: '{shorten(where)}'",
                    hint="leave it out with --exclude",
                )
            raise SourceUnreadable(f"cannot read '{where}': {self.failure.strerror}", hint=hint)
        count = self.result.notices.counts.get("unreadable", 0)
        if count and not self.skip_unreadable:
            names = [
                f"'{printable_path(os.path.join(self.root, path))}'" for path in self.result.notices.paths["unreadable"]
            ]
            more = f" and {count - MAX_KEPT:,} more" if count > MAX_KEPT else ""
            raise SourceUnreadable(
                f"cannot read {', '.join(names)}{more}: Permission denied",
                hint=f"{hint} --skip-unreadable goes on without",
            )

    def _grow(self, count: int) -> None:
        while len(self.threads) < count:
            self.threads.append(BackgroundThread(self._work, self._fail))

    def _work(self) -> None:
        while (task := self._take()) is not None:
            self._do(task)
            with self.lock:
                self.busy -= 1
                self.lock.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self.lock:
            self.failure = self.failure or error
            self.lock.notify_all()

    def _take(self) -> _Task | None:
        with self.lock:
            while not self.tasks:
                if not self.busy or self.failure is not None:
                    return None
                self.lock.wait()
            if self.failure is not None:
                return None
            self.busy += 1
            return self.tasks.pop()

    def _do(self, task: _Task) -> None:
        listed = task.listed
        if listed is None:
            self.result.listings.begin(task.where, task.folder, self.excluded)
            with os.scandir(task.where) as found:
                listed = list(found)
            self._look_for_clash(task.folder, listed)
        if len(listed) > BATCH:  # others can look at the rest of a large folder meanwhile
            rest = [task._replace(listed=listed[i : i + BATCH]) for i in range(BATCH, len(listed), BATCH)]
            listed = listed[:BATCH]
            with self.lock:
                self.tasks.extend(rest)
                self.lock.notify_all()
        above = task.folder and task.folder + b"/"
        foreign = task.where if task.trail else b""
        started = time.perf_counter()
        seen = [ScannedItem(above + entry.name, entry.stat(follow_symlinks=False)) for entry in listed]
        listing = self.result.listings.of(task.where, task.folder)
        if listing is not None:
            content = listing.content_of((entry.name, found.status) for entry, found in zip(listed, seen, strict=True))
            with self.lock:
                listing.content += content
        if foreign:
            seen = [
                found._replace(origin=os.path.join(foreign, entry.name), trail=task.trail)
                for found, entry in zip(seen, listed, strict=True)
            ]
        elapsed = time.perf_counter() - started
        self._keep(
            [self.follow.link(found, task.where) if stat.S_ISLNK(found.status.st_mode) else found for found in seen],
            elapsed,
        )

    def _look_for_clash(self, folder: bytes, listed: list[os.DirEntry[bytes]]) -> None:
        plain = [entry.name for entry in listed]
        if len({name.lower() for name in plain}) == len(plain) and b"".join(plain).isascii():
            return
        names: set[bytes] = set()
        for entry in listed:
            name, path = casefold_name(entry.name), os.path.join(folder, entry.name)
            if self.excluded.matches(path):
                continue
            if name in names and not self.result.clash:
                self.result.clash = path
            names.add(name)

    def _keep(self, seen: list[ScannedItem], elapsed: float) -> None:
        with self.lock:
            self.calls += len(seen)
            self.seconds += elapsed
            kept = [(found, entry) for found in seen if (entry := self._entry(found)) is not None]
            if kept:
                self.result.add(entry for _, entry in kept)
                self.result.altered += sum(self._is_altered(found, entry) for found, entry in kept)
            for found, entry in kept:
                if entry.is_directory:
                    self.tasks.append(
                        _Task(entry.path, found.origin or os.path.join(self.root, entry.path), trail=found.trail)
                    )
            self.lock.notify_all()
            if self.tasks and self.seconds > SLOW * self.calls:
                self._grow(min(MANY, len(self.threads) + len(self.tasks)))

    def _is_altered(self, found: ScannedItem, entry: Entry) -> bool:
        whole = self.boundary is not None and entry.target.startswith(b"/") and self.boundary.holds(entry.target)
        return entry.is_foreign or entry.mode != found.status.st_mode or whole

    def _entry(self, found: ScannedItem) -> Entry | None:
        path, status = found.path, found.status
        why = self._left_out(found)
        if why:
            self.result.left_out.append(LeftOut(path, why))
            if why in ("special-file", "unreadable"):
                self.result.notices.note(why, path)
            return None
        mode = status.st_mode
        if not stat.S_ISREG(mode):
            link = self._first_name(found)
            identity = 0 if stat.S_ISDIR(mode) else identity_of(status)
            return Entry(path, mode, status.st_mtime_ns, 0, found.target, link, found.origin, found.content, identity)
        if mode & SET_ID:
            self.result.notices.note("setuid", path)
            mode &= ~SET_ID
        mode &= ~stat.S_ISVTX  # which means nothing on a file
        if found.origin:
            self.result.followed += 1
            self.result.followed_bytes += status.st_size
        link, identity = self._first_name(found), identity_of(status)
        return Entry(path, mode, status.st_mtime_ns, status.st_size, b"", link, found.origin, None, identity)

    def _first_name(self, found: ScannedItem) -> bytes:
        status = found.status
        if status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
            return b""
        first = self.inodes.setdefault((status.st_dev, status.st_ino), found.path)
        return first if first != found.path else b""

    def _left_out(self, found: ScannedItem) -> str:
        """Why this is not carried, or nothing."""
        if found.path in OWN_FILES:
            return "ours"
        if self.excluded.matches(found.path):
            return "excluded"
        if stat.S_IFMT(found.status.st_mode) not in CARRIED:
            return "special-file"
        if found.barred or not (readable_by_mode(found.status) or self._opens(found)):
            return "unreadable"
        return ""

    def _opens(self, found: ScannedItem) -> bool:
        return readable(found.origin or os.path.join(self.root, found.path), found.status)


def entries_of(scanned: Scan) -> Iterator[Entry]:
    """All entries, one after the other."""
    return (entry for batch in scanned.batches() for entry in batch)
