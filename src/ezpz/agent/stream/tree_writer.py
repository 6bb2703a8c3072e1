"""Write chunks into a staged tree as they come, and read them back at the end.

One thread reads the lists in order, and creates the directories. On hosts with many cores others write the content.
"""

import errno
import hashlib
import os
import queue
import stat
import threading
import time
from contextlib import suppress
from typing import Any, Callable, List, Optional, Set

from ..common import wire_paths
from ..common.cancel import NEVER, CancelToken
from ..common.threads import BackgroundTask
from ..common.zstd import Data
from ..destination.reuse import Clone, FileReuser, MissingSource
from . import chunks, frames
from .chunk_entry import ChunkEntry
from .chunk_index import ChunkIndex
from .codec import Codec
from .staged_tree import StagedTree

MAX_WRITERS, CORES_PER_WRITER = 4, 4
JOIN_TIMEOUT = 5.0  # seconds that threads have to end
DAMAGED = (errno.ENOENT, errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)


class TreeWriter:
    """Writes the chunks of one stream into a directory."""

    def __init__(
        self,
        tree: int,
        old: Optional[int],
        index: ChunkIndex,
        codec: Codec,
        on_written: Callable[[int, int], None],
        on_failure: Callable[[BaseException], None],
        threads: Optional[int] = None,
        cancel: CancelToken = NEVER,
    ) -> None:
        """Start the threads.

        Args:
            tree: a descriptor of the directory
            old: a descriptor of the version in place, None for none
            index: keeps the lists of the chunks
            codec: unpacks them
            on_written: takes the number of each chunk that is on the disk, and its bytes of content
            on_failure: takes what ends the writing
            threads: how many write content; by default what suits the host
            cancel: is checked while a large file is copied from the version in place
        """
        self.staged = StagedTree(tree)
        self.reuser = None if old is None else FileReuser(old, tree, cancel)
        self.index = index
        self.codec = codec
        self.on_written = on_written
        self.on_failure = on_failure
        self.with_content: "Set[int]" = set()
        self.is_stopped = False
        count = min(MAX_WRITERS, (os.cpu_count() or 1) // CORES_PER_WRITER) if threads is None else threads
        self._frames: "queue.Queue[Any]" = queue.Queue()
        self._writes: "queue.Queue[Any]" = queue.Queue(2 * max(1, count))
        self._threads = [threading.Thread(target=self._run, args=(self._open_all,), daemon=True)]
        self._threads += [
            threading.Thread(target=self._run, args=(self._write_all,), daemon=True) for _ in range(count)
        ]
        self._changed = threading.Condition()
        self._pending = 0
        for thread in self._threads:
            thread.start()

    def put(self, frame: frames.Frame) -> None:
        """Take a chunk. The buffer decides how many may wait."""
        self._frames.put(frame)

    def stop(self) -> None:
        """End the threads, whatever waits."""
        self.is_stopped = True
        self._frames.put(None)
        with suppress(queue.Full):  # a busy thread checks `is_stopped` afterwards
            for _ in self._threads[1:]:
                self._writes.put_nowait(None)

    def join(self) -> None:
        """Wait for the threads, after `stop`, but not for a disk that hangs."""
        deadline = time.monotonic() + JOIN_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, wire_paths.ProtocolError, MissingSource) as e:
            self.is_stopped = True
            self.on_failure(e)

    def _open_all(self) -> None:
        while not self.is_stopped:
            frame = self._frames.get()
            if frame is None:
                break
            if frame.flags & frames.BARRIER:
                self._wait_for_writers()
            self._open(frame)
        for _ in self._threads[1:]:
            self._writes.put(None)

    def _wait_for_writers(self) -> None:
        with self._changed:
            while self._pending and not self.is_stopped:
                self._changed.wait(0.2)

    def _open(self, frame: frames.Frame) -> None:
        """Read a list, create what has no content, and pass on the rest."""
        kind, packed_list, packed = chunks.split(frame.payload)
        entries = chunks.parse_list(packed_list, kind, self.codec)
        self.index.add(frame.number, kind, packed_list, frame.flags)
        pieces = []
        kept = 0
        for entry in entries:
            if entry.kind == "f":
                pieces.append(entry)
            elif entry.kind == "k":
                kept += self._keep(entry)
            else:
                self._make(entry, frame.number)
        if pieces:
            self.with_content.add(frame.number)
        if len(self._threads) == 1:
            self._write_chunk(frame.number, pieces, frame.codec, packed, kept)
            return
        with self._changed:
            self._pending += 1
        self._writes.put((frame.number, pieces, frame.codec, packed, kept))

    def _keep(self, entry: ChunkEntry) -> int:
        """Take a file from the version in place; return its size in bytes."""
        if self.reuser is None:
            raise MissingSource("there is no version in place")
        mode = stat.S_IMODE(entry.mode)
        what = Clone(entry.path, mode, entry.mtime_ns, entry.size, entry.digest, entry.target, entry.target_mtime_ns)
        try:
            self.reuser.take(what)
        except FileExistsError:  # from a chunk that comes again
            self.staged.remove(what.path)
            self.reuser.take(what)
        return what.size

    def _make(self, entry: ChunkEntry, number: int) -> None:
        """Create an entry without content, or remove what an earlier chunk has brought."""
        if entry.kind == "d":
            self.staged.make_directory(entry.path, entry.mode, entry.mtime_ns)
        elif entry.kind == "h":
            self.staged.add_hard_link(entry.path, entry.target)
        elif entry.kind == "x":
            self.index.supersede(entry.path, number)
            self.staged.remove(entry.path)
        else:
            self.staged.make_symlink(entry.path, entry.mtime_ns, entry.target)

    def _write_all(self) -> None:
        while True:
            task = self._writes.get()
            if task is None or self.is_stopped:
                return
            self._write_chunk(*task)
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()

    def _write_chunk(self, number: int, pieces: List[ChunkEntry], kind: int, packed: Data, kept: int) -> None:
        content = memoryview(chunks.unpack_content(packed, kind, self.codec))
        told = sum(piece.length for piece in pieces)
        if told != len(content):
            raise wire_paths.ProtocolError("a chunk of {} bytes for {}".format(len(content), told))
        start = 0
        for piece in pieces:
            self.staged.write(piece, content[start : start + piece.length])
            start += piece.length
        self.on_written(number, start + kept)

    def find_damaged(self, cancel: CancelToken) -> List[int]:
        """Read every file back, and return the chunks of which something on the disk is not what was sent."""
        numbers = sorted(self.with_content)
        found: "List[int]" = []
        shares = [numbers[start :: len(self._threads)] for start in range(len(self._threads))]
        others = [BackgroundTask(self._check, share, cancel, found) for share in shares[1:]]
        self._check(shares[0], cancel, found)
        for other in others:
            other.finish()
        return sorted(found)

    def _check(self, numbers: List[int], cancel: CancelToken, found: List[int]) -> None:
        found.extend(number for number in numbers if not self._is_intact(number, cancel))

    def _is_intact(self, number: int, cancel: CancelToken) -> bool:
        for piece in self.index.entries(number):
            if piece.kind != "f":
                continue
            cancel.raise_if_cancelled()
            if not self.index.is_current(piece.path, number):
                continue
            try:
                content = self.staged.read(piece.path, piece.offset, piece.length)
            except OSError as e:
                if e.errno not in DAMAGED:
                    raise
                return False
            if hashlib.sha256(content).hexdigest() != piece.digest:
                return False
        return True
