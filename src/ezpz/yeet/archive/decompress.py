"""Decompression of archives, in pieces and in a thread of its own."""

from __future__ import annotations

import queue
import zlib
from typing import IO, TYPE_CHECKING

from ezpz.runtime.threads import BackgroundThread
from ezpz.yeet.archive.zstd import INPUT, OUTPUT, Damaged, zstd
from ezpz.yeet.source.archive_formats import GZIP, TAR, ZSTD, ArchiveFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_QUEUED = 8  # pieces that wait to be read
PUT_TIMEOUT = 0.2  # seconds after which a thread with a piece checks whether the reader is closed


def read_plain(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a file as it is. Raises OSError."""
    while data := file.read(OUTPUT):
        yield data


def read_gzip(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a gzip file with one or more members, perhaps padded with zeros. Raises Damaged, OSError."""
    member, data, begun = None, b"", False
    try:
        while data or (data := file.read(INPUT)):
            if member is None:
                data = data.lstrip(b"\0") if begun else data
                if not data:
                    continue
                member, begun = zlib.decompressobj(16 + zlib.MAX_WBITS), True
            found = member.decompress(data, OUTPUT)
            yield found
            while not member.eof and (member.unconsumed_tail or len(found) == OUTPUT):
                found = member.decompress(member.unconsumed_tail, OUTPUT)
                yield found
            data, member = (member.unused_data, None) if member.eof else (b"", member)
    except zlib.error as e:
        raise Damaged(str(e)) from e
    if member is not None:
        raise Damaged("it ends in the middle")


def read_zstd(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a file of zstd frames. Raises Damaged, OSError, ToolMissing."""
    return zstd().unpack_file(file)


READERS: dict[str, Callable[[IO[bytes]], Iterator[bytes]]] = {
    TAR.name: read_plain,
    GZIP.name: read_gzip,
    ZSTD.name: read_zstd,
}


def decompress(file: IO[bytes], kind: ArchiveFormat) -> Iterator[bytes]:
    """Yield the content of a file of a format. Raises Damaged, OSError, ToolMissing."""
    return READERS[kind.name](file)


def split_lines(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yield the lines of a text that arrives in pieces, without line ends. Raises Damaged for more than `limit` bytes.

    Text after the last line end is dropped.
    """
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > limit:
            raise Damaged("a line that is too long")
        yield from lines


class Prefetcher:
    """Iterator over the pieces that another thread takes from an iterator. Close it when no more are needed."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._queue: queue.Queue[bytes | None] = queue.Queue(MAX_QUEUED)
        self._failure: BaseException | None = None
        self._closed = False
        self._worker = BackgroundThread(self._work, self._fail)

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._queue.get()) is not None:
            yield piece
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End the thread. May be called twice."""
        self._closed = True
        self._worker.join()

    def _work(self) -> None:
        for piece in self._pieces:
            if piece:
                self._put(piece)
            if self._closed:
                return
        self._put(None)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._put(None)

    def _put(self, piece: bytes | None) -> None:
        while not self._closed:
            try:
                self._queue.put(piece, timeout=PUT_TIMEOUT)
            except queue.Full:
                continue
            return
