"""Scan a directory in one parallel pass.

A shared filesystem answers slowly but in parallel, so threads are added for as long as it is slow. A filesystem that
answers from memory gets few threads: more of them would only wait for each other's interpreter lock.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.agent.common.layout import OWN_FILES
from ezpz.agent.common.text import printable_path
from ezpz.errors import SourceChanged, SourceUnreadable
from ezpz.runtime.text import shorten
from ezpz.runtime.threads import BackgroundThread
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.model.warnings import MAX_KEPT
from ezpz.yeet.source.errors import source_unreadable
from ezpz.yeet.source.exclude import ExcludeFilter, casefold_name
from ezpz.yeet.source.identity import COPIED_TYPES, identity_of
from ezpz.yeet.source.link_policy import LinkFollower, ScannedItem
from ezpz.yeet.source.permissions import is_readable, is_readable_by_mode
from ezpz.yeet.source.scan import MAX_THREADS, MIN_THREADS, LeftOut, Scan

if TYPE_CHECKING:
    from ezpz.yeet.source.link_policy import LinkPolicy

BATCH_SIZE = 256  # entries that one thread takes at a time
SLOW_CALL = 100e-6  # seconds for one metadata call: a filesystem that answers over a network
SET_ID = stat.S_ISUID | stat.S_ISGID


def scan_directory(
    root: bytes,
    *,
    exclude: tuple[str, ...] = (),
    link_policy: LinkPolicy | None = None,
    skip_unreadable: bool = False,
    cancel: CancelToken | None = None,
) -> Scan:
    """Scan the tree at `root` with as many threads as its filesystem deserves.

    Args:
        root: Path of the directory.
        exclude: Patterns of paths to leave out, see ExcludeFilter.
        link_policy: Decides which links are replaced by what they point to. None keeps every link.
        skip_unreadable: Leave out what cannot be read, with a warning, instead of raising.
        cancel: Stops the scan when it is set.

    Raises:
        SourceUnreadable: Files or directories cannot be read. The first ones are named.
        SourceChanged: Something disappeared during the scan.
        `Cancelled`: The token was set.
    """
    token = cancel or CancelToken()
    return _ParallelScan(root, exclude, link_policy, token, skip_unreadable=skip_unreadable).run()


class _Task(NamedTuple):
    """A directory to read.

    Attributes:
        path: Path in the tree.
        location: Path on disk.
        entries: The part of its entries to process. None if it must be listed first.
        trail: The real directories that links were followed to on the way here.
    """

    path: bytes
    location: bytes
    entries: list[os.DirEntry[bytes]] | None = None
    trail: tuple[bytes, ...] = ()


class _ParallelScan:
    """The shared state of the threads of one scan."""

    def __init__(
        self,
        root: bytes,
        exclude: tuple[str, ...],
        link_policy: LinkPolicy | None,
        cancel: CancelToken,
        *,
        skip_unreadable: bool,
    ) -> None:
        self.result = Scan(root)
        self.root = root
        self.excluded = ExcludeFilter(exclude)
        self.link_policy = link_policy
        self.follower = LinkFollower(root, link_policy, self.excluded, self.result.notices)
        self.skip_unreadable = skip_unreadable
        self.cancel = cancel
        self.lock = threading.Condition()
        self.tasks: list[_Task] = [_Task(b"", root)]
        self.busy = 0
        self.threads: list[BackgroundThread[None]] = []
        self.failure: BaseException | None = None
        self.inodes: dict[tuple[int, int], bytes] = {}
        self.calls, self.seconds = 0, 0.0

    def run(self) -> Scan:
        self._start_threads(MIN_THREADS)
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
        if self.failure is not None:
            self._raise_failure(self.failure)
        self._raise_unreadable()
        self.result.latency = self.seconds / max(1, self.calls)
        return self.result

    def _raise_failure(self, failure: BaseException) -> None:
        """Raise the error that explains why a thread failed."""
        if not isinstance(failure, OSError):
            raise failure
        path = os.fsencode(failure.filename or self.root)
        if isinstance(failure, FileNotFoundError) and os.path.isdir(self.root):
            raise SourceChanged(
                f"'{printable_path(path)}' went away while it was counted",
                hint="run it again when nothing writes there",
            )
        if failure.errno == errno.ENAMETOOLONG:
            raise SourceUnreadable(
                f"the source has a path that is too long to be opened: '{shorten(printable_path(path))}'",
                hint="leave it out with --exclude",
            )
        raise source_unreadable(path, failure)

    def _raise_unreadable(self) -> None:
        """Raise SourceUnreadable if files could not be read, unless the user chose to skip them."""
        count = self.result.notices.counts.get("unreadable", 0)
        if not count or self.skip_unreadable:
            return
        paths = self.result.notices.paths["unreadable"]
        names = [f"'{printable_path(os.path.join(self.root, path))}'" for path in paths]
        more = f" and {count - MAX_KEPT:,} more" if count > MAX_KEPT else ""
        raise SourceUnreadable(
            f"cannot read {', '.join(names)}{more}: Permission denied",
            hint="are you allowed to read it? --skip-unreadable goes on without",
        )

    def _start_threads(self, count: int) -> None:
        """Start threads until there are `count`."""
        while len(self.threads) < count:
            self.threads.append(BackgroundThread(self._work, self._record_failure))

    def _work(self) -> None:
        while (task := self._next_task()) is not None:
            self._process(task)
            with self.lock:
                self.busy -= 1
                self.lock.notify_all()

    def _record_failure(self, error: BaseException) -> None:
        with self.lock:
            self.failure = self.failure or error
            self.lock.notify_all()

    def _next_task(self) -> _Task | None:
        """Wait for a task and return it, or None at the end of the scan."""
        with self.lock:
            while not self.tasks:
                if not self.busy or self.failure is not None:
                    return None
                self.lock.wait()
            if self.failure is not None:
                return None
            self.busy += 1
            return self.tasks.pop()

    def _process(self, task: _Task) -> None:
        """Read the status of the entries of a directory, and record them."""
        entries = self._list(task) if task.entries is None else task.entries
        if len(entries) > BATCH_SIZE:  # other threads can process the rest of a large directory
            starts = range(BATCH_SIZE, len(entries), BATCH_SIZE)
            with self.lock:
                self.tasks.extend(task._replace(entries=entries[start : start + BATCH_SIZE]) for start in starts)
                self.lock.notify_all()
            entries = entries[:BATCH_SIZE]
        above = task.path and task.path + b"/"
        started = time.perf_counter()
        items = [ScannedItem(above + entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        elapsed = time.perf_counter() - started  # of the calls of the filesystem alone
        listing = self.result.listings.get(task.location, task.path)
        if listing is not None:
            content = listing.digest_of((entry.name, item.status) for entry, item in zip(entries, items, strict=True))
            with self.lock:
                listing.content += content
        if task.trail:
            items = [
                item._replace(origin=os.path.join(task.location, entry.name), trail=task.trail)
                for item, entry in zip(items, entries, strict=True)
            ]
        followed = [
            self.follower.follow(item, task.location) if stat.S_ISLNK(item.status.st_mode) else item for item in items
        ]
        self._record(followed, elapsed)

    def _list(self, task: _Task) -> list[os.DirEntry[bytes]]:
        """List a directory. Raises OSError."""
        self.result.listings.add(task.location, task.path, self.excluded)
        with os.scandir(task.location) as found:
            entries = list(found)
        self._find_clash(task.path, entries)
        return entries

    def _find_clash(self, directory: bytes, entries: list[os.DirEntry[bytes]]) -> None:
        """Record the first name that differs from another one only in case."""
        plain = [entry.name for entry in entries]
        if len({name.lower() for name in plain}) == len(plain) and b"".join(plain).isascii():
            return
        names: set[bytes] = set()
        for entry in entries:
            name, path = casefold_name(entry.name), os.path.join(directory, entry.name)
            if self.excluded.matches(path):
                continue
            if name in names and not self.result.clash:
                self.result.clash = path
            names.add(name)

    def _record(self, items: list[ScannedItem], elapsed: float) -> None:
        """Add items to the result, their directories to the tasks, and threads if the filesystem is slow."""
        with self.lock:
            self.calls += len(items)
            self.seconds += elapsed
            kept = [(item, entry) for item in items if (entry := self._to_entry(item)) is not None]
            if kept:
                self.result.add(entry for _, entry in kept)
                self.result.altered += sum(self._is_altered(item, entry) for item, entry in kept)
            for item, entry in kept:
                if entry.is_directory:
                    location = item.origin or os.path.join(self.root, entry.path)
                    self.tasks.append(_Task(entry.path, location, trail=item.trail))
            self.lock.notify_all()
            if self.tasks and self.seconds > SLOW_CALL * self.calls:
                self._start_threads(min(MAX_THREADS, len(self.threads) + len(self.tasks)))

    def _is_altered(self, item: ScannedItem, entry: Entry) -> bool:
        """Return whether an entry differs from the source, or is a link that relocation changes."""
        policy = self.link_policy
        is_own_link = policy is not None and entry.target.startswith(b"/") and policy.holds(entry.target)
        return entry.is_foreign or entry.mode != item.status.st_mode or is_own_link

    def _to_entry(self, item: ScannedItem) -> Entry | None:
        """Return the entry of an item, or None if it is left out."""
        path, status = item.path, item.status
        reason = self._reason_to_skip(item)
        if reason:
            self.result.left_out.append(LeftOut(path, reason))
            if reason in ("special-file", "unreadable"):
                self.result.notices.add(reason, path)
            return None
        mode = status.st_mode
        link = self._first_name(item)
        if not stat.S_ISREG(mode):
            identity = 0 if stat.S_ISDIR(mode) else identity_of(status)
            return Entry(path, mode, status.st_mtime_ns, 0, item.target, link, item.origin, item.content, identity)
        if mode & SET_ID:
            self.result.notices.add("setuid", path)
            mode &= ~SET_ID
        mode &= ~stat.S_ISVTX  # it has no meaning on a file
        if item.origin:
            self.result.followed += 1
            self.result.followed_bytes += status.st_size
        return Entry(path, mode, status.st_mtime_ns, status.st_size, b"", link, item.origin, None, identity_of(status))

    def _first_name(self, item: ScannedItem) -> bytes:
        """Return the path under which a hard-linked file was found first, or b"" if this is the first one."""
        status = item.status
        if status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
            return b""
        first = self.inodes.setdefault((status.st_dev, status.st_ino), item.path)
        return first if first != item.path else b""

    def _reason_to_skip(self, item: ScannedItem) -> str:
        """Return why an item is not copied, see LeftOut, or "" if it is copied."""
        if item.path in OWN_FILES:
            return "ours"
        if self.excluded.matches(item.path):
            return "excluded"
        if stat.S_IFMT(item.status.st_mode) not in COPIED_TYPES:
            return "special-file"
        if item.barred or not (is_readable_by_mode(item.status) or self._is_readable(item)):
            return "unreadable"
        return ""

    def _is_readable(self, item: ScannedItem) -> bool:
        return is_readable(item.origin or os.path.join(self.root, item.path), item.status)
