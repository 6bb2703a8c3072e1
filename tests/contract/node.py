"""A node as the sending side sees it: it listens, lands in a directory and can be asked for any chunk again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.agent.common.cancel import NEVER
from ezpz.agent.common.layout import OWN_FILES
from ezpz.agent.common.messages.parts import PeerAddress
from ezpz.agent.stream import frames
from ezpz.agent.stream.chunk_buffer import ChunkBuffer
from ezpz.agent.stream.chunk_index import ChunkIndex
from ezpz.agent.stream.codec import Codec
from ezpz.agent.stream.connection import Listener
from ezpz.agent.stream.relay import Downstream, Upstream
from ezpz.agent.stream.tree_writer import TreeWriter
from tests.contract.support import photograph
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from ezpz.agent.common.messages.events import Event

SECRET = b"s" * 32
KEY = frames.derive(SECRET, "chunks")


class Node:
    """A child that lands in a directory, as a node's agent does it."""

    def __init__(self, folder: Path, threads: int = 0, old: Path | None = None) -> None:
        """old: the version in place."""
        folder.mkdir()
        self.old = None if old is None else os.open(old, os.O_RDONLY)
        (folder / "tree").mkdir()
        self.root = folder / "tree"
        self.events: list[Event] = []
        self.failures: list[BaseException] = []
        file = os.open(folder / "log", os.O_RDWR | os.O_CREAT)
        self.log = ChunkIndex(file, Codec(), KEY, self.read)
        self.ring = ChunkBuffer(self.log.rebuild_frame)
        self.writer = TreeWriter(
            os.open(self.root, os.O_RDONLY), self.old, self.log, Codec(),
            lambda number, _: self.ring.mark_written(number), self.failures.append, threads,
        )  # fmt: skip
        self.upstream = Upstream(self.ring, KEY, 2.0, self.writer.put, self.events.append)
        self.listener = Listener("127.0.0.1", SECRET, self.upstream.answer, self.upstream.receive)

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        return self.writer.staged.read(path, offset, length)

    @property
    def where(self) -> PeerAddress:
        return PeerAddress(name="child", address="127.0.0.1", port=self.listener.port)

    def from_(self, ring: ChunkBuffer, chunks: tuple[int, ...] = (), serial: int = 1) -> Downstream:
        """Be served by whoever has this ring."""
        self.upstream.expect("parent", serial, list(chunks))
        return Downstream(ring, SECRET, "parent", serial, self.where, 2.0, self.events.append)

    def wait(self) -> None:
        wait_until(lambda: self.ring.is_written or bool(self.failures))
        assert self.failures == []

    def finish(self) -> Path:
        self.wait()
        self.writer.staged.finish(NEVER)
        return self.root

    def close(self) -> None:
        self.listener.close()
        self.ring.cancel_all()
        self.writer.stop()
        self.writer.join()


def facts(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All that is carried of a tree: mode, size, time and content, without inodes and owners."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path, (_, mode, _, size, mtime, content) in photograph(root, inode=False).items():
        if path in OWN_FILES:
            continue
        links = os.lstat(os.path.join(os.fsencode(root), path))
        folder = os.path.isdir(os.path.join(os.fsencode(root), path)) and not os.path.islink(
            os.path.join(os.fsencode(root), path)
        )
        found[path] = (mode, None if folder else size, mtime, content, None if folder else links.st_nlink)
    return found
