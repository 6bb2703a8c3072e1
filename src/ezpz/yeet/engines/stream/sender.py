"""The root of a stream: packs entries into chunks while they are read."""

from __future__ import annotations

import tempfile
import threading
from typing import TYPE_CHECKING, Any

from ezpz.agent.common import wire_paths
from ezpz.agent.common.layout import MANIFEST
from ezpz.agent.common.manifest import BLOCK
from ezpz.agent.stream import chunks, frames
from ezpz.agent.stream.chunk_buffer import KEPT_BYTES, ChunkBuffer
from ezpz.agent.stream.chunk_index import ChunkIndex
from ezpz.yeet.engines.base import RemoteFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.agent.stream.codec import Codec
    from ezpz.yeet.model.entry import Entry

ENTRY_OVERHEAD = 160  # bytes of an entry in the list of a chunk: digest and numbers, without paths
NOTHING = RemoteFiles(())
OWN = wire_paths.encode_path(MANIFEST)
MIN_LEVEL, MAX_LEVEL = 1, 3  # of zstd; level 4 saves 2 % more, and decompression takes a fifth longer on every node


class CompressionLevel:
    """The level of compression: higher while the wire limits the stream, lower while the compression does."""

    def __init__(self) -> None:
        self.level = MIN_LEVEL

    def update(self, waiting: int) -> int:
        """Return the level for the next chunk; `waiting`: bytes that wait for the wire."""
        if waiting > KEPT_BYTES // 2:
            self.level = min(MAX_LEVEL, self.level + 1)
        elif waiting < KEPT_BYTES // 8:
            self.level = max(MIN_LEVEL, self.level - 1)
        return self.level


