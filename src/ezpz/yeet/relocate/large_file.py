"""Large files: relocated piece by piece, with their holes, so that the memory does not grow with them."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.yeet.relocate.formats.prefix_scanner import PrefixScanner, cut
from ezpz.yeet.relocate.formats.shebang import END_OF_ZIP_WITHIN
from ezpz.yeet.relocate.recorder import RewriteResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ezpz.yeet.relocate.relocation import Relocation

WHOLE = 1 << 20  # bytes; a larger file is read in pieces
PIECE = 1 << 20  # bytes read at once
HEAD = 64 << 10  # bytes in which the header of a script ends
TABLE = 64 << 20  # bytes of the largest table of an ELF file that is read; the names of libtorch_cuda.so take 5 MB


@dataclass(frozen=True, slots=True)
class LargeFileRewriter:
    """One file that is too large to be held in memory. `relocate` ends with the same as `Relocation.content` does.

    fd, status: the file, which does not move; path: where it is in the tree; check: is called before each piece
    """

    fd: int
    status: os.stat_result
    path: bytes
    relocation: Relocation
    check: Callable[[], None] = lambda: None

    def relocate(self, sink: int | None) -> RewriteResult:
        """Write the file as it becomes into an empty one that can be read as well; None writes nothing.

        When it is None, and the file changes, the outcome lacks the case of a notice. Raises OSError.
        """
        search = self.copy(sink)
        head = os.pread(self.fd, HEAD, 0)
        if not search.found and not self.relocation.always_changes(self.path, head):
            return RewriteResult(changed=False)
        if search.is_text:
            return self._text(sink, head)
        return self._zipapp(sink, head) if head.startswith(b"#!") else self._binary(sink, search)

    def copy(self, sink: int | None) -> PrefixScanner:
        """Write it as it is, and look through it on the way."""
        search = PrefixScanner(self.relocation.sought(self.path))
        for offset, piece in self._pieces():
            search.take(offset, piece)
            if sink is not None:
                write_at(sink, piece, offset)
        search.finish(self.status.st_size)
        if sink is not None:
            os.ftruncate(sink, self.status.st_size)
        return search

    def _text(self, sink: int | None, head: bytes) -> RewriteResult:
        """Write its lines anew, as many at once as a piece has."""
        size = replaced = 0
        changed = False
        for number, text in enumerate(self._passages()):
            if number:
                change = self.relocation.passage(self.path, text, head)
            else:
                change = self.relocation.content(self.path, text)
            new = text if change is None else change.data
            replaced += 0 if change is None else change.replaced
            changed = changed or new != text
            if sink is not None and changed:
                write_at(sink, new, size)
            size += len(new)
        if sink is not None and changed:
            os.ftruncate(sink, size)
        return RewriteResult(changed, replaced)

    def _passages(self) -> Iterator[bytes]:
        rest = b""
        for _, piece in self._pieces():
            text = rest + piece
            end = cut(text, self.relocation.sought(self.path))
            if end:
                yield text[:end]
            rest = text[end:]
        yield rest

    def _zipapp(self, sink: int | None, head: bytes) -> RewriteResult:
        """Write its header anew; all else moves when that has another length."""
        tail = os.pread(self.fd, END_OF_ZIP_WITHIN, max(len(head), self.status.st_size - END_OF_ZIP_WITHIN))
        new, replaced, _ = self.relocation.zipapp_head(self.path, head, tail)
        longer = len(new) - len(head)
        if sink is not None and longer:
            os.ftruncate(sink, 0)
            for offset, piece in self._pieces():
                rest = piece[max(0, len(head) - offset) :]
                write_at(sink, rest, offset + len(piece) - len(rest) + longer)
            os.ftruncate(sink, self.status.st_size + longer)
        if sink is not None:
            write_at(sink, new, 0)
        return RewriteResult(new != head, replaced)

    def _binary(self, sink: int | None, search: PrefixScanner) -> RewriteResult:
        """Edit its run paths in place, if it has any."""
        writes, edited, stuck = self.relocation.run_path_edits(self.path, self._read)
        named = search.named
        if sink is not None and writes:
            for offset, data in writes:
                write_at(sink, data, offset)
            named = (
                named
                and LargeFileRewriter(sink, os.fstat(sink), self.path, self.relocation, self.check).copy(None).named
            )
        return RewriteResult(bool(writes), edited, self.relocation.left_in(self.path, stuck, named=named))

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self.fd, size, offset) if size <= TABLE else b""

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        for start, end in extents(self.fd, self.status):
            offset = start
            while offset < end:
                self.check()
                piece = os.pread(self.fd, min(PIECE, end - offset), offset)
                if not piece:
                    return  # it is shorter than it was
                yield offset, piece
                offset += len(piece)


def extents(fd: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
    """Where a file has data: all of it, but for the holes of a sparse one (lseek(2), SEEK_DATA)."""
    if status.st_blocks * 512 >= status.st_size:
        yield 0, status.st_size
        return
    end = 0
    while end < status.st_size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:  # nothing but a hole follows
                raise
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of it there."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
