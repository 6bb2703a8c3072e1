"""Pack: many threads read the entries of a parcel and pack them, block by block; one tar archive comes out, in order.

Which entries are in a block depends on their sizes alone, so that the same tree always makes the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import threading
from bisect import bisect_right
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ezpz.agent.common import manifest
from ezpz.agent.common.manifest import BLOCK
from ezpz.agent.stream.codec import keep_memory
from ezpz.runtime.atomic_file import atomic_file
from ezpz.runtime.threads import ordered_map
from ezpz.yeet.archive import tar_header
from ezpz.yeet.archive.compress import packing_of
from ezpz.yeet.pack.archive_manifest import PackedFile, manifest_member
from ezpz.yeet.relocate.bytecode.validity import CACHED_PATH
from ezpz.yeet.relocate.large_file import LargeFileRewriter
from ezpz.yeet.source.changes import check_listings, check_same_file
from ezpz.yeet.source.errors import local_failure, source_changed, source_unreadable
from ezpz.yeet.source.io import open_counted, read_whole
from ezpz.yeet.source.scan import MAX_THREADS, MIN_THREADS
from ezpz.yeet.source.sparse_blocks import HOLE, MIN_HOLE, blocks_of, data_extents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.pack.archive_manifest import ArchiveManifest
    from ezpz.yeet.pack.collect import ArchivePlan
    from ezpz.yeet.relocate.recorder import RelocationRecorder
    from ezpz.yeet.source.archive_formats import ArchiveFormat

BATCH_BYTES, BATCH_ENTRIES = 2 << 20, 512
PIECE = 4 * BLOCK  # bytes of a large file that are packed together
AHEAD = 2  # blocks for each thread that may wait until those before them are written
DISK_BLOCK = 512  # bytes; what st_blocks counts
OPENING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
HOLE_DIGEST = hashlib.sha256(HOLE).digest()


class TarBlock(NamedTuple):
    """A block: its bytes in the archive; what was read of files, by their place among the entries; what was dropped."""

    data: bytes
    taken: dict[int, PackedFile]
    dropped: tuple[int, ...] = ()
    moved: int = 0


Task: TypeAlias = "Callable[[], TarBlock]"


class TarBuilder:
    """Makes the blocks of a parcel.

    block: packs the bytes of one; holes: whether those of sparse files are left out
    """

    def __init__(
        self, parcel: ArchivePlan, block: Callable[[bytes], bytes], cancel: CancelToken, *, holes: bool = True
    ) -> None:
        self.holes = holes
        self.parcel = parcel
        self.block = block
        self.cancel = cancel
        self.threads = max(parcel.threads, len(os.sched_getaffinity(0)), 2)
        self._reading = threading.Semaphore(parcel.threads if parcel.threads > MIN_THREADS else 1)

    def blocks(self, *, ended: bool = True) -> Iterator[TarBlock]:
        """All of them; ended: with what ends an archive. Raises SourceChanged, SourceUnreadable, OSError, Cancelled."""
        threads = min(MAX_THREADS, self.threads)
        yield from ordered_map(_do, self._tasks(), threads=threads, ahead=AHEAD * threads, cancel=self.cancel)
        parcel = self.parcel
        check_listings(parcel.root, parcel.listings, parcel.entries, parcel.threads, self.cancel)
        if ended:
            yield TarBlock(self.block(tar_header.END), {})

    def _tasks(self) -> Iterator[Task]:
        """What there is to do: some small entries, or a piece of a large one."""
        begin = size = 0
        for number, entry in enumerate(self.parcel.entries):
            is_large = entry.is_regular and not entry.link and entry.size > PIECE
            if is_large or size + entry.size > BATCH_BYTES or number - begin >= BATCH_ENTRIES:
                if number > begin:
                    yield self._batch(begin, number)
                begin, size = number, 0
            if is_large:
                yield from self._pieces(number, entry)
                begin = number + 1
            else:
                size += entry.size
        if begin < len(self.parcel.entries):
            yield self._batch(begin, len(self.parcel.entries))

    def _batch(self, begin: int, end: int) -> Task:
        return partial(self._small, begin, end)

    def _small(self, begin: int, end: int) -> TarBlock:
        """Some entries, each of them whole.

        Small files cost the interpreter more than the disk: of those that read from memory, two would only wait for
        each other, and none would pack meanwhile.
        """
        with self._reading:
            parts, files, dropped = self._read(begin, end)
        entries = self.parcel.entries
        taken = {}
        for number, data in files:
            was = entries[number].size
            taken[number] = PackedFile(len(data), manifest.digest(data), None if len(data) == was else was)
        moved = sum(entries[number].size for number in taken)
        return TarBlock(self.block(b"".join(parts)), taken, dropped, moved)

    def _read(self, begin: int, end: int) -> tuple[list[bytes], list[tuple[int, bytes]], tuple[int, ...]]:
        """What these entries are in the archive, what is in which of them, and which of them were dropped."""
        parts: list[bytes] = []
        files: list[tuple[int, bytes]] = []
        dropped = []
        for number in range(begin, end):
            entry = self.parcel.entries[number]
            if entry.link or not entry.is_regular:
                parts.append(tar_header.member(entry))
                continue
            self.cancel.raise_if_cancelled()
            if self._is_stale(entry):
                dropped.append(number)
                continue
            data, sparse = self._content(entry)
            files.append((number, data))
            whole = entry if len(data) == entry.size else entry._replace(size=len(data))
            _add(parts, whole, data, sparse=sparse)
        return parts, files, tuple(dropped)

    def _content(self, entry: Entry) -> tuple[bytes, bool]:
        """What a file holds, relocated, and whether it has holes."""
        if entry.content is not None:
            return entry.content, False
        data, status = _read_file(entry.origin or self.parcel.root + b"/" + entry.path, entry)
        if self.parcel.ledger is not None:
            data = self.parcel.ledger.relocate_content(entry.path, data)
        return data, self.holes and _is_sparse(status)

    def _is_stale(self, entry: Entry) -> bool:
        """Whether it is bytecode of a source that is changed on the way, which may look valid and is not."""
        ledger = self.parcel.ledger
        cached = CACHED_PATH.fullmatch(entry.path) if ledger is not None else None
        if ledger is None or cached is None:
            return False
        path = b"%b%b.py" % cached.group(1, 2)
        origin = entry.origin and os.path.join(os.path.dirname(os.path.dirname(entry.origin)), os.path.basename(path))
        try:
            with open(origin or os.path.join(self.parcel.root, path), "rb") as file:
                old = file.read()
        except OSError:
            return False
        change = ledger.relocation.relocate_content(path, old) if ledger.relocation.may_change_content(path) else None
        return change is not None and change.data != old

    def _pieces(self, number: int, entry: Entry) -> Iterator[Task]:
        """A large file in pieces. It stays open until the last of them is packed."""
        source = _Source(self.parcel, entry, self._go_on)
        whole = entry._replace(size=source.size)
        extents = list(_extents(source.fd, source.size)) if self.holes and source.is_sparse else None
        if extents == [(0, source.size)]:
            extents = None
        if extents is None:
            head, padding = tar_header.member(whole), tar_header.padding(source.size)
        else:
            head, padding = (
                tar_header.sparse_member(whole, extents),
                tar_header.padding(tar_header.sparse_size(whole, extents)),
            )
        file = _File(source, number, entry, extents)
        last = (source.size - 1) // PIECE * PIECE
        for start in range(0, source.size, PIECE):
            before, after = head if start == 0 else b"", padding if start == last else b""
            yield partial(self._piece, file, start, before, after)

    def _piece(self, file: _File, start: int, before: bytes, after: bytes) -> TarBlock:
        self._go_on()
        data, moved = file.read(start)
        return TarBlock(self.block(b"".join((before, *data, after))), file.taken(), (), moved)

    def _go_on(self) -> None:
        self.cancel.raise_if_cancelled()


class _Source:
    """A large file of a parcel, open, as it is packed: relocated to a nameless file if its content changes."""

    def __init__(self, parcel: ArchivePlan, entry: Entry, go_on: Callable[[], None]) -> None:
        self.entry = entry
        self.place = entry.origin or os.path.join(parcel.root, entry.path)
        self.fd, status = open_counted(parcel.root, entry)
        self.size, self.is_sparse, self.is_changed = status.st_size, _is_sparse(status), False
        with ExitStack() as unless_it_works:
            unless_it_works.callback(os.close, self.fd)
            if self.size != entry.size:
                raise source_changed(entry.path)
            if parcel.ledger is not None and parcel.ledger.relocation.may_change_content(entry.path):
                self._relocate(parcel.ledger, status, go_on)
            unless_it_works.pop_all()

    def _relocate(self, ledger: RelocationRecorder, status: os.stat_result, go_on: Callable[[], None]) -> None:
        with tempfile.TemporaryFile() as file:
            if ledger.relocation.needs_full_content(self.entry.path):
                data = read_whole(self.fd, self.entry.size, self.place)
                new = ledger.relocate_content(self.entry.path, data)
                if new == data:
                    return
                file.write(new)
                file.flush()
            else:
                outcome = LargeFileRewriter(self.fd, status, self.entry.path, ledger.relocation, go_on).rewrite(
                    file.fileno()
                )
                ledger.record(self.entry.path, outcome)
                if not outcome.changed:
                    return
            check_same_file(self.entry.path, os.fstat(self.fd), self.entry.identity)
            os.dup2(file.fileno(), self.fd, inheritable=False)
        self.size, self.is_changed = os.fstat(self.fd).st_size, True


class _File:
    """A large file whose pieces are read by several threads."""

    def __init__(self, source: _Source, number: int, entry: Entry, extents: list[tar_header.Extent] | None) -> None:
        """`extents`: where it has something, None for a file without holes."""
        self.source = source
        self.number = number
        self.entry = entry
        self.extents = extents
        self._digests: dict[int, bytes] = {}
        self._left = -(-source.size // PIECE)
        self._lock = threading.Lock()

    def __del__(self) -> None:
        os.close(self.source.fd)

    def read(self, start: int) -> tuple[list[bytes], int]:
        """What the archive holds of a piece, and how many bytes of the file that is."""
        length = min(PIECE, self.source.size - start)
        parts: list[bytes] = []
        for at in range(start, start + length, BLOCK):
            size = min(BLOCK, self.source.size - at)
            if size == BLOCK and self._is_hole(at):
                self._digests[at] = HOLE_DIGEST
                continue
            try:
                block = os.pread(self.source.fd, size, at)
            except OSError as e:
                raise source_unreadable(self.source.place, e) from e
            if len(block) != size:
                raise source_changed(self.entry.path)
            self._digests[at] = hashlib.sha256(block).digest()
            parts += [block] if self.extents is None else [data for _, data in data_extents(block)]
        return parts, length

    def _is_hole(self, at: int) -> bool:
        """Whether a block has nothing but zeros."""
        if self.extents is None:
            return False
        following = bisect_right(self.extents, (at + BLOCK - 1, 0))
        return not following or sum(self.extents[following - 1]) <= at

    def taken(self) -> dict[int, PackedFile]:
        """After a piece: what was taken of the file, if that was the last one."""
        with self._lock:
            self._left -= 1
            if self._left:
                return {}
        if not self.source.is_changed:
            check_same_file(self.entry.path, os.fstat(self.source.fd), self.entry.identity)
        digest = manifest.joined(self._digests[at] for at in sorted(self._digests))
        was = self.entry.size if self.source.size != self.entry.size else None
        return {self.number: PackedFile(self.source.size, digest, was)}


def _read_file(path: bytes, entry: Entry) -> tuple[bytes, os.stat_result]:
    """The content of a file in as few calls as can be: there are many. Raises SourceChanged, SourceUnreadable."""
    try:
        fd = os.open(path, OPENING)
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


def _do(task: Task) -> TarBlock:
    return task()


def _add(parts: list[bytes], entry: Entry, data: bytes, *, sparse: bool) -> None:
    """Add a file that is held in memory."""
    starts = range(0, len(data), BLOCK) if sparse else ()
    pieces = [found for start in starts for found in _filled_at(data, start)]
    extents = _merged((at, len(piece)) for at, piece in pieces)
    if not sparse or extents == [(0, len(data))]:
        parts += (tar_header.member(entry), data, tar_header.padding(len(data)))
        return
    parts.append(tar_header.sparse_member(entry, extents))
    parts += [piece for _, piece in pieces]
    parts.append(tar_header.padding(tar_header.sparse_size(entry, extents)))


def _filled_at(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    return ((start + at, piece) for at, piece in data_extents(data[start : start + BLOCK]))


def _extents(fd: int, size: int) -> list[tar_header.Extent]:
    """Where a file has something: by content and not by its holes on a disk, which another disk may not have."""
    blocks = enumerate(blocks_of(fd, size))
    return _merged((number * BLOCK + at, len(piece)) for number, block in blocks for at, piece in data_extents(block))


def _merged(extents: Iterator[tar_header.Extent]) -> list[tar_header.Extent]:
    """The same, with those that touch as one."""
    found: list[tar_header.Extent] = []
    for start, length in extents:
        if found and sum(found[-1]) == start:
            found[-1] = found[-1][0], found[-1][1] + length
        else:
            found.append((start, length))
    return found


def _is_sparse(status: os.stat_result) -> bool:
    """Whether a file is worth a look for holes."""
    return status.st_size > MIN_HOLE and status.st_blocks * DISK_BLOCK < status.st_size


def write(
    contents: ArchiveManifest,
    path: str,
    kind: ArchiveFormat,
    level: int,
    moved: Callable[[int], None],
    cancel: CancelToken,
) -> int:
    """Write the archive, and return its size in bytes; `moved` is told the content bytes as they go.

    Raises EzpzError, Cancelled.
    """
    keep_memory()
    packing = packing_of(kind, level)
    room = len(packing.stored(manifest_member(bytes(contents.length))))
    try:
        with atomic_file(path, contents.parcel.readers) as file:
            file.seek(room)
            taken: dict[int, PackedFile] = {}
            dropped: list[int] = []
            size = room
            for block in TarBuilder(contents.parcel, packing.pack, cancel).blocks():
                size += file.write(block.data)
                taken.update(block.taken)
                dropped += block.dropped
                moved(block.moved)
            text = contents.text(taken, dropped, size)
            file.seek(0)
            file.write(packing.stored(manifest_member(text)))
    except OSError as e:
        raise local_failure(e) from e
    return os.path.getsize(path)