class StreamSender:
    """Sink that packs entries into chunks and puts them into the buffer; safe from any thread.

    A directory is given before its entries, and a file before its hard links.

    Args:
        secret: Secret of the run.
        codec: Compresses and decompresses.
        kind: Compression that every node can undo.
        read: Returns the content of a file of the tree, to make a chunk again.
        limit: Bytes of content in a chunk.
        base: Files that the nodes have already.

    Attributes:
        files: Files that were given with their content, without ezpz's manifest.
        bytes: Their content.
    """

    def __init__(
        self,
        secret: bytes,
        codec: Codec,
        kind: int,
        read: Callable[[bytes, int, int], bytes],
        limit: int = chunks.CONTENT_LIMIT,
        *,
        base: RemoteFiles = NOTHING,
    ) -> None:
        self.base = base
        self.codec = codec
        self.kind = kind
        self.limit = limit
        self.key = frames.derive(secret, "chunks")
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.log = ChunkIndex(self._file.fileno(), codec, self.key, read)
        self.ring = ChunkBuffer(self.log.rebuild_frame)
        self.compression = CompressionLevel()
        self.files = self.bytes = 0
        self._lock = threading.Lock()
        self._records: list[list[Any]] = []
        self._content: list[bytes] = []
        self._size = self._list_size = 0
        self._number = 0
        self._flags = 0
        self._busy = 0
        self._idle = threading.Condition(self._lock)

    def directory(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """Add a directory; the top is b""."""
        self._add(["d", wire_paths.encode_path(path), mode & 0o7777, mtime_ns])

    def symlink(self, entry: Entry) -> None:
        self._add(["l", wire_paths.encode_path(entry.path), entry.mtime_ns, wire_paths.encode_path(entry.target)])

    def hard_link(self, path: bytes, first: bytes) -> None:
        """Add a hard link to a file or link."""
        self._add(["h", wire_paths.encode_path(path), wire_paths.encode_path(first)])

    def remove(self, path: bytes) -> None:
        """Remove an entry that was added before; call `barrier` first, and add the new entry afterwards."""
        self._add(["x", wire_paths.encode_path(path)])

    def may_have(self, size: int) -> bool:
        """Return whether the nodes may have a large file of this size already."""
        return size in self.base.large

    def has(self, size: int, digest: str) -> bool:
        """Return whether the nodes have a file of this content already."""
        return not size or digest in self.base.files

    def keep(self, entry: Entry, size: int, digest: str) -> bool:
        """Tell the nodes to reuse a file they already have. Return False, sending nothing, if they do not have it."""
        held = self.base.files.get(digest) if size else None
        if held is None or held.size != size:
            return False
        facts = [entry.mtime_ns, size, digest, wire_paths.encode_path(held.path), held.mtime_ns]
        self._add(["k", wire_paths.encode_path(entry.path), entry.mode & 0o7777, *facts])
        return True

    def file(self, entry: Entry, data: bytes, digest: str) -> None:
        """Add a file with the content `data`."""
        if len(data) <= min(BLOCK, self.limit):
            self._piece(entry, len(data), 0, data, digest)
        else:
            self.piece(entry, len(data), 0, data)

    def piece(self, entry: Entry, size: int, offset: int, data: bytes) -> None:
        """Add a part of a file that has `size` bytes."""
        most = min(BLOCK, self.limit)
        for start in range(0, len(data), most) or (0,):
            self._piece(entry, size, offset + start, data[start : start + most])

    def barrier(self) -> None:
        """Let nodes finish what was added before: what follows replaces some of it."""
        with self._lock:
            task = self._cut()
            self._flags = frames.BARRIER
        self._pack(*task)

    def end(self) -> None:
        """Send the last chunk, and end the stream."""
        with self._lock:
            task = self._cut()
        self._pack(*task)
        with self._idle:
            while self._busy:
                self._idle.wait()
        self.ring.end(self._number)

    def close(self) -> None:
        """Release all resources, and all threads that wait."""
        self.ring.cancel_all()
        self.log.file = -1
        self._file.close()

    def _piece(self, entry: Entry, size: int, offset: int, data: bytes, digest: str = "") -> None:
        facts = [size, offset, len(data), digest or chunks.digest(data)]
        self._add(["f", wire_paths.encode_path(entry.path), entry.mode & 0o7777, entry.mtime_ns, *facts], data)

    def _add(self, record: list[Any], data: bytes = b"") -> None:
        room = ENTRY_OVERHEAD + len(record[1]) + (len(record[-1]) if isinstance(record[-1], str) else 0)
        task = None
        with self._lock:
            if self._size + len(data) > self.limit or self._list_size + room > chunks.LIST_LIMIT:
                task = self._cut()
            self._records.append(record)
            if data and record[1] != OWN:
                self.files += not record[5]
                self.bytes += len(data)
            self._size += len(data)
            self._list_size += room
            if data:
                self._content.append(data)
        if task is not None:
            self._pack(*task)

    def _cut(self) -> tuple[int, list[list[Any]], list[bytes], int]:
        """Close the chunk that is being filled and return its number and content. The caller holds the lock."""
        task = (self._number, self._records, self._content, self._flags)
        if self._records:
            self._number += 1
            self._busy += 1
            self._flags = 0
        self._records, self._content, self._size, self._list_size = [], [], 0, 0
        return task

    def _pack(self, number: int, records: list[list[Any]], content: list[bytes], flags: int) -> None:
        """Compress a chunk in the thread that filled it, and put it into the buffer. Raises `Cancelled`, OSError."""
        if not records:
            return
        try:
            level = self.compression.update(self.ring.unsent_bytes())
            kind, payload = chunks.pack(records, b"".join(content), self.codec, self.kind, level)
            list_kind, packed_list, _ = chunks.split(memoryview(payload))
            self.log.add(number, list_kind, packed_list, flags)
            for record in records:
                if record[0] == "x":
                    self.log.supersede(wire_paths.decode_path(record[1]), number)
            self.ring.put(number, frames.encode_frame(self.key, frames.CHUNK, number, payload, kind, flags))
            self.ring.mark_written(number)
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()
