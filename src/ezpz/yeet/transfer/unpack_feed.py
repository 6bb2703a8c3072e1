"""Pass the content of an archive to the nodes while it is unpacked, and what changes afterwards.

Nodes so receive most of an archive before it is known what has to be relocated. A changed file is sent again.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from typing import TYPE_CHECKING

from ezpz.agent.common import tree_version
from ezpz.runtime.threads import WorkerPool
from ezpz.yeet.model.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.transfer.entry_tee import EntryTee

THREADS = 2
QUEUED = 8  # batches that may wait for a thread
BATCH_FILES, BATCH_BYTES = 64, 1 << 20  # files, or blocks of one, in a batch
UNPACKED = 0o700  # the mode of a directory that is still being filled


class UnpackFeed:
    """Passes what is unpacked to a directory. Call `unpacked` in any case, then `feed_changes`.

    Hard links, and members that replace an earlier member, are few. They are deferred until `feed_changes`.

    Args:
        tee: Where entries go.
        root: The directory to which the archive is unpacked.
        cancel: Is canceled when the run is interrupted.
    """

    def __init__(self, tee: EntryTee, root: bytes, cancel: CancelToken) -> None:
        self.tee = tee
        self.root = root
        self.cancel = cancel
        self.deferred: set[bytes] = set()
        self._gathered: list[Callable[[], None]] = []
        self._size = 0
        self.unpacked_at = 0  # ns; what changed later was passed in an older state
        self._pool = self._new_pool()

    def directory(self, path: bytes) -> None:
        """Pass a directory that was created."""
        self.tee.directory(path, UNPACKED, 0)

    def file(self, entry: Entry, data: bytes) -> None:
        """Pass a file that holds `data`, at most a block."""
        if entry.path not in self.deferred:
            self._gather(lambda: self.tee.file(entry, data), len(data))

    def block(self, entry: Entry, offset: int, data: bytes) -> None:
        """Pass a block of a large file, see `EntryTee.block`."""
        if entry.path not in self.deferred:
            self._gather(lambda: self.tee.block(entry, offset, data), len(data))

    def symlink(self, entry: Entry) -> None:
        """Pass a symbolic link."""
        if entry.path not in self.deferred:
            self.tee.symlink(entry)

    def defer(self, path: bytes) -> None:
        """Leave a path to `feed_changes`: it is a hard link, or is about to be replaced."""
        self.deferred.add(path)

    def defer_if_present(self, entry: Entry) -> None:
        """Leave a large file to `feed_changes` if nodes may have it: its digest is known only then."""
        if self.tee.may_have(entry.size):
            self.defer(entry.path)

    def moved_into(self, directory: bytes) -> None:
        """Pass everything again: all content of the root was moved to a directory in it."""
        self._finish()
        self.tee.barrier()
        found = list(tree_version.walk(os.path.join(self.root, directory)))
        for path, _ in reversed(found):  # files before their directories
            self.tee.remove(path)
        self.deferred = {os.path.join(directory, path) for path in self.deferred}
        self._pool = self._new_pool()
        self.tee.barrier()
        for path, status in tree_version.walk(self.root):
            if stat.S_ISDIR(status.st_mode):
                self.directory(path)
            elif path not in self.deferred:
                self._feed(path, status)

    def unpacked(self) -> None:
        """Wait until everything is passed, after success or failure. Raise what a thread raised or `Cancelled`."""
        self._finish()
        self.unpacked_at = _wait_for_tick(self.root + b".mark")

    def feed_changes(self, dropped: Iterable[bytes]) -> None:
        """Pass what was changed, added or deferred, and remove what was dropped. Raise OSError."""
        self.tee.barrier()
        for path in dropped:
            self.tee.remove(path)
        groups: defaultdict[int, list[bytes]] = defaultdict(list)
        for path, status in tree_version.walk(self.root):
            if stat.S_ISDIR(status.st_mode):
                self.tee.directory(path, status.st_mode, status.st_mtime_ns)
            elif status.st_nlink > 1:
                groups[status.st_ino].append(path)
            elif status.st_ctime_ns > self.unpacked_at or path in self.deferred:
                self._feed_again(path, status)
        for names in groups.values():
            self._feed_names(names)
        top = os.lstat(self.root)
        self.tee.directory(b"", top.st_mode, top.st_mtime_ns)

    def _feed_names(self, names: list[bytes]) -> None:
        """Pass a file or symbolic link that has several names: one as it is, the others as hard links."""
        first = next((name for name in names if name not in self.deferred), names[0])
        status = os.lstat(os.path.join(self.root, first))
        if status.st_ctime_ns > self.unpacked_at or first in self.deferred:
            self._feed_again(first, status)
        for name in names:
            if name != first:
                self.tee.remove(name)
                self.tee.hard_link(name, first)

    def _feed_again(self, path: bytes, status: os.stat_result) -> None:
        self.tee.remove(path)
        self._feed(path, status)

    def _feed(self, path: bytes, status: os.stat_result) -> None:
        """Pass a file or symbolic link as it is on this host."""
        full = os.path.join(self.root, path)
        if stat.S_ISLNK(status.st_mode):
            self.tee.symlink(Entry(path, status.st_mode, status.st_mtime_ns, 0, os.readlink(full)))
            return
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self.tee.open_file(Entry(path, status.st_mode, status.st_mtime_ns, status.st_size), fd)
        finally:
            os.close(fd)

    def _gather(self, task: Callable[[], None], size: int) -> None:
        """Collect tasks into batches: threads that switch with each small file are slow."""
        self._gathered.append(task)
        self._size += size
        if len(self._gathered) >= BATCH_FILES or self._size >= BATCH_BYTES:
            self._submit()

    def _submit(self) -> None:
        self._pool.submit(self._gathered)
        self._gathered, self._size = [], 0

    def _finish(self) -> None:
        """Wait until everything that was gathered is passed. Raise what a thread raised or `Cancelled`."""
        try:
            self._submit()
        finally:
            self._pool.join()

    def _new_pool(self) -> WorkerPool[list[Callable[[], None]]]:
        self._gathered, self._size = [], 0
        return WorkerPool(THREADS, QUEUED, _run_all, self.cancel)


def _run_all(tasks: list[Callable[[], None]]) -> None:
    for task in tasks:
        task()


def _wait_for_tick(path: bytes) -> int:
    """Return the time of the filesystem in ns. Every later change has a later time.

    The resolution of these times is the tick of the kernel, a few ms. A file is created at `path` and removed.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        now = os.fstat(fd).st_ctime_ns
        while os.fstat(fd).st_ctime_ns <= now:
            os.utime(fd)
        return now
    finally:
        os.close(fd)
        os.unlink(path)
