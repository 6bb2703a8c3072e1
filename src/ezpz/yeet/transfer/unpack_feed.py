"""Trail: what an archive is unpacked to is fed meanwhile, and when all is there, what has become of it since.

A node so gets most of an archive before it is known what has to be relocated; what was changed is sent once more.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from typing import TYPE_CHECKING

from ezpz.agent.common import tree
from ezpz.runtime.threads import WorkerPool
from ezpz.yeet.model.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.transfer.entry_tee import EntryTee

THREADS = 2
WAITING = 8  # batches that may wait to be packed
BATCH_FILES, BATCH_BYTES = 64, 1 << 20  # files, or blocks of one, in a batch
UNPACKED = 0o700  # of a folder that is still being filled


class UnpackFeed:
    """Feeds what is unpacked to `root`, which is told of every entry; call `unpacked` always, then `settle`.

    A further name of a file, and what takes the place of an earlier member, wait for `settle`: they are few.
    """

    def __init__(self, feed: EntryTee, root: bytes, cancel: CancelToken) -> None:
        self.feed = feed
        self.root = root
        self.cancel = cancel
        self.late: set[bytes] = set()
        self._gathered: list[Callable[[], None]] = []
        self._size = 0
        self.since = 0  # ns: what has been changed later was not fed as it is
        self._pool = self._new_pool()

    def folder(self, path: bytes) -> None:
        """A folder was made."""
        self.feed.folder(path, UNPACKED, 0)

    def file(self, entry: Entry, data: bytes) -> None:
        """A file that holds `data`, at most a block."""
        if entry.path not in self.late:
            self._gather(lambda: self.feed.file(entry, data), len(data))

    def block(self, entry: Entry, offset: int, data: bytes) -> None:
        """A block of a large file; see `Intake.block`."""
        if entry.path not in self.late:
            self._gather(lambda: self.feed.block(entry, offset, data), len(data))

    def symlink(self, entry: Entry) -> None:
        if entry.path not in self.late:
            self.feed.symlink(entry)

    def wait(self, path: bytes) -> None:
        """What stands there is a further name, or is about to be replaced: leave it to `settle`."""
        self.late.add(path)

    def moved_into(self, folder: bytes) -> None:
        """All that stood in the root stands in this folder of it now: what was fed was fed under wrong names."""
        self._finish()
        self.feed.barrier()
        found = list(tree.walk(os.path.join(self.root, folder)))
        for path, _ in reversed(found):  # files before the folders that they are in
            self.feed.remove(path)
        self.late = {os.path.join(folder, path) for path in self.late}
        self._pool = self._new_pool()
        self.feed.barrier()
        for path, status in tree.walk(self.root):
            if stat.S_ISDIR(status.st_mode):
                self.folder(path)
            elif path not in self.late:
                self._feed(path, status)

    def unpacked(self) -> None:
        """All of it is there, or something went wrong. Raises what did, or Cancelled."""
        self._finish()
        self.since = _later(self.root + b".mark")

    def settle(self, dropped: Iterable[bytes]) -> None:
        """Feed what was changed, added or left for now, and take back what was dropped. Raises OSError."""
        self.feed.barrier()
        for path in dropped:
            self.feed.remove(path)
        groups: defaultdict[int, list[bytes]] = defaultdict(list)
        for path, status in tree.walk(self.root):
            if stat.S_ISDIR(status.st_mode):
                self.feed.folder(path, status.st_mode, status.st_mtime_ns)
            elif status.st_nlink > 1:
                groups[status.st_ino].append(path)
            elif status.st_ctime_ns > self.since or path in self.late:
                self._feed_anew(path, status)
        for names in groups.values():
            self._settle_names(names)
        top = os.lstat(self.root)
        self.feed.folder(b"", top.st_mode, top.st_mtime_ns)

    def _settle_names(self, names: list[bytes]) -> None:
        """Feed a file, or link, of several names: one of them as it is, the others as further ones."""
        first = next((name for name in names if name not in self.late), names[0])
        status = os.lstat(os.path.join(self.root, first))
        if status.st_ctime_ns > self.since or first in self.late:
            self._feed_anew(first, status)
        for name in names:
            if name != first:
                self.feed.remove(name)
                self.feed.further(name, first)

    def _feed_anew(self, path: bytes, status: os.stat_result) -> None:
        self.feed.remove(path)
        self._feed(path, status)

    def _feed(self, path: bytes, status: os.stat_result) -> None:
        """Feed a file or link as it stands."""
        full = os.path.join(self.root, path)
        if stat.S_ISLNK(status.st_mode):
            self.feed.symlink(Entry(path, status.st_mode, status.st_mtime_ns, 0, os.readlink(full)))
            return
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self.feed.open_file(Entry(path, status.st_mode, status.st_mtime_ns, status.st_size), fd)
        finally:
            os.close(fd)

    def _gather(self, task: Callable[[], None], size: int) -> None:
        """Hand on what there is to do, much at once: threads that change with each small file get nothing done."""
        self._gathered.append(task)
        self._size += size
        if len(self._gathered) >= BATCH_FILES or self._size >= BATCH_BYTES:
            self._hand_on()

    def _hand_on(self) -> None:
        self._pool.submit(self._gathered)
        self._gathered, self._size = [], 0

    def _finish(self) -> None:
        """Wait until all that was gathered is fed. Raises what went wrong, or Cancelled."""
        try:
            self._hand_on()
        finally:
            self._pool.join()

    def _new_pool(self) -> WorkerPool[list[Callable[[], None]]]:
        self._gathered, self._size = [], 0
        return WorkerPool(THREADS, WAITING, _do_all, self.cancel)


def _do_all(tasks: list[Callable[[], None]]) -> None:
    for task in tasks:
        task()


def _later(path: bytes) -> int:
    """The filesystem's time, in ns, once whatever is changed from now on has a later one; makes a file there, and goes.

    Filesystems tell times no finer than the kernel's tick, a few ms.
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
