"""The sink that computes every digest once, for the manifest and for all engines that send entries."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING

from ezpz.agent.common import layout, manifest
from ezpz.agent.common.manifest import BLOCK
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.source.sparse_blocks import blocks_of, data_extents
from ezpz.yeet.transfer.manifest_builder import ManifestBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.yeet.engines.base import EntrySink
    from ezpz.yeet.model.entry import Provenance
    from ezpz.yeet.transfer.manifest_builder import ManifestSummary
    from ezpz.yeet.transfer.previous_version import PreviousFile, UnchangedFile

OWN = 0o100600  # the mode of the manifest


class EntryTee:
    """Passes entries to the manifest and to the sinks of engines. Safe from any thread.

    A directory comes before its content, and the first name of a file before its hard links. An entry that replaces
    one that was passed before comes after `barrier` and `remove`. Of a directory the last call counts. A file comes by
    `file` or `open_file`, or in blocks, unless `keep` returns True.
    """

    def __init__(self, sinks: Sequence[EntrySink] = ()) -> None:
        self.sinks = tuple(sinks)
        self.manifest = ManifestBuilder()
        self._digests: dict[bytes, dict[int, bytes]] = {}  # of the blocks of files that are not complete yet
        self._lock = threading.Lock()

    @property
    def needs_tree(self) -> bool:
        """Whether an engine sends the complete tree from this host afterwards."""
        return not self.sinks

    def may_have(self, size: int) -> bool:
        """Return whether some nodes may have a file of this size, so that its digest is computed before it is sent."""
        return any(sink.may_have(size) for sink in self.sinks)

    def has(self, size: int, digest: str) -> bool:
        """Return whether all nodes have a file of this content."""
        return all(sink.has(size, digest) for sink in self.sinks)

    def directory(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """Pass a directory. The top is b"" and is not in the manifest."""
        if path:
            self.manifest.directory(path, mode, mtime_ns)
        for sink in self.sinks:
            sink.directory(path, mode, mtime_ns)

    def symlink(self, entry: Entry) -> None:
        """Pass a symbolic link."""
        self.manifest.symlink(entry)
        for sink in self.sinks:
            sink.symlink(entry)

    def hard_link(self, path: bytes, first: bytes) -> None:
        """Pass a hard link to a file or symbolic link."""
        self.manifest.hard_link(path, first)
        for sink in self.sinks:
            sink.hard_link(path, first)

    def file(self, entry: Entry, data: bytes, made: Provenance | None = None) -> None:
        """Pass a file and its content. `made` is None for a file that was not made from the source."""
        digest = manifest.digest(data)
        self.manifest.file(entry, len(data), digest, made)
        for sink in self.sinks:
            if not sink.keep(entry, len(data), digest):
                sink.file(entry, data, digest)

    def open_file(self, entry: Entry, fd: int, made: Provenance | None = None) -> None:
        """Pass a file whose content is behind a descriptor, with its holes. Raise OSError."""
        size = os.fstat(fd).st_size
        if size <= BLOCK:
            self.file(entry, os.pread(fd, size, 0), made)
            return
        receivers = self.sinks
        if self.may_have(size):
            digest = manifest.digest_file(fd, size)
            receivers = tuple(sink for sink in self.sinks if not sink.keep(entry, size, digest))
        if receivers or not self.sinks:
            digests = []
            for number, block in enumerate(blocks_of(fd, size)):
                digests.append(hashlib.sha256(block).digest())
                _send(receivers, entry, size, number * BLOCK, block)
            digest = manifest.joined(digests)
        self.manifest.file(entry, size, digest, made)

    def block(self, entry: Entry, offset: int, block: bytes) -> None:
        """Pass a block of a large file, in any order. Every block but the last has BLOCK bytes."""
        digest = hashlib.sha256(block).digest()
        with self._lock:
            digests = self._digests.setdefault(entry.path, {})
            digests[offset] = digest
            complete = len(digests) * BLOCK >= entry.size
            if complete:
                del self._digests[entry.path]
        _send(self.sinks, entry, entry.size, offset, block)
        if complete:
            self.manifest.file(entry, entry.size, manifest.joined(digests[at] for at in sorted(digests)), None)

    def keep(self, entry: Entry, size: int, digest: str, made: Provenance | None = None) -> bool:
        """Pass a file by its digest if all nodes have its content. Return False, passing nothing, if they do not."""
        if not self.has(size, digest):
            return False
        self.manifest.file(entry, size, digest, made)
        for sink in self.sinks:
            if not sink.keep(entry, size, digest):  # an empty file
                sink.file(entry, b"", digest)
        return True

    def path_of(self, path: bytes) -> None:
        """Return None: nothing is kept on this host."""

    def can_reuse(self, entry: Entry, file: PreviousFile, unchanged: UnchangedFile | None) -> bool:  # noqa: ARG002
        """Return whether all nodes, or this host, have the content of a file of the previous version."""
        return unchanged is not None or self.has(file.size, file.digest)

    def reuse(self, entry: Entry, file: PreviousFile, unchanged: UnchangedFile | None) -> None:
        """Pass a file of the previous version: by its digest, or else with its content from this host."""
        if not self.keep(entry, file.size, file.digest, file.made) and unchanged is not None:
            with open(unchanged.path, "rb") as content:
                self.open_file(entry, content.fileno(), file.made)

    def remove(self, path: bytes) -> None:
        """Discard what was passed for a path. A directory must be empty by then."""
        self.manifest.remove(path)
        for sink in self.sinks:
            sink.remove(path)

    def barrier(self) -> None:
        """Separate what was passed before from what replaces some of it."""
        for sink in self.sinks:
            sink.barrier()

    def finish(self) -> None:
        """Do nothing: every directory was passed with its mode and time."""

    def end(self) -> ManifestSummary:
        """Pass the manifest as the last file, end every sink, and return the manifest. Raise OSError."""
        summary = self.manifest.build()
        entry = Entry(layout.MANIFEST, OWN, 0, len(summary.manifest))
        digest = manifest.digest(summary.manifest)
        for sink in self.sinks:
            sink.file(entry, summary.manifest, digest)
            sink.end()
        return summary

    def close(self) -> None:
        """Discard the manifest."""
        self.manifest.close()


def _send(sinks: Sequence[EntrySink], entry: Entry, size: int, offset: int, block: bytes) -> None:
    """Send the parts of a block that are not holes. Send at least an empty part of the first block."""
    pieces = list(data_extents(block)) or ([(0, b"")] if not offset else [])
    for sink in sinks:
        for start, piece in pieces:
            sink.piece(entry, size, offset + start, piece)
