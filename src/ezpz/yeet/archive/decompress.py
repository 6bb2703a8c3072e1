"""Stream: what is in a compressed file, piece by piece, unpacked ahead of whoever reads it."""

from __future__ import annotations

import queue
import zlib
from typing import IO, TYPE_CHECKING

from ezpz.runtime.threads import BackgroundThread
from ezpz.yeet.archive.zstd import INPUT, OUTPUT, Damaged, zstd
from ezpz.yeet.source.archive_formats import GZIP, TAR, ZSTD, Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

AHEAD = 8  # pieces that may wait to be read
PATIENCE = 0.2  # seconds that a piece is offered before it is looked whether anybody still wants it


def plain(file: IO[bytes]) -> Iterator[bytes]:
    """The pieces of a file as it is. Raises OSError."""
    while data := file.read(OUTPUT):
        yield data


def gunzip(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a gzip file of one or more members, behind which there may be zeros. Raises Damaged, OSError."""
    unpacking, data, begun = None, b"", False
    try:
        while data or (data := file.read(INPUT)):
            if unpacking is None:
                data = data.lstrip(b"\0") if begun else data
                if not data:
                    continue
                unpacking, begun = zlib.decompressobj(16 + zlib.MAX_WBITS), True
            found = unpacking.decompress(data, OUTPUT)
            yield found
            while not unpacking.eof and (unpacking.unconsumed_tail or len(found) == OUTPUT):
                found = unpacking.decompress(unpacking.unconsumed_tail, OUTPUT)
                yield found
            data, unpacking = (unpacking.unused_data, None) if unpacking.eof else (b"", unpacking)
    except zlib.error as e:
        raise Damaged(str(e)) from e
    if unpacking is not None:
        raise Damaged("it ends in the middle")


def unzstd(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a file of zstd frames. Raises Damaged, OSError, ToolMissing."""
    return zstd().unpack_file(file)


OPENERS: dict[str, Callable[[IO[bytes]], Iterator[bytes]]] = {TAR.name: plain, GZIP.name: gunzip, ZSTD.name: unzstd}


def pieces_of(file: IO[bytes], kind: Format) -> Iterator[bytes]:
    """The content of a file of a format. Raises Damaged, OSError, ToolMissing."""
    return OPENERS[kind.name](file)


def lines_of(pieces: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """The lines of what comes in pieces, each without its end. Raises Damaged for one of more bytes than `longest`."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > longest:
            raise Damaged("a line that is too long")
        yield from lines


class Prefetcher:
    """Iterates over what another thread gets from an iterator; close it when no more is wanted."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._queue: queue.Queue[bytes | None] = queue.Queue(AHEAD)
        self._failure: BaseException | None = None
        self._closed = False
        self._worker = BackgroundThread(self._work, self._fail)

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._queue.get()) is not None:
            yield piece
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End the thread; harmless twice."""
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
                self._queue.put(piece, timeout=PATIENCE)
            except queue.Full:
                continue
            return
