"""Threads that read the entries of a directory and pass them to sinks, relocated, in one pass over the data."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from typing import TYPE_CHECKING, TypeAlias

from ezpz.runtime.threads import WorkerPool
from ezpz.yeet.relocate.bytecode.validity import HEADER_SIZE
from ezpz.yeet.relocate.large_file import MAX_WHOLE_FILE, LargeFileRewriter, data_ranges
from ezpz.yeet.source.changes import check_same_file
from ezpz.yeet.source.errors import local_failure, source_changed, source_unreadable
from ezpz.yeet.source.identity import identity_of
from ezpz.yeet.source.io import open_counted, read_whole
from ezpz.yeet.transfer.copy_sinks import create_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ezpz.yeet.model.entry import Entry, Provenance
    from ezpz.yeet.strategies.base import CopyJob

PIECE = 8 << 20  # bytes per call of sendfile(2)
BATCH_FILES, BATCH_BYTES = 64, 32 << 20
QUEUED = 64  # batches that may wait for a thread
EITHER_SIDE = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO)  # from either side of a copy

Batch: TypeAlias = "list[Entry]"


class TreeCopier:
    """Passes entries to the sinks of a job, parents first.

    The number of threads depends on the filesystem of the source, see `Scan.threads`.
    """

    def __init__(self, job: CopyJob, entries: Iterable[Entry]) -> None:
        self.job = job
        self.sinks = job.sinks
        self.entries = entries
        self.hard_links: list[Entry] = []
        self.link_targets: dict[bytes, bytes] = {}  # of symbolic links, as they were passed

    def run(self) -> None:
        """Pass all entries. Directories stay writable until `finish`. Raise EzpzError or `Cancelled`."""
        pool = WorkerPool(self.job.scan.threads, QUEUED, self._copy_batch, self.job.cancel)
        try:
            try:
                self._distribute(pool)
            finally:
                pool.join()
            for entry in self.hard_links:
                self._copy_hard_link(entry)
        except OSError as e:
            raise local_failure(e) from e

    def finish(self) -> None:
        """Give the directories their modes and times. Raise OSError."""
        for sink in self.sinks:
            sink.finish()

    def finish_with_top(self) -> None:
        """Give the directories and the top their modes and times. Raise OSError."""
        top = os.stat(self.job.root)
        for sink in self.sinks:
            sink.directory(b"", top.st_mode, top.st_mtime_ns)
        self.finish()

    def _distribute(self, pool: WorkerPool[Batch]) -> None:
        """Pass directories in the order they come, parents first, and give everything else to the threads."""
        batch: Batch = []
        size = 0
        for entry in map(self.job.recorder.relocate_entry, self.entries):
            if entry.is_directory:
                for sink in self.sinks:
                    sink.directory(entry.path, entry.mode, entry.mtime_ns)
            elif entry.link:
                self.hard_links.append(entry)
            else:
                batch.append(entry)
                size += entry.size
            if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
                if pool.is_stopped:
                    return
                pool.submit(batch)
                batch, size = [], 0
        pool.submit(batch)

    def _copy_batch(self, batch: Batch) -> None:
        self.job.moved(sum(map(self._copy_entry, batch)))

    def _copy_entry(self, entry: Entry) -> int:
        """Pass one file or symbolic link and return the bytes of content that had to be read."""
        if entry.is_symlink:
            self._copy_symlink(entry)
        elif not self._reuse_previous(entry):
            if entry.content is not None:
                self._pass_file(entry, entry.content, None)
            elif entry.size <= MAX_WHOLE_FILE or self.job.recorder.relocation.needs_full_content(entry.path):
                self._copy_small(entry)
            else:
                self._copy_large(entry)
            return entry.size
        return 0

    def _pass_file(self, entry: Entry, data: bytes, made: Provenance | None) -> None:
        for sink in self.sinks:
            sink.file(entry, data, made)

    def _copy_small(self, entry: Entry) -> None:
        """Copy a file in memory, relocated. Raise SourceChanged if it is not the file that was counted."""
        with self._opened(entry) as (source, _):
            data = read_whole(source, entry.size, self._origin(entry))
        if len(data) != entry.size:
            raise source_changed(entry.path)
        data = self.job.recorder.relocate_content(entry.path, data)
        self._pass_file(entry, data, self.job.recorder.take_provenance(entry))

    def _copy_large(self, entry: Entry) -> None:
        """Copy a file in pieces, relocated. Raise SourceChanged if it is not the file that was counted."""
        recorder = self.job.recorder
        with self._large_file(entry) as target:
            outcome = None
            with self._opened(entry) as (source, before):
                if recorder.relocation.may_change_content(entry.path):
                    rewriter = LargeFileRewriter(
                        source, before, entry.path, recorder.relocation, self._raise_if_cancelled
                    )
                    outcome = rewriter.rewrite(target)
                else:
                    self._send_all(source, target, entry, before)
            if outcome is not None:
                recorder.record(entry.path, outcome)
            made = recorder.take_provenance(entry)
            for sink in self.sinks:
                sink.open_file(entry, target, made)

    @contextlib.contextmanager
    def _opened(self, entry: Entry) -> Iterator[tuple[int, os.stat_result]]:
        """Open the source of a file and check, before and after, that it is the file that was counted."""
        source, before = open_counted(self.job.root, entry)
        try:
            if before.st_size != entry.size:
                raise source_changed(entry.path)
            yield source, before
            check_same_file(entry.path, os.fstat(source), identity_of(before))
        except OSError as e:
            refuse_unreadable(source, self._origin(entry), e)
            raise
        finally:
            os.close(source)

    @contextlib.contextmanager
    def _large_file(self, entry: Entry) -> Iterator[int]:
        """Create the file of the sink that keeps one on this host, or a nameless file."""
        path = self._kept_path(entry.path)
        if path is None:
            with tempfile.TemporaryFile(dir=self.job.staging) as file:
                yield file.fileno()
            return
        fd = create_file(path)
        try:
            yield fd
        finally:
            os.close(fd)

    def _send_all(self, source: int, target: int, entry: Entry, status: os.stat_result) -> None:
        """Copy a large file unchanged, with its holes."""
        self.job.recorder.relocate_content(entry.path, os.pread(source, HEADER_SIZE, 0))
        for start, end in data_ranges(source, status):
            self._send(source, target, start, end)
        os.ftruncate(target, entry.size)

    def _send(self, source: int, target: int, start: int, end: int) -> None:
        os.lseek(target, start, os.SEEK_SET)
        while start < end and (sent := os.sendfile(target, source, start, min(PIECE, end - start))):
            start += sent
            self._raise_if_cancelled()

    def _raise_if_cancelled(self) -> None:
        self.job.cancel.raise_if_cancelled()

    def _reuse_previous(self, entry: Entry) -> bool:
        """Pass a file from the previous version. Return False, passing nothing, if a sink does not have it there."""
        file = self.job.previous.result_of(entry)
        if file is None:
            return False
        unchanged = self.job.previous.find_unchanged(entry, file)
        if not all(sink.can_reuse(entry, file, unchanged) for sink in self.sinks):
            return False
        for sink in self.sinks:
            sink.reuse(entry, file, unchanged)
        self.job.recorder.record_reused(entry.path, file.made)
        return True

    def _copy_symlink(self, entry: Entry) -> None:
        self.link_targets[entry.path] = entry.target
        for sink in self.sinks:
            sink.symlink(entry)

    def _copy_hard_link(self, entry: Entry) -> None:
        """Pass a hard link, or a new symbolic link if relocation gave this name another target."""
        if entry.is_symlink and entry.target != self._link_target(entry.link):
            self._copy_symlink(entry)
            return
        for sink in self.sinks:
            sink.hard_link(entry.path, entry.link)
        self.job.recorder.record_hard_link(entry.path, entry.link, self._kept_path(entry.path) or self._origin(entry))

    def _link_target(self, path: bytes) -> bytes:
        """Return the target of a symbolic link that was copied."""
        kept = self._kept_path(path)
        return self.link_targets[path] if kept is None else os.readlink(kept)

    def _kept_path(self, path: bytes) -> bytes | None:
        """Return the path at which a sink keeps an entry on this host, or None."""
        return next((kept for sink in self.sinks if (kept := sink.path_of(path)) is not None), None)

    def _origin(self, entry: Entry) -> bytes:
        return entry.origin or os.path.join(self.job.root, entry.path)


def refuse_unreadable(fd: int, place: bytes, error: OSError) -> None:
    """Raise SourceUnreadable if an error while copying comes from the source, which then cannot be read again."""
    if error.errno in EITHER_SIDE:
        try:
            offset = 0
            while piece := os.pread(fd, PIECE, offset):
                offset += len(piece)
        except OSError as e:
            raise source_unreadable(place, e) from e
