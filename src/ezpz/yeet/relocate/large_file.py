"""Relocate large files piece by piece, keeping their holes, so that memory does not grow with the files."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.yeet.relocate.formats.prefix_scanner import PrefixScanner, find_split
from ezpz.yeet.relocate.formats.shebang import ZIP_TAIL_SIZE
from ezpz.yeet.relocate.recorder import RewriteResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ezpz.yeet.relocate.relocation import Relocation

MAX_WHOLE_FILE = 1 << 20  # bytes; a larger file is read in pieces
READ_SIZE = 1 << 20  # bytes read at once
HEAD_SIZE = 64 << 10  # bytes in which the header of a script ends
MAX_TABLE = 64 << 20  # bytes of a table of an ELF file; the names of libtorch_cuda.so need 5 MB


@dataclass(frozen=True, slots=True)
class LargeFileRewriter:
    """A file that is too large to be held in memory.

    Attributes:
        fd: Descriptor of the file. Its position is not used.
        status: Status of the file.
        path: Path in the tree.
        relocation: What to replace.
        check: Called before each piece. May raise to stop.
    """

    fd: int
    status: os.stat_result
    path: bytes
    relocation: Relocation
    check: Callable[[], None] = lambda: None

    def rewrite(self, output: int | None) -> RewriteResult:
        """Write the relocated file. The result equals that of `Relocation.relocate_content`.

        Args:
            output: Descriptor of an empty file that is open for reading and writing. None writes nothing: then the
                result of a file that changes lacks the case of a warning.

        Raises:
            OSError: The file cannot be read or written.
        """
        scanner = self.copy(output)
        head = os.pread(self.fd, HEAD_SIZE, 0)
        if not scanner.has_prefix and not self.relocation.may_change_without_match(self.path, head):
            return RewriteResult(changed=False)
        if scanner.is_text:
            return self._rewrite_text(output, head)
        return self._rewrite_zipapp(output, head) if head.startswith(b"#!") else self._rewrite_binary(output, scanner)

    def copy(self, output: int | None) -> PrefixScanner:
        """Copy the file unchanged, and scan it for old prefixes on the way."""
        scanner = PrefixScanner(self.relocation.prefixes_for(self.path))
        for offset, data in self._read_data():
            scanner.feed(offset, data)
            if output is not None:
                write_at(output, data, offset)
        scanner.finish(self.status.st_size)
        if output is not None:
            os.ftruncate(output, self.status.st_size)
        return scanner

    def _rewrite_text(self, output: int | None, head: bytes) -> RewriteResult:
        """Rewrite its lines, block by block."""
        size = replaced = 0
        changed = False
        for number, text in enumerate(self._text_blocks()):
            if number:
                change = self.relocation.relocate_block(self.path, text, head)
            else:
                change = self.relocation.relocate_content(self.path, text)
            new = text if change is None else change.data
            replaced += 0 if change is None else change.replaced
            changed = changed or new != text
            if output is not None and changed:
                write_at(output, new, size)
            size += len(new)
        if output is not None and changed:
            os.ftruncate(output, size)
        return RewriteResult(changed, replaced)

    def _text_blocks(self) -> Iterator[bytes]:
        """Yield the text in blocks that do not split an old path."""
        rest = b""
        for _, data in self._read_data():
            text = rest + data
            end = find_split(text, self.relocation.prefixes_for(self.path))
            if end:
                yield text[:end]
            rest = text[end:]
        yield rest

    def _rewrite_zipapp(self, output: int | None, head: bytes) -> RewriteResult:
        """Rewrite its header, and move the rest if the length of the header changes."""
        tail = os.pread(self.fd, ZIP_TAIL_SIZE, max(len(head), self.status.st_size - ZIP_TAIL_SIZE))
        new, replaced, _ = self.relocation.relocate_zipapp_head(self.path, head, tail)
        longer = len(new) - len(head)
        if output is not None and longer:
            os.ftruncate(output, 0)
            for offset, data in self._read_data():
                rest = data[max(0, len(head) - offset) :]
                write_at(output, rest, offset + len(data) - len(rest) + longer)
            os.ftruncate(output, self.status.st_size + longer)
        if output is not None:
            write_at(output, new, 0)
        return RewriteResult(new != head, replaced)

    def _rewrite_binary(self, output: int | None, scanner: PrefixScanner) -> RewriteResult:
        """Edit its run paths in place, if it has any."""
        writes, edited, stuck = self.relocation.plan_run_path_edits(self.path, self._read)
        named = scanner.has_whole_path
        if output is not None and writes:
            for offset, data in writes:
                write_at(output, data, offset)
            named = (
                named
                and LargeFileRewriter(output, os.fstat(output), self.path, self.relocation, self.check)
                .copy(None)
                .has_whole_path
            )
        return RewriteResult(bool(writes), edited, self.relocation.warning_for(self.path, stuck, named=named))

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self.fd, size, offset) if size <= MAX_TABLE else b""

    def _read_data(self) -> Iterator[tuple[int, bytes]]:
        for start, end in data_ranges(self.fd, self.status):
            offset = start
            while offset < end:
                self.check()
                data = os.pread(self.fd, min(READ_SIZE, end - offset), offset)
                if not data:
                    return  # it was truncated
                yield offset, data
                offset += len(data)


def data_ranges(fd: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that hold data, as start and end. The holes of a sparse file are skipped.

    See lseek(2), SEEK_DATA. Raises OSError.
    """
    if status.st_blocks * 512 >= status.st_size:
        yield 0, status.st_size
        return
    end = 0
    while end < status.st_size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:  # ENXIO: only a hole follows
                raise
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write data at an offset. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
