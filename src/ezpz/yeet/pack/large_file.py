"""Large files of an archive, which several threads read and pack in pieces."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from bisect import bisect_right
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ezpz.agent.common import manifest
from ezpz.agent.common.manifest import BLOCK
from ezpz.yeet.pack.archive_manifest import PackedFile
from ezpz.yeet.pack.sparse_extents import is_sparse
from ezpz.yeet.relocate.large_file import LargeFileRewriter
from ezpz.yeet.source.changes import check_same_file
from ezpz.yeet.source.errors import source_changed, source_unreadable
from ezpz.yeet.source.io import open_counted, read_whole
from ezpz.yeet.source.sparse_blocks import HOLE, data_extents

if TYPE_CHECKING:
    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.archive.tar_header import Extent
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.pack.archive_plan import ArchivePlan
    from ezpz.yeet.relocate.recorder import RelocationRecorder

PIECE_SIZE = 4 * BLOCK  # bytes of a large file that are packed together
HOLE_DIGEST = hashlib.sha256(HOLE).digest()


class OpenedFile:
    """An open file of a source, replaced by a nameless temporary file if relocation changes its content."""

    def __init__(self, plan: ArchivePlan, entry: Entry, cancel: CancelToken) -> None:
        """Open and relocate the file.

        Args:
            plan: the archive that the file belongs to
            entry: the file
            cancel: ends relocation early

        Raises:
            SourceChanged: the file is not the one that was counted.
            SourceUnreadable: the file cannot be read.
            `Cancelled`: `cancel` was used.
        """
        self.entry = entry
        self.path = entry.origin or os.path.join(plan.root, entry.path)
        self.fd, status = open_counted(plan.root, entry)
        self.size, self.is_sparse, self.is_relocated = status.st_size, is_sparse(status), False
        with ExitStack() as on_error:
            on_error.callback(os.close, self.fd)
            if self.size != entry.size:
                raise source_changed(entry.path)
            if plan.recorder is not None and plan.recorder.relocation.may_change_content(entry.path):
                self._relocate(plan.recorder, status, cancel)
            on_error.pop_all()

    def _relocate(self, recorder: RelocationRecorder, status: os.stat_result, cancel: CancelToken) -> None:
        with tempfile.TemporaryFile() as file:
            if recorder.relocation.needs_full_content(self.entry.path):
                data = read_whole(self.fd, self.entry.size, self.path)
                new = recorder.relocate_content(self.entry.path, data)
                if new == data:
                    return
                file.write(new)
                file.flush()
            else:
                rewriter = LargeFileRewriter(
                    self.fd, status, self.entry.path, recorder.relocation, cancel.raise_if_cancelled
                )
                outcome = rewriter.rewrite(file.fileno())
                recorder.record(self.entry.path, outcome)
                if not outcome.changed:
                    return
            check_same_file(self.entry.path, os.fstat(self.fd), self.entry.identity)
            os.dup2(file.fileno(), self.fd, inheritable=False)
        self.size, self.is_relocated = os.fstat(self.fd).st_size, True


class LargeFilePieces:
    """Pieces of a large file, which is closed after the last of them. Safe from any thread."""

    def __init__(self, file: OpenedFile, number: int, extents: list[Extent] | None) -> None:
        """Prepare to read the pieces.

        Args:
            file: the open file
            number: its position among the entries
            extents: where it has data, None for a file without holes
        """
        self.file = file
        self.number = number
        self.extents = extents
        self._digests: dict[int, bytes] = {}
        self._missing = -(-file.size // PIECE_SIZE)
        self._lock = threading.Lock()

    def __del__(self) -> None:
        os.close(self.file.fd)

    def read(self, start: int) -> tuple[list[bytes], int]:
        """Return what the archive contains of the piece at an offset, and how many bytes of the file that is.

        Raises:
            SourceChanged: the file became shorter.
            SourceUnreadable: the file cannot be read.
        """
        length = min(PIECE_SIZE, self.file.size - start)
        parts: list[bytes] = []
        for at in range(start, start + length, BLOCK):
            size = min(BLOCK, self.file.size - at)
            if size == BLOCK and self._is_hole(at):
                self._digests[at] = HOLE_DIGEST
                continue
            try:
                block = os.pread(self.file.fd, size, at)
            except OSError as e:
                raise source_unreadable(self.file.path, e) from e
            if len(block) != size:
                raise source_changed(self.file.entry.path)
            self._digests[at] = hashlib.sha256(block).digest()
            parts += [block] if self.extents is None else [data for _, data in data_extents(block)]
        return parts, length

    def finish_piece(self) -> dict[int, PackedFile]:
        """Return what was packed of the file if that was its last piece, else nothing. Raises SourceChanged."""
        with self._lock:
            self._missing -= 1
            if self._missing:
                return {}
        file = self.file
        if not file.is_relocated:
            check_same_file(file.entry.path, os.fstat(file.fd), file.entry.identity)
        digest = manifest.joined(self._digests[at] for at in sorted(self._digests))
        source_size = file.entry.size if file.size != file.entry.size else None
        return {self.number: PackedFile(file.size, digest, source_size)}

    def _is_hole(self, at: int) -> bool:
        """Return whether a block contains only zeros."""
        if self.extents is None:
            return False
        following = bisect_right(self.extents, (at + BLOCK - 1, 0))
        return not following or sum(self.extents[following - 1]) <= at
