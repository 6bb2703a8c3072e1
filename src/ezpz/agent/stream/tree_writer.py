"""Writer: chunks become files in a staged tree, as they come, and are read back at the end.

Lists are read in order by one thread, which makes the folders; on hosts with many cores others write the content.
"""

import errno
import hashlib
import os
import queue
import stat
import threading
import time
from contextlib import suppress
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from ezpz.agent.common import wire_paths
from ezpz.agent.common.threads import BackgroundTask
from ezpz.agent.destination.reuse import NEW, Clone, FileReuser, MissingSource, clone_of
from ezpz.agent.stream import chunks, frames
from ezpz.agent.stream.chunk_index import ChunkIndex
from ezpz.agent.stream.codec import Codec, Data

MOST_WRITERS, CORES_A_WRITER = 4, 4
PATIENCE = 5.0  # seconds that threads have to end
OLD = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC

Piece = NamedTuple(
    "Piece",
    [
        ("path", bytes), ("mode", int), ("mtime_ns", int), ("size", int), ("offset", int), ("length", int),
        ("digest", str),
    ],
)  # fmt: skip


class TreeWriter:
    """Lands the chunks of one stream in the directory `tree`.

    tree: a descriptor, so that the tree may move meanwhile; old: the version in place, None for none; log: keeps their
    lists
    landed: is told of every chunk that is on the disk, and of the bytes of content in it; failed: of what went wrong
    going_on: is called while a large file is taken over from the version in place
    """

    def __init__(
        self,
        tree: int,
        old: Optional[int],
        log: ChunkIndex,
        codec: Codec,
        landed: Callable[[int, int], None],
        failed: Callable[[BaseException], None],
        threads: Optional[int] = None,
        going_on: Callable[[], None] = lambda: None,
    ) -> None:
        self.tree = tree
        self.cloner = None if old is None else FileReuser(old, tree, going_on)
        self.log = log
        self.codec = codec
        self.landed = landed
        self.failed = failed
        self.folders: "Dict[bytes, Tuple[int, int]]" = {}
        self.links: "Dict[bytes, bytes]" = {}
        self.large: "Dict[bytes, Tuple[int, int]]" = {}
        self.written: "Set[int]" = set()  # chunks with content
        self.stopped = False
        self.umask = os.umask(0o077)
        os.umask(self.umask)
        count = min(MOST_WRITERS, (os.cpu_count() or 1) // CORES_A_WRITER) if threads is None else threads
        self._frames: "queue.Queue[Any]" = queue.Queue()
        self._writes: "queue.Queue[Any]" = queue.Queue(2 * max(1, count))
        self._threads = [threading.Thread(target=self._run, args=(self._open_all,), daemon=True)]
        self._threads += [
            threading.Thread(target=self._run, args=(self._write_all,), daemon=True) for _ in range(count)
        ]
        self._under_way = threading.Condition()
        self._pending = 0
        for thread in self._threads:
            thread.start()

    def put(self, frame: frames.Frame) -> None:
        """Take a chunk; how many may wait is the ring's to say."""
        self._frames.put(frame)

    def stop(self) -> None:
        """End the threads, whatever waits."""
        self.stopped = True
        self._frames.put(None)
        with suppress(queue.Full):  # a writer that has something to do looks at `stopped` afterwards
            for _ in self._threads[1:]:
                self._writes.put_nowait(None)

    def join(self) -> None:
        """Wait for the threads, after `stop`, but not for a disk that hangs."""
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, wire_paths.ProtocolError, MissingSource) as e:
            self.stopped = True
            self.failed(e)

    def _open_all(self) -> None:
        while not self.stopped:
            frame = self._frames.get()
            if frame is None:
                break
            if frame.flags & frames.BARRIER:
                self._wait_for_writers()
            self._open(frame)
        for _ in self._threads[1:]:
            self._writes.put(None)

    def _wait_for_writers(self) -> None:
        with self._under_way:
            while self._pending and not self.stopped:
                self._under_way.wait(0.2)

    def _open(self, frame: frames.Frame) -> None:
        """Read a list, make what has no content, and hand on the rest."""
        kind, packed_list, packed = chunks.split(frame.payload)
        records = chunks.records_of(packed_list, kind, self.codec)
        self.log.add(frame.number, kind, packed_list, frame.flags)
        pieces = []
        kept = 0
        for record in records:
            if record[0] == "f":
                pieces.append(_piece(record))
            elif record[0] == "k":
                kept += self._keep(clone_of(record))
            else:
                self._make(record, frame.number)
        if pieces:
            self.written.add(frame.number)
        if len(self._threads) == 1:
            self._write_chunk(frame.number, pieces, frame.codec, packed, kept)
            return
        with self._under_way:
            self._pending += 1
        self._writes.put((frame.number, pieces, frame.codec, packed, kept))

    def _keep(self, what: Clone) -> int:
        """Take a file over from the version in place; the bytes of it."""
        if self.cloner is None:
            raise MissingSource("there is no version in place")
        try:
            self.cloner.take(what)
        except FileExistsError:  # from a chunk that comes again
            self._remove(what.path)
            self.cloner.take(what)
        return what.size

    def _make(self, record: List[Any], number: int) -> None:
        path = wire_paths.decode_path(record[1])
        if record[0] == "d":
            if path and path not in self.folders:
                try:
                    os.mkdir(path, 0o700, dir_fd=self.tree)
                except FileExistsError:
                    pass
            self.folders[path] = (stat.S_IMODE(record[2]), record[3])
        elif record[0] == "h":
            self.links[path] = wire_paths.decode_path(record[2])
        elif record[0] == "x":
            self.log.replaced(path, number)
            self._remove(path)
        else:
            self._remove(path)
            os.symlink(wire_paths.decode_target(record[3]), path, dir_fd=self.tree)
            os.utime(path, ns=(record[2], record[2]), dir_fd=self.tree, follow_symlinks=False)

    def _remove(self, path: bytes) -> None:
        self.large.pop(path, None)
        self.links.pop(path, None)
        try:
            os.unlink(path, dir_fd=self.tree)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            os.rmdir(path, dir_fd=self.tree)
            self.folders.pop(path, None)

    def _write_all(self) -> None:
        while True:
            task = self._writes.get()
            if task is None or self.stopped:
                return
            self._write_chunk(*task)
            with self._under_way:
                self._pending -= 1
                self._under_way.notify_all()

    def _write_chunk(self, number: int, pieces: List[Piece], kind: int, packed: Data, kept: int) -> None:
        content = memoryview(chunks.content_of(packed, kind, self.codec))
        told = sum(piece.length for piece in pieces)
        if told != len(content) or any(piece.length < 0 for piece in pieces):
            raise wire_paths.ProtocolError("a chunk of {} bytes for {}".format(len(content), told))
        start = 0
        for piece in pieces:
            self._write(piece, content[start : start + piece.length])
            start += piece.length
        self.landed(number, start + kept)

    def _write(self, piece: Piece, content: memoryview) -> None:
        whole = piece.length == piece.size
        fd = self._create(piece) if whole else self._share(piece)
        try:
            if whole:
                done = os.write(fd, content)
                while done < piece.length:
                    done += os.write(fd, content[done:])
                os.utime(fd, ns=(piece.mtime_ns, piece.mtime_ns))
            else:
                done = 0
                while done < piece.length:
                    done += os.pwrite(fd, content[done:], piece.offset + done)
        finally:
            os.close(fd)

    def _create(self, piece: Piece) -> int:
        """A new file, in place of what may be there from a chunk that comes again."""
        try:
            fd = os.open(piece.path, NEW, piece.mode, dir_fd=self.tree)
        except FileExistsError:
            self._remove(piece.path)
            fd = os.open(piece.path, NEW, piece.mode, dir_fd=self.tree)
        if piece.mode & self.umask:
            os.fchmod(fd, piece.mode)
        return fd

    def _share(self, piece: Piece) -> int:
        """A file that several chunks write to; its time and mode wait for the last of them."""
        with self._under_way:
            if piece.path not in self.large:
                self._remove(piece.path)
                fd = os.open(piece.path, NEW, 0o600, dir_fd=self.tree)
                self.large[piece.path] = (piece.mode, piece.mtime_ns)
                os.ftruncate(fd, piece.size)
                return fd
        return os.open(piece.path, OLD, dir_fd=self.tree)

    def finish(self, going_on: Callable[[], None]) -> None:
        """Once all is landed: further names, and the times and modes that had to wait. Raises OSError."""
        for path, (mode, mtime_ns) in self.large.items():
            going_on()
            fd = os.open(path, OLD, dir_fd=self.tree)
            try:
                os.fchmod(fd, mode)
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)
        for path, first in self.links.items():
            going_on()
            try:
                os.unlink(path, dir_fd=self.tree)
            except FileNotFoundError:
                pass
            os.link(first, path, src_dir_fd=self.tree, dst_dir_fd=self.tree, follow_symlinks=False)
        for path in sorted(self.folders, reverse=True):
            going_on()
            mode, mtime_ns = self.folders[path]
            where = path or b"."
            os.utime(where, ns=(mtime_ns, mtime_ns), dir_fd=self.tree)
            os.chmod(where, mode, dir_fd=self.tree)

    def reopen(self) -> None:
        """Make everything writable again, because something has to be landed once more. Raises OSError."""
        for path in sorted(self.folders):
            os.chmod(path or b".", self.folders[path][0] | 0o700, dir_fd=self.tree)
        for path, (mode, _) in self.large.items():
            os.chmod(path, mode | 0o600, dir_fd=self.tree)

    def damaged(self, going_on: Callable[[], None]) -> List[int]:
        """The chunks of which something on the disk is not what was sent: every file is read and digested again."""
        numbers = sorted(self.written)
        found: "List[int]" = []
        shares = [numbers[start :: len(self._threads)] for start in range(len(self._threads))]
        others = [BackgroundTask(self._look_at, share, going_on, found) for share in shares[1:]]
        self._look_at(shares[0], going_on, found)
        for other in others:
            other.finish()
        return sorted(found)

    def _look_at(self, numbers: List[int], going_on: Callable[[], None], found: List[int]) -> None:
        found.extend(number for number in numbers if not self._is_sound(number, going_on))

    def _is_sound(self, number: int, going_on: Callable[[], None]) -> bool:
        for record in self.log.records(number):
            if record[0] != "f":
                continue
            going_on()
            piece = _piece(record)
            if not self.log.counts(piece.path, number):
                continue
            try:
                content = self.read(piece.path, piece.offset, piece.length)
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENOTDIR):
                    raise
                return False
            if hashlib.sha256(content).hexdigest() != piece.digest:
                return False
        return True

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        """What a file of the tree holds. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self.tree)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)


def _piece(record: List[Any]) -> Piece:
    _, path, mode, mtime_ns, size, offset, length, digest = record
    return Piece(wire_paths.decode_path(path), stat.S_IMODE(mode), mtime_ns, size, offset, length, digest)
