"""Fill: many threads read entries and write them to staging, relocated on the way, in one pass over the data."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from typing import TYPE_CHECKING, TypeAlias

from ezpz.runtime.threads import WorkerPool
from ezpz.yeet.relocate.bytecode.validity import HEADER_SIZE
from ezpz.yeet.relocate.large_file import MAX_WHOLE_FILE, LargeFileRewriter, data_ranges
from ezpz.yeet.source.changes import check_same_file
from ezpz.yeet.source.errors import local_failure, source_changed, source_unreadable
from ezpz.yeet.source.identity import identity_of
from ezpz.yeet.source.io import open_counted, read_whole, write_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.strategies.base import CopyJob

PIECE = 8 << 20  # bytes asked of sendfile(2) at once
BATCH_FILES, BATCH_BYTES = 64, 32 << 20
QUEUED = 64  # batches that may wait for a thread
NOWHERE = -1  # no descriptor
OF_EITHER = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO)  # may come from either side of a copy

Batch: TypeAlias = "list[Entry]"


class TreeCopier:
    """Writes entries of a job, parents first, with as many threads as the source deserves; see `Scan.threads`."""

    def __init__(self, job: CopyJob, entries: Iterable[Entry]) -> None:
        self.job = job
        self.entries = entries
        self.directories: list[Entry] = []
        self.links: list[Entry] = []
        self.targets: dict[bytes, bytes] = {}  # of symbolic links that are fed and not kept
        self.strange: set[bytes] = set()  # folders that were none in the previous version
        self.lent: set[int] = set()  # inodes of the previous version that stand in the new one
        self.lending = threading.Lock()

    def run(self) -> None:
        """Write them all; folders are left writable. Raises EzpzError, or Cancelled."""
        pool = WorkerPool(self.job.scan.threads, QUEUED, self._write_all, self.job.cancel)
        try:
            try:
                self._hand_out(pool)
            finally:
                pool.join()
            for entry in self.links:
                self._link(entry)
        except OSError as e:
            raise local_failure(e) from e

    def _hand_out(self, pool: WorkerPool[Batch]) -> None:
        """Make directories in the order they come, parents first, and hand on everything else."""
        batch: Batch = []
        size = 0
        for entry in map(self.job.ledger.relocate_entry, self.entries):
            if entry.is_directory:
                self._make_folder(entry)
            elif entry.link:
                self.links.append(entry)
            else:
                batch.append(entry)
                size += entry.size
            if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
                if pool.is_stopped:
                    return
                pool.submit(batch)
                batch, size = [], 0
        pool.submit(batch)

    def _make_folder(self, entry: Entry) -> None:
        if self.job.feed is not None:
            self.job.feed.folder(entry.path, entry.mode, entry.mtime_ns)
        if not self.job.kept:
            return
        os.mkdir(self._to(entry.path), 0o700)
        self.directories.append(entry)
        if self.job.known is None or self.job.known.root is None:
            return
        was = os.path.join(self.job.known.root, entry.path)
        if os.path.dirname(entry.path) in self.strange or os.path.islink(was) or not os.path.isdir(was):
            self.strange.add(entry.path)

    def _write_all(self, batch: Batch) -> None:
        self.job.moved(sum(map(self._write, batch)))

    def _write(self, entry: Entry) -> int:
        """Write one file or symbolic link and return the bytes of content that had to be read."""
        if entry.is_symlink:
            self._write_link(entry)
            return 0
        if self._recall(entry):
            return 0
        with self._sink(entry) as sink:
            if entry.content is not None:
                self._put(sink, entry, entry.content)
            else:
                self._copy(sink, entry)
            if self.job.kept:
                os.fchmod(sink, entry.permissions)
                os.utime(sink, ns=(entry.mtime_ns, entry.mtime_ns))
        return entry.size

    @contextlib.contextmanager
    def _sink(self, entry: Entry) -> Iterator[int]:
        """The file to write to, in staging; when it is only fed, a nameless one, or NOWHERE for what fits in memory."""
        if self.job.kept:
            sink = os.open(self._to(entry.path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                yield sink
            finally:
                os.close(sink)
        elif entry.size <= MAX_WHOLE_FILE:
            yield NOWHERE
        else:
            with tempfile.TemporaryFile(dir=self.job.staging) as file:
                yield file.fileno()

    def _put(self, sink: int, entry: Entry, data: bytes) -> None:
        """Write the whole content of a file, and feed it."""
        if self.job.kept:
            write_all(sink, data)
        if self.job.feed is not None:
            self.job.feed.file(
                entry, data, None if entry.content is not None else self.job.ledger.take_provenance(entry)
            )

    def _copy(self, sink: int, entry: Entry) -> None:
        """Copy a file's content, relocated. Raises SourceChanged for one that is not what was counted."""
        place = entry.origin or os.path.join(self.job.root, entry.path)
        source, before = open_counted(self.job.root, entry)
        ledger = self.job.ledger
        data = outcome = None
        try:
            if before.st_size != entry.size:
                raise source_changed(entry.path)
            if entry.size <= MAX_WHOLE_FILE or ledger.relocation.needs_full_content(entry.path):
                data = read_whole(source, entry.size, place)
            elif ledger.relocation.may_change_content(entry.path):
                outcome = LargeFileRewriter(source, before, entry.path, ledger.relocation, self._go_on).rewrite(sink)
            else:
                self._send_all(source, sink, entry, before)
            check_same_file(entry.path, os.fstat(source), identity_of(before))
        except OSError as e:
            refuse_unreadable(source, place, e)
            raise
        finally:
            os.close(source)
        if outcome is not None:
            ledger.record(entry.path, outcome)
        if data is None:
            if self.job.feed is not None:
                self.job.feed.open_file(entry, sink, ledger.take_provenance(entry))
            return
        if len(data) != entry.size:
            raise source_changed(entry.path)
        self._put(sink, entry, ledger.relocate_content(entry.path, data))

    def _send_all(self, source: int, sink: int, entry: Entry, status: os.stat_result) -> None:
        """Copy a large file as it is."""
        self.job.ledger.relocate_content(entry.path, os.pread(source, HEADER_SIZE, 0))
        for start, end in data_ranges(source, status):
            self._send(source, sink, start, end)
        os.ftruncate(sink, entry.size)

    def _send(self, source: int, sink: int, start: int, end: int) -> None:
        os.lseek(sink, start, os.SEEK_SET)
        while start < end and (sent := os.sendfile(sink, source, start, min(PIECE, end - start))):
            start += sent
            self._go_on()

    def _go_on(self) -> None:
        self.job.cancel.raise_if_cancelled()

    def _recall(self, entry: Entry) -> bool:
        """Take an unchanged file from the version in place, where all who want it have it; else False, and nothing."""
        job = self.job
        result = job.known.result_of(entry) if job.known is not None else None
        if result is None:
            return False
        assert job.known is not None
        at = job.known.standing(entry, result)
        if job.kept and (at is None or os.path.dirname(entry.path) in self.strange or not self._lend(at[1])):
            return False
        if job.feed is not None and not job.feed.keep(entry, result.size, result.digest, result.made):
            if at is None:
                return False
            with open(at[0], "rb") as file:
                job.feed.open_file(entry, file.fileno(), result.made)
        if job.kept:
            assert at is not None
            os.link(at[0], self._to(entry.path), follow_symlinks=False)
        job.ledger.record_reused(entry.path, result.made)
        return True

    def _lend(self, inode: int) -> bool:
        """Whether an inode may be used again: once, so that names which are no longer linked do not stay so."""
        with self.lending:
            if inode in self.lent:
                return False
            self.lent.add(inode)
            return True

    def _write_link(self, entry: Entry) -> None:
        if self.job.feed is not None:
            self.job.feed.symlink(entry)
        if not self.job.kept:
            self.targets[entry.path] = entry.target
            return
        os.symlink(entry.target, self._to(entry.path))
        os.utime(self._to(entry.path), ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def _link(self, entry: Entry) -> None:
        """Give a file or link a further name; a link that says something else there is one of its own."""
        if entry.is_symlink and entry.target != self._target(entry.link):
            self._write_link(entry)
            return
        if self.job.feed is not None:
            self.job.feed.further(entry.path, entry.link)
        if self.job.kept:
            os.link(self._to(entry.link), self._to(entry.path), follow_symlinks=False)
        self.job.ledger.record_hard_link(entry.path, entry.link, self._standing(entry))

    def _target(self, path: bytes) -> bytes:
        """What a symbolic link that has been copied says."""
        return os.readlink(self._to(path)) if self.job.kept else self.targets[path]

    def _standing(self, entry: Entry) -> bytes:
        """Where a file that has been copied can be read again."""
        return self._to(entry.path) if self.job.kept else entry.origin or os.path.join(self.job.root, entry.path)

    def _to(self, path: bytes) -> bytes:
        return self.job.staging + b"/" + path


def refuse_unreadable(fd: int, place: bytes, error: OSError) -> None:
    """Raise SourceUnreadable when an error while a file was copied comes from reading it: it cannot be read again."""
    if error.errno in OF_EITHER:
        try:
            offset = 0
            while piece := os.pread(fd, PIECE, offset):
                offset += len(piece)
        except OSError as e:
            raise source_unreadable(place, e) from e
