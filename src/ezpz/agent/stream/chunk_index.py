"""The lists of all chunks that were written, in one file, so that any chunk can be rebuilt from the disk."""

import os
import threading
from typing import Callable, Dict, List, Tuple

from . import chunks, frames
from .chunk_entry import ChunkEntry
from .codec import Codec

LEVEL = 1  # of compression, for a chunk that is rebuilt

Read = Callable[[bytes, int, int], bytes]
"""Takes path, offset, and length; returns what a file of the tree contains there. Raises OSError."""


class ChunkIndex:
    """Chunk lists by number, kept packed in an open file that needs no name; safe from any thread."""

    def __init__(self, file: int, codec: Codec, key: bytes, read: Read) -> None:
        """Take a descriptor of the file, the key of the chunks' digests, and what reads the tree."""
        self.file = file
        self.codec = codec
        self.key = key
        self.read = read
        self.places: "Dict[int, Tuple[int, int, int, int]]" = {}
        self.superseded: "Dict[bytes, int]" = {}
        self._end = 0
        self._lock = threading.Lock()

    def add(self, number: int, kind: int, packed: bytes, flags: int) -> None:
        """Keep the list of a chunk. Raise OSError."""
        with self._lock:
            if number in self.places:
                return
            place, self._end = self._end, self._end + len(packed)
            self.places[number] = (place, len(packed), kind, flags)
        written = 0
        while written < len(packed):
            written += os.pwrite(self.file, packed[written:], place + written)

    def supersede(self, path: bytes, number: int) -> None:
        """Note that what chunks before this one said of a path is not valid any more."""
        with self._lock:
            self.superseded[path] = max(number, self.superseded.get(path, 0))

    def is_current(self, path: bytes, number: int) -> bool:
        """Return whether no later chunk supersedes what this one says of a path."""
        return bool(self.superseded.get(path, number) <= number)

    def entries(self, number: int) -> List[ChunkEntry]:
        """Return the list of a chunk. Raise OSError or ProtocolError."""
        place, length, kind, _ = self.places[number]
        return chunks.parse_list(os.pread(self.file, length, place), kind, self.codec)

    def numbers(self) -> List[int]:
        """Return the numbers of all chunks, in order."""
        with self._lock:
            return sorted(self.places)

    def rebuild_frame(self, number: int) -> bytes:
        """Return the frame of a chunk, made from what was written. Raise OSError or ProtocolError."""
        place, length, kind, flags = self.places[number]
        packed = os.pread(self.file, length, place)
        pieces = [self._content_of(entry, number) for entry in self.entries(number) if entry.kind == "f"]
        content_kind, content = self.codec.pack(b"".join(pieces), self.codec.best, LEVEL)
        payload = chunks.LENGTH.pack(length, kind) + packed + content
        return frames.encode_frame(self.key, frames.CHUNK, number, payload, content_kind, flags)

    def _content_of(self, piece: ChunkEntry, number: int) -> bytes:
        """Return as many bytes as a piece has, zeros for what the file does not contain any more. Raise OSError."""
        if not self.is_current(piece.path, number):  # the file may be another version, which is sent after this one
            return bytes(piece.length)
        return self.read(piece.path, piece.offset, piece.length)[: piece.length].ljust(piece.length, b"\0")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self.file >= 0:
                os.close(self.file)
                self.file = -1
