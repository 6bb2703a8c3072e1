"""Feed: entries become chunks of the stream, as they are read; the root's part of a stream."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from ezpz.yeet.agent import chunk, frames, tree
from ezpz.yeet.agent.log import Log
from ezpz.yeet.agent.ring import KEEP, Ring
from ezpz.yeet.relocate.large import extents

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.yeet.agent.codec import Codec
    from ezpz.yeet.entry import Entry

ENTRY = 160  # bytes of a list that an entry takes, besides its path; digest and numbers
LOWEST, HIGHEST = 1, 3  # zstd's levels; the next one saves 2 % more, and takes every node a fifth longer to undo


class Effort:
    """The level of compression: higher while the wire is what everybody waits for, lower while the compression is."""

    def __init__(self) -> None:
        self.level = LOWEST

    def judge(self, waiting: int) -> int:
        """The level for the next chunk; `waiting`: bytes that wait for the wire."""
        if waiting > KEEP // 2:
            self.level = min(HIGHEST, self.level + 1)
        elif waiting < KEEP // 8:
            self.level = max(LOWEST, self.level - 1)
        return self.level


class Feed:
    """Packs what it is given into chunks and puts them on the ring; safe from any thread.

    secret: the run's; kind: the compression that every node can undo; read: what a file of the tree holds, to make a
    chunk again; limit: bytes of content in a chunk; fed: is told how many chunks and bytes have been made

    A folder is given before what is in it, and the first name of a file before any further one.
    """

    def __init__(
        self,
        secret: bytes,
        codec: Codec,
        kind: int,
        read: Callable[[bytes, int, int], bytes],
        limit: int = chunk.CONTENT_LIMIT,
        *,
        needs_tree: bool = False,
    ) -> None:
        self.needs_tree = needs_tree
        self.codec = codec
        self.kind = kind
        self.limit = limit
        self.key = frames.derive(secret, "chunks")
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.log = Log(self._file.fileno(), codec, self.key, read)
        self.ring = Ring(self.log.again)
        self.effort = Effort()
        self.files = self.bytes = 0
        self._lock = threading.Lock()
        self._records: list[list[Any]] = []
        self._content: list[bytes] = []
        self._size = self._list_size = 0
        self._number = 0
        self._flags = 0
        self._busy = 0
        self._idle = threading.Condition(self._lock)

    def folder(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """A folder; the top is b""."""
        self._add(["d", chunk.text(path), mode & 0o7777, mtime_ns])

    def symlink(self, entry: Entry) -> None:
        self._add(["l", chunk.text(entry.path), entry.mtime_ns, chunk.text(entry.target)])

    def further(self, path: bytes, first: bytes) -> None:
        """A further name of a file or link."""
        self._add(["h", chunk.text(path), chunk.text(first)])

    def remove(self, path: bytes) -> None:
        """What was fed of a path before counts no more; `barrier` comes first, and what it is now after."""
        self._add(["x", chunk.text(path)])

    def file(self, entry: Entry, data: bytes) -> None:
        """A file that holds `data`."""
        if len(data) <= self.limit:
            self._piece(entry, len(data), 0, data)
            return
        for start in range(0, len(data), self.limit):
            self._piece(entry, len(data), start, data[start : start + self.limit])

    def piece(self, entry: Entry, offset: int, data: bytes) -> None:
        """Some of a file that has `entry.size` bytes."""
        for start in range(0, len(data), self.limit) or (0,):
            self._piece(entry, entry.size, offset + start, data[start : start + self.limit])

    def open_file(self, entry: Entry, fd: int) -> None:
        """A file as it is behind a descriptor, with its holes. Raises OSError."""
        status = os.fstat(fd)
        fed = False
        for start, end in extents(fd, status):
            offset = start
            while offset < end and (data := os.pread(fd, min(self.limit, end - offset), offset)):
                self._piece(entry, status.st_size, offset, data)
                offset += len(data)
                fed = True
        if not fed:
            self._piece(entry, status.st_size, 0, b"")

    def barrier(self) -> None:
        """What follows takes the place of some of what was fed before."""
        with self._lock:
            task = self._cut()
            self._flags = frames.BARRIER
        self._pack(*task)

    def end(self) -> None:
        """There is no more."""
        with self._lock:
            task = self._cut()
        self._pack(*task)
        with self._idle:
            while self._busy:
                self._idle.wait()
        self.ring.end(self._number)

    def close(self) -> None:
        """Let go of everything, and of everybody who waits."""
        self.ring.give_up()
        self.log.file = -1
        self._file.close()

    def survey(self) -> tree.Survey:
        """What was fed, counted, with its version: the same as a survey of the tree that it makes. Raises OSError."""
        return survey_of(self.log)

    def _piece(self, entry: Entry, size: int, offset: int, data: bytes) -> None:
        facts = [size, offset, len(data), chunk.digest(data)]
        self._add(["f", chunk.text(entry.path), entry.mode & 0o7777, entry.mtime_ns, *facts], data)

    def _add(self, record: list[Any], data: bytes = b"") -> None:
        room = ENTRY + len(record[1]) + (len(record[-1]) if isinstance(record[-1], str) else 0)
        task = None
        with self._lock:
            if self._size + len(data) > self.limit or self._list_size + room > chunk.LIST_LIMIT:
                task = self._cut()
            self._records.append(record)
            self._size += len(data)
            self._list_size += room
            if data:
                self._content.append(data)
        if task is not None:
            self._pack(*task)

    def _cut(self) -> tuple[int, list[list[Any]], list[bytes], int]:
        """Close the chunk that is being filled: its number and what is in it; called with the lock."""
        task = (self._number, self._records, self._content, self._flags)
        if self._records:
            self._number += 1
            self._busy += 1
            self._flags = 0
        self._records, self._content, self._size, self._list_size = [], [], 0, 0
        return task

    def _pack(self, number: int, records: list[list[Any]], content: list[bytes], flags: int) -> None:
        """Compress a chunk, in the thread that filled it, and put it on the ring. Raises Over, OSError."""
        if not records:
            return
        try:
            level = self.effort.judge(self.ring.waiting())
            kind, payload = chunk.pack(records, b"".join(content), self.codec, self.kind, level)
            list_kind, packed_list, _ = chunk.split(memoryview(payload))
            self.log.add(number, list_kind, packed_list, flags)
            for record in records:
                if record[0] == "x":
                    self.log.replaced(chunk.raw(record[1]), number)
            self.ring.put(number, frames.seal(self.key, frames.CHUNK, number, payload, kind, flags))
            self.ring.land(number)
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()


def survey_of(log: Log) -> tree.Survey:
    """The survey of the tree that the chunks of a log make. Raises OSError."""
    files = size = total = 0
    folders: dict[bytes, int] = {}
    facts: dict[bytes, tuple[int, int, int, bytes]] = {}
    seen: set[bytes] = set()
    firsts = {chunk.raw(record[2]) for number in log.numbers() for record in log.records(number) if record[0] == "h"}
    for number in log.numbers():
        for record in log.records(number):
            path = chunk.raw(record[1])
            if not path or record[0] == "x" or not log.counts(path, number):
                continue
            fact = _fact(record, facts)
            if path in firsts:
                facts[path] = fact
            if record[0] == "d":
                folders[path] = tree.fingerprint(path, *fact)
                continue
            if record[0] == "f" and record[6] != record[4]:  # told in pieces
                if path in seen:
                    continue
                seen.add(path)
            files += 1
            size += fact[1]
            total += tree.fingerprint(path, *fact)
    return tree.Survey(files, size, files + len(folders), tree.version_of(total + sum(folders.values())))


def _fact(record: list[Any], firsts: dict[bytes, tuple[int, int, int, bytes]]) -> tuple[int, int, int, bytes]:
    """Mode, size, time and target of an entry."""
    kind = record[0]
    if kind == "d":
        return stat.S_IFDIR | record[2], 0, record[3], b""
    if kind == "f":
        return stat.S_IFREG | record[2], record[4], record[3], b""
    if kind == "l":
        return stat.S_IFLNK | 0o777, 0, record[2], chunk.raw_target(record[3])
    return firsts[chunk.raw(record[2])]
