"""The root of a stream: packs entries into chunks while they are read."""

from __future__ import annotations

import tempfile
import threading
from typing import TYPE_CHECKING

from ezpz.agent.common.layout import MANIFEST
from ezpz.agent.common.manifest import BLOCK
from ezpz.agent.stream import chunks, frames
from ezpz.agent.stream.chunk_buffer import KEPT_BYTES, ChunkBuffer
from ezpz.agent.stream.chunk_entry import ChunkEntry
from ezpz.agent.stream.chunk_index import ChunkIndex
from ezpz.yeet.engines.base import RemoteFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.agent.stream.codec import Codec
    from ezpz.yeet.model.entry import Entry

ENTRY_OVERHEAD = 160  # bytes of an entry in the list of a chunk: digest and numbers, without paths
NOTHING = RemoteFiles(())
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
        self._entries: list[ChunkEntry] = []
        self._content: list[bytes] = []
        self._size = self._list_size = 0
        self._number = 0
        self._flags = 0
        self._busy = 0
        self._idle = threading.Condition(self._lock)

    def directory(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """Add a directory; the top is b""."""
        self._add(ChunkEntry("d", path, mode & 0o7777, mtime_ns))

    def symlink(self, entry: Entry) -> None:
        self._add(ChunkEntry("l", entry.path, mtime_ns=entry.mtime_ns, target=entry.target))

    def hard_link(self, path: bytes, first: bytes) -> None:
        """Add a hard link to a file or link."""
        self._add(ChunkEntry("h", path, target=first))

    def remove(self, path: bytes) -> None:
        """Remove an entry that was added before; call `barrier` first, and add the new entry afterwards."""
        self._add(ChunkEntry("x", path))

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
        facts = (entry.path, entry.mode & 0o7777, entry.mtime_ns, size, digest)
        self._add(ChunkEntry("k", *facts, target=held.path, target_mtime_ns=held.mtime_ns))
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
        mode, digest = entry.mode & 0o7777, digest or chunks.digest(data)
        self._add(ChunkEntry("f", entry.path, mode, entry.mtime_ns, size, digest, offset, len(data)), data)

    def _add(self, entry: ChunkEntry, data: bytes = b"") -> None:
        room = ENTRY_OVERHEAD + len(entry.path) + len(entry.target)
        task = None
        with self._lock:
            if self._size + len(data) > self.limit or self._list_size + room > chunks.LIST_LIMIT:
                task = self._cut()
            self._entries.append(entry)
            if data and entry.path != MANIFEST:
                self.files += not entry.offset
                self.bytes += len(data)
            self._size += len(data)
            self._list_size += room
            if data:
                self._content.append(data)
        if task is not None:
            self._pack(*task)

    def _cut(self) -> tuple[int, list[ChunkEntry], list[bytes], int]:
        """Close the chunk that is being filled and return its number and content. The caller holds the lock."""
        task = (self._number, self._entries, self._content, self._flags)
        if self._entries:
            self._number += 1
            self._busy += 1
            self._flags = 0
        self._entries, self._content, self._size, self._list_size = [], [], 0, 0
        return task

    def _pack(self, number: int, entries: list[ChunkEntry], content: list[bytes], flags: int) -> None:
        """Compress a chunk in the thread that filled it, and put it into the buffer. Raises `Cancelled`, OSError."""
        if not entries:
            return
        try:
            level = self.compression.update(self.ring.unsent_bytes())
            kind, payload = chunks.pack(entries, b"".join(content), self.codec, self.kind, level)
            list_kind, packed_list, _ = chunks.split(memoryview(payload))
            self.log.add(number, list_kind, packed_list, flags)
            for entry in entries:
                if entry.kind == "x":
                    self.log.supersede(entry.path, number)
            self.ring.put(number, frames.encode_frame(self.key, frames.CHUNK, number, payload, kind, flags))
            self.ring.mark_written(number)
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()
