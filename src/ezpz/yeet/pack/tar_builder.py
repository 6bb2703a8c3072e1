"""Blocks of a tar archive, read and packed by many threads and returned in order.

The sizes of the entries alone decide which entries share a block, so that the same tree always gives the same bytes.
"""

from __future__ import annotations

import errno
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ezpz.agent.common import manifest
from ezpz.runtime.threads import ordered_map
from ezpz.yeet.archive import tar_header
from ezpz.yeet.pack.archive_manifest import PackedFile
from ezpz.yeet.pack.large_file import PIECE_SIZE, LargeFilePieces, OpenedFile
from ezpz.yeet.pack.sparse_extents import data_pieces, file_extents, is_sparse, merge_extents
from ezpz.yeet.relocate.bytecode.validity import CACHED_PATH
from ezpz.yeet.source.changes import check_listings, check_same_file
from ezpz.yeet.source.errors import source_changed, source_unreadable
from ezpz.yeet.source.io import read_whole
from ezpz.yeet.source.scan import MAX_THREADS, MIN_THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.pack.archive_plan import ArchivePlan

BATCH_BYTES, BATCH_ENTRIES = 2 << 20, 512
QUEUED_PER_THREAD = 2  # blocks that may wait until those before them are written
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TarBlock(NamedTuple):
    """Some consecutive members of an archive.

    Attributes:
        data: bytes of the archive
        files: what was packed of files, by their position among the entries
        dropped: positions of entries that were left out
        content_bytes: bytes that were read from the source
    """

    data: bytes
    files: dict[int, PackedFile]
    dropped: tuple[int, ...] = ()
    content_bytes: int = 0


Task: TypeAlias = "Callable[[], TarBlock]"


