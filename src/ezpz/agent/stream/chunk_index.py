"""Log: the lists of all chunks that were landed, in one file, so that any of them can be made again from the disk."""

import os
import threading
from typing import Any, Callable, Dict, Iterator, List, Tuple

from ezpz.agent.common import wire_paths
from ezpz.agent.stream import chunks, frames
from ezpz.agent.stream.codec import Codec

LEVEL = 1  # of compression, for a chunk that is made again

Read = Callable[[bytes, int, int], bytes]
"""path, offset, length: what a file of the tree holds there. Raises OSError."""


class ChunkIndex:
    """Chunk lists by number, kept packed in an open file that needs no name; safe from any thread.

    key: of the chunks' digests; read: the content of the tree
    """

    def __init__(self, file: int, codec: Codec, key: bytes, read: Read) -> None:
        self.file = file
        self.codec = codec
        self.key = key
        self.read = read
        self.places: "Dict[int, Tuple[int, int, int, int]]" = {}
        self.last: "Dict[bytes, int]" = {}
        self._end = 0
        self._lock = threading.Lock()

    def add(self, number: int, kind: int, packed: bytes, flags: int) -> None:
        """Keep the list of a chunk. Raises OSError."""
        with self._lock:
            if number in self.places:
                return
            place, self._end = self._end, self._end + len(packed)
            self.places[number] = (place, len(packed), kind, flags)
        written = 0
        while written < len(packed):
            written += os.pwrite(self.file, packed[written:], place + written)

    def replaced(self, path: bytes, number: int) -> None:
        """Note that what was said of a path before this chunk counts no more."""
        with self._lock:
            self.last[path] = max(number, self.last.get(path, 0))

    def counts(self, path: bytes, number: int) -> bool:
        """Whether no later chunk says something else of this path."""
        return bool(self.last.get(path, number) <= number)

    def records(self, number: int) -> List[List[Any]]:
        """The list of a chunk. Raises OSError, Malformed."""
        place, length, kind, _ = self.places[number]
        return chunks.records_of(os.pread(self.file, length, place), kind, self.codec)

    def numbers(self) -> List[int]:
        """All chunks, in order."""
        with self._lock:
            return sorted(self.places)

    def again(self, number: int) -> bytes:
        """The frame of a chunk, made from what was landed. Raises OSError, Malformed."""
        place, length, kind, flags = self.places[number]
        packed = os.pread(self.file, length, place)
        pieces = []
        for path, offset, size, counts in self._pieces(number):
            # what stands there may be another version by now, which is sent after this one
            pieces.append(self.read(path, offset, size)[:size].ljust(size, b"\0") if counts else bytes(size))
        content_kind, content = self.codec.pack(b"".join(pieces), self.codec.best, LEVEL)
        payload = chunks.LENGTH.pack(length, kind) + packed + content
        return frames.encode_frame(self.key, frames.CHUNK, number, payload, content_kind, flags)

    def _pieces(self, number: int) -> Iterator[Tuple[bytes, int, int, bool]]:
        for record in self.records(number):
            if record[0] == "f":
                path = wire_paths.decode_path(record[1])
                yield path, record[5], record[6], self.counts(path, number)

    def close(self) -> None:
        """Forget all of it."""
        with self._lock:
            if self.file >= 0:
                os.close(self.file)
                self.file = -1
