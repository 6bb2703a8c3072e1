"""direct: many threads read the tree and write it to staging, relocated on the way, in one pass over the data."""

from __future__ import annotations

import contextlib
import os
import queue
import stat
import threading
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from ezpz.errors import SourceChanged, SourceUnreadable
from ezpz.process import Stopped
from ezpz.yeet.copy.base import changed, local_failure, open_source

if TYPE_CHECKING:
    from ezpz.yeet.copy.base import Job
    from ezpz.yeet.entry import Entry

WHOLE = 1 << 20  # bytes; a smaller file is read with one call
PIECE = 8 << 20  # bytes asked of sendfile(2) at once
BATCH_FILES, BATCH_BYTES = 64, 32 << 20
QUEUED = 64  # batches that may wait for a thread

Batch: TypeAlias = "list[Entry]"


class Direct:
    """Reads with as many threads as the source's filesystem deserves; see `Scan.threads`."""

    name: ClassVar[str] = "direct"
    reads_archives: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ()

    def fill(self, job: Job) -> None:
        _Fill(job).run()


class _Fill:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.batches: queue.Queue[Batch | None] = queue.Queue(QUEUED)
        self.failed = threading.Event()
        self.failure: Exception | None = None
        self.directories: list[Entry] = []
        self.links: list[Entry] = []
        self.strange: set[bytes] = set()  # folders that were none in the previous version
        self.lent: set[int] = set()  # inodes of the previous version that stand in the new one
        self.lending = threading.Lock()

    def run(self) -> None:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.job.scan.threads)]
        for thread in threads:
            thread.start()
        try:
            self._hand_out()
        except OSError as e:
            self.failure = e
            self.failed.set()
        finally:
            for _ in threads:
                self.batches.put(None)
            for thread in threads:
                thread.join()
        self._check()
        self._finish()

    def _hand_out(self) -> None:
        """Make directories in the order they come, parents first, and queue everything else."""
        batch: Batch = []
        size = 0
        for entry in (entry for entries in self.job.scan.batches() for entry in entries):
            if entry.is_directory:
                self._make_folder(entry)
            elif entry.link and self._relocates(entry.path, entry) == self._relocates(entry.link, entry):
                self.links.append(entry)
            else:  # a further name of which only one is relocated becomes a file of its own
                batch.append(entry._replace(link=b""))
                size += entry.size
            if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
                if self.failed.is_set() or self.job.stop.is_set():
                    return
                self.batches.put(batch)
                batch, size = [], 0
        self.batches.put(batch)

    def _make_folder(self, entry: Entry) -> None:
        os.mkdir(self._to(entry.path), 0o700)
        self.directories.append(entry)
        if self.job.previous is None:
            return
        was = os.path.join(self.job.previous, entry.path)
        if os.path.dirname(entry.path) in self.strange or os.path.islink(was) or not os.path.isdir(was):
            self.strange.add(entry.path)

    def _relocates(self, path: bytes, entry: Entry) -> bool:
        return self.job.relocation.wants(path, entry.size)

    def _work(self) -> None:
        while (batch := self.batches.get()) is not None:
            if self.failed.is_set() or self.job.stop.is_set():
                continue  # empty the queue, so that whoever fills it is never blocked
            try:
                self.job.moved(sum(map(self._write, batch)))
            except (OSError, SourceChanged, SourceUnreadable, Stopped) as e:
                self.failure = self.failure or e
                self.failed.set()

    def _write(self, entry: Entry) -> int:
        """Write one file or symbolic link and return the bytes of content that had to be read."""
        if entry.is_symlink:
            self._write_link(entry)
            return 0
        relocated = self._relocates(entry.path, entry)
        if not relocated and self._link_previous(entry):
            return 0
        source = open_source(self.job.root, entry.path)
        try:
            sink = os.open(self._to(entry.path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                self._copy(source, sink, entry, relocated=relocated)
                os.fchmod(sink, entry.permissions)
                os.utime(sink, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(sink)
        finally:
            os.close(source)
        return entry.size

    def _copy(self, source: int, sink: int, entry: Entry, *, relocated: bool) -> None:
        if entry.size <= WHOLE:
            data = _read(source, entry.size)
            read = len(data)
            _write_all(sink, self.job.relocation.content(data) if relocated else data)
        else:
            read = 0
            while sent := os.sendfile(sink, source, read, PIECE):
                read += sent
                if self.job.stop.is_set():
                    raise Stopped
        if read != entry.size:
            raise changed(entry.path)

    def _link_previous(self, entry: Entry) -> bool:
        """Take an unchanged file (same size, time and mode) from the version in place, if there is one."""
        if self.job.previous is None or os.path.dirname(entry.path) in self.strange:
            return False
        path = os.path.join(self.job.previous, entry.path)
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            facts = (status.st_size, status.st_mtime_ns, status.st_mode)
            if (
                stat.S_ISREG(status.st_mode)
                and facts == (entry.size, entry.mtime_ns, entry.mode)
                and self._lend(status)
            ):
                os.link(path, self._to(entry.path), follow_symlinks=False)
                return True
        return False

    def _lend(self, status: os.stat_result) -> bool:
        """Whether an inode may be used again: once, so that names which are no longer linked do not stay so."""
        with self.lending:
            if status.st_ino in self.lent:
                return False
            self.lent.add(status.st_ino)
            return True

    def _write_link(self, entry: Entry) -> None:
        os.symlink(self.job.relocation.link(entry.path, entry.target), self._to(entry.path))
        os.utime(self._to(entry.path), ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def _finish(self) -> None:
        """Hard links, then the modes and times of directories, children first."""
        try:
            for entry in self.links:
                os.link(self._to(entry.link), self._to(entry.path), follow_symlinks=False)
            self.job.finish_folders(self.directories)
        except OSError as e:
            raise local_failure(e) from e

    def _check(self) -> None:
        if self.job.stop.is_set():
            raise Stopped
        if isinstance(self.failure, OSError):
            raise local_failure(self.failure) from self.failure
        if self.failure is not None:
            raise self.failure

    def _to(self, path: bytes) -> bytes:
        return os.path.join(self.job.staging, path)


def _read(fd: int, size: int) -> bytes:
    """The whole of a small file, and one byte more if it has grown."""
    data = os.read(fd, size + 1)
    while len(data) < size and (more := os.read(fd, size + 1 - len(data))):
        data += more
    return data


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