class TarBuilder:
    """Builder of the blocks of an archive."""

    def __init__(
        self, plan: ArchivePlan, compress: Callable[[bytes], bytes], cancel: CancelToken, *, sparse: bool = True
    ) -> None:
        """Prepare to build.

        Args:
            plan: the entries
            compress: compresses the bytes of a block, in any thread
            cancel: ends the work early
            sparse: leave out the holes of sparse files
        """
        self.sparse = sparse
        self.plan = plan
        self.compress = compress
        self.cancel = cancel
        self.threads = max(plan.threads, len(os.sched_getaffinity(0)), 2)
        self._reading = threading.Semaphore(plan.threads if plan.threads > MIN_THREADS else 1)

    def blocks(self, *, ended: bool = True) -> Iterator[TarBlock]:
        """Yield all blocks, the end of the archive included if `ended`.

        Raises:
            SourceChanged: the source is not as it was counted.
            SourceUnreadable, OSError: something cannot be read.
            `Cancelled`: `cancel` was used.
        """
        threads = min(MAX_THREADS, self.threads)
        yield from ordered_map(
            _run, self._tasks(), threads=threads, ahead=QUEUED_PER_THREAD * threads, cancel=self.cancel
        )
        plan = self.plan
        check_listings(plan.root, plan.listings, plan.entries, plan.threads, self.cancel)
        if ended:
            yield TarBlock(self.compress(tar_header.END), {})

    def _tasks(self) -> Iterator[Task]:
        """Yield the work: some small entries, or a piece of a large one, at a time."""
        begin = size = 0
        for number, entry in enumerate(self.plan.entries):
            is_large = entry.is_regular and not entry.link and entry.size > PIECE_SIZE
            if is_large or size + entry.size > BATCH_BYTES or number - begin >= BATCH_ENTRIES:
                if number > begin:
                    yield partial(self._build_batch, begin, number)
                begin, size = number, 0
            if is_large:
                yield from self._piece_tasks(number, entry)
                begin = number + 1
            else:
                size += entry.size
        if begin < len(self.plan.entries):
            yield partial(self._build_batch, begin, len(self.plan.entries))

    def _build_batch(self, begin: int, end: int) -> TarBlock:
        """Return the block of some complete entries.

        Reading small files from memory keeps the interpreter busier than the disk. Two threads that do so would only
        wait for each other, and none would compress, so a semaphore limits the readers.
        """
        with self._reading:
            parts, files, dropped = self._read_batch(begin, end)
        entries = self.plan.entries
        packed = {}
        for number, data in files:
            size = entries[number].size
            packed[number] = PackedFile(len(data), manifest.digest(data), None if len(data) == size else size)
        content_bytes = sum(entries[number].size for number in packed)
        return TarBlock(self.compress(b"".join(parts)), packed, dropped, content_bytes)

    def _read_batch(self, begin: int, end: int) -> tuple[list[bytes], list[tuple[int, bytes]], tuple[int, ...]]:
        """Return the members for some entries, the contents of the files, and the numbers of dropped entries."""
        parts: list[bytes] = []
        files: list[tuple[int, bytes]] = []
        dropped = []
        for number in range(begin, end):
            entry = self.plan.entries[number]
            if entry.link or not entry.is_regular:
                parts.append(tar_header.member(entry))
                continue
            self.cancel.raise_if_cancelled()
            if self._is_stale(entry):
                dropped.append(number)
                continue
            data, sparse = self._content(entry)
            files.append((number, data))
            resized = entry if len(data) == entry.size else entry._replace(size=len(data))
            parts += _file_member(resized, data, sparse=sparse)
        return parts, files, tuple(dropped)

    def _content(self, entry: Entry) -> tuple[bytes, bool]:
        """Return the relocated content of a file, and whether to look for holes in it."""
        if entry.content is not None:
            return entry.content, False
        data, status = _read_file(entry.origin or self.plan.root + b"/" + entry.path, entry)
        if self.plan.recorder is not None:
            data = self.plan.recorder.relocate_content(entry.path, data)
        return data, self.sparse and is_sparse(status)

    def _is_stale(self, entry: Entry) -> bool:
        """Return whether an entry is bytecode whose source file relocation changes.

        Python might still accept such bytecode, although it was compiled from other text.
        """
        recorder = self.plan.recorder
        cached = CACHED_PATH.fullmatch(entry.path) if recorder is not None else None
        if recorder is None or cached is None:
            return False
        path = b"%b%b.py" % cached.group(1, 2)
        origin = entry.origin and os.path.join(os.path.dirname(os.path.dirname(entry.origin)), os.path.basename(path))
        try:
            with open(origin or os.path.join(self.plan.root, path), "rb") as file:
                old = file.read()
        except OSError:
            return False
        change = (
            recorder.relocation.relocate_content(path, old) if recorder.relocation.may_change_content(path) else None
        )
        return change is not None and change.data != old

    def _piece_tasks(self, number: int, entry: Entry) -> Iterator[Task]:
        """Yield the pieces of a large file, which stays open until the last of them is packed."""
        file = OpenedFile(self.plan, entry, self.cancel)
        resized = entry._replace(size=file.size)
        extents = file_extents(file.fd, file.size) if self.sparse and file.is_sparse else None
        if extents is None or extents == [(0, file.size)]:
            extents = None
            head, padding = tar_header.member(resized), tar_header.padding(file.size)
        else:
            head = tar_header.sparse_member(resized, extents)
            padding = tar_header.padding(tar_header.sparse_size(resized, extents))
        pieces = LargeFilePieces(file, number, extents)
        last = (file.size - 1) // PIECE_SIZE * PIECE_SIZE
        for start in range(0, file.size, PIECE_SIZE):
            before, after = head if start == 0 else b"", padding if start == last else b""
            yield partial(self._build_piece, pieces, start, before, after)

    def _build_piece(self, pieces: LargeFilePieces, start: int, before: bytes, after: bytes) -> TarBlock:
        self.cancel.raise_if_cancelled()
        data, content_bytes = pieces.read(start)
        block = self.compress(b"".join((before, *data, after)))
        return TarBlock(block, pieces.finish_piece(), (), content_bytes)


def _run(task: Task) -> TarBlock:
    return task()


def _file_member(entry: Entry, data: bytes, *, sparse: bool) -> list[bytes]:
    """Return the parts of the member for a file in memory."""
    pieces = list(data_pieces(data)) if sparse else []
    extents = merge_extents((at, len(piece)) for at, piece in pieces)
    if not sparse or extents == [(0, len(data))]:
        return [tar_header.member(entry), data, tar_header.padding(len(data))]
    padding = tar_header.padding(tar_header.sparse_size(entry, extents))
    return [tar_header.sparse_member(entry, extents), *(piece for _, piece in pieces), padding]


def _read_file(path: bytes, entry: Entry) -> tuple[bytes, os.stat_result]:
    """Read a file with few system calls, since there are many files.

    Raises:
        SourceChanged: the file is not the one that was counted.
        SourceUnreadable: the file cannot be read.
    """
    try:
        fd = os.open(path, OPEN_FLAGS)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise source_changed(entry.path) from e
        raise source_unreadable(path, e) from e
    try:
        data = os.read(fd, entry.size + 1)
        if len(data) < entry.size:
            data += read_whole(fd, entry.size - len(data), path)
        status = os.fstat(fd)
    except (BlockingIOError, IsADirectoryError) as e:
        raise source_changed(entry.path) from e
    except OSError as e:
        raise source_unreadable(path, e) from e
    finally:
        os.close(fd)
    check_same_file(entry.path, status, entry.identity)
    if len(data) != entry.size:
        raise source_changed(entry.path)
    return data, status
