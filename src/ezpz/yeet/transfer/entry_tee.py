"""Intake: takes the entries of a tree while they are read, writes their manifest, and hands them to all who send them.

What a file is known by is worked out here, once, whoever wants it.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
import threading
from typing import TYPE_CHECKING, NamedTuple

from ezpz.agent.common import layout, manifest, tree
from ezpz.agent.common.manifest import BLOCK, ManifestEntry
from ezpz.agent.common.wire_paths import decode_path, decode_target, encode_path
from ezpz.yeet.model.entry import Entry, Provenance
from ezpz.yeet.source.sparse_blocks import blocks_of, data_extents

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ezpz.yeet.engines.base import EntrySink

SPOOL_MEMORY = 32 << 20  # bytes of lines kept in memory, beyond that in a temporary file
OWN = 0o100600  # the manifest's mode


class ManifestSummary(NamedTuple):
    """What an intake took: its survey, its manifest, packed, and the `contents` of that; see `manifest.contents_of`."""

    survey: tree.Survey
    contents: str
    manifest: bytes


class EntryTee:
    """Safe from any thread. A folder comes before what is in it, the first name of a file before any further one.

    What takes the place of something that was taken already comes after `barrier` and `remove`; of a folder the last
    word counts. A file comes by `file` or `open_file`, or in blocks, unless `keep` says that everybody has it.
    """

    def __init__(self, feeds: Sequence[EntrySink] = ()) -> None:
        self.feeds = tuple(feeds)
        self._spool = tempfile.SpooledTemporaryFile(SPOOL_MEMORY)  # noqa: SIM115 - closed by close()
        self._count = 0
        self._last: dict[bytes, int] = {}  # the line from where on something counts
        self._linked = False
        self._digests: dict[bytes, dict[int, bytes]] = {}  # of the blocks of files that are not complete yet
        self._lock = threading.Lock()

    @property
    def needs_tree(self) -> bool:
        """Whether somebody sends the whole tree from this host afterwards."""
        return not self.feeds or any(feed.needs_tree for feed in self.feeds)

    def may_have(self, size: int) -> bool:
        """Whether some nodes have a file of this size, and its digest is worth knowing before it is sent."""
        return any(feed.may_have(size) for feed in self.feeds)

    def has(self, size: int, digest: str) -> bool:
        """Whether all nodes have a file of this content."""
        return all(feed.has(size, digest) for feed in self.feeds)

    def folder(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """A folder; the top is b""."""
        if path:
            self._note(ManifestEntry("d", encode_path(path), mode & 0o7777, mtime_ns), supersedes=path)
        for feed in self.feeds:
            feed.folder(path, mode, mtime_ns)

    def symlink(self, entry: Entry) -> None:
        path, target = encode_path(entry.path), encode_path(entry.target)
        self._note(ManifestEntry("l", path, mtime_ns=entry.mtime_ns, target=target))
        for feed in self.feeds:
            feed.symlink(entry)

    def further(self, path: bytes, first: bytes) -> None:
        """A further name of a file or link."""
        self._linked = True
        self._note(ManifestEntry("h", encode_path(path), target=encode_path(first)))
        for feed in self.feeds:
            feed.further(path, first)

    def file(self, entry: Entry, data: bytes, made: Provenance | None = None) -> None:
        """A file that holds `data`; made: None for one that was not made from the source."""
        digest = manifest.digest(data)
        self._note_file(entry, len(data), digest, made)
        for feed in self.feeds:
            if not feed.keep(entry, len(data), digest):
                feed.file(entry, data, digest)

    def open_file(self, entry: Entry, fd: int, made: Provenance | None = None) -> None:
        """A file as it is behind a descriptor, with its holes. Raises OSError."""
        size = os.fstat(fd).st_size
        if size <= BLOCK:
            self.file(entry, os.pread(fd, size, 0), made)
            return
        wanting = self.feeds
        if self.may_have(size):
            digest = manifest.digest_file(fd, size)
            wanting = tuple(feed for feed in self.feeds if not feed.keep(entry, size, digest))
        if wanting or not self.feeds:
            digests = []
            for number, block in enumerate(blocks_of(fd, size)):
                digests.append(hashlib.sha256(block).digest())
                _send(wanting, entry, size, number * BLOCK, block)
            digest = manifest.joined(digests)
        self._note_file(entry, size, digest, made)

    def block(self, entry: Entry, offset: int, block: bytes) -> None:
        """A block of a large file, all but the last of them BLOCK bytes; in any order."""
        digest = hashlib.sha256(block).digest()
        with self._lock:
            digests = self._digests.setdefault(entry.path, {})
            digests[offset] = digest
            complete = len(digests) * BLOCK >= entry.size
            if complete:
                del self._digests[entry.path]
        _send(self.feeds, entry, entry.size, offset, block)
        if complete:
            self._note_file(entry, entry.size, manifest.joined(digests[at] for at in sorted(digests)), None)

    def keep(self, entry: Entry, size: int, digest: str, made: Provenance | None = None) -> bool:
        """Whether all nodes have a file of this content, so that nobody has to read it; then it is taken."""
        if not self.has(size, digest):
            return False
        self._note_file(entry, size, digest, made)
        for feed in self.feeds:
            if not feed.keep(entry, size, digest):  # nothing is in it
                feed.file(entry, b"", digest)
        return True

    def remove(self, path: bytes) -> None:
        """What was taken of a path counts no more; a folder must be empty by then."""
        with self._lock:
            self._last[path] = self._count
        for feed in self.feeds:
            feed.remove(path)

    def barrier(self) -> None:
        """What follows takes the place of some of what was taken before."""
        for feed in self.feeds:
            feed.barrier()

    def end(self) -> ManifestSummary:
        """There is no more; what it was. The manifest is handed on as a file of ours. Raises OSError."""
        groups = self._groups()
        tally = _Tally()
        packed = io.BytesIO()
        manifest.write(packed, {}, tally.watch(self._in_order(groups), set(map(min, groups.values()))))
        taken = ManifestSummary(tally.survey, manifest.content_digest(tally.total), packed.getvalue())
        entry = Entry(layout.MANIFEST, OWN, 0, len(taken.manifest))
        digest = manifest.digest(taken.manifest)
        for feed in self.feeds:
            feed.file(entry, taken.manifest, digest)
            feed.end()
        return taken

    def close(self) -> None:
        self._spool.close()

    def _note_file(self, entry: Entry, size: int, digest: str, made: Provenance | None) -> None:
        extra = () if made is None else (list(made),)
        mode = entry.mode & 0o7777
        self._note(ManifestEntry("f", encode_path(entry.path), mode, entry.mtime_ns, size, digest, extra=extra))

    def _note(self, entry: ManifestEntry, supersedes: bytes = b"") -> None:
        line = manifest.line_of(entry)
        with self._lock:
            if supersedes:
                self._last[supersedes] = self._count
            self._count += 1
            self._spool.write(line)

    def _groups(self) -> dict[str, list[str]]:
        """All names of what has several, by the one that was taken first."""
        groups: dict[str, list[str]] = {}
        for _, entry in self._lines() if self._linked else ():
            if entry.kind == "h":
                groups.setdefault(entry.target, [entry.target]).append(entry.path)
        return groups

    def _in_order(self, groups: dict[str, list[str]]) -> Iterator[tuple[bytes, ManifestEntry]]:
        """The lines that count, as if of several names the least had been taken first; threads take any of them."""
        for line, entry in self._lines():
            first = entry.target if entry.kind == "h" else entry.path
            least = min(groups.get(first, [first]))
            if least == first:
                yield line, entry
                continue
            if entry.kind == "h":
                named = ManifestEntry("h", first if entry.path == least else entry.path, target=least)
            else:
                named = entry._replace(path=least)
            yield manifest.line_of(named), named

    def _lines(self) -> Iterator[tuple[bytes, ManifestEntry]]:
        """The lines that count, and what they say."""
        self._spool.seek(0)
        for number, line in enumerate(self._spool):
            entry = manifest.parse_line(line)
            if number >= self._last.get(decode_path(entry.path), 0):
                yield line, entry


def _send(feeds: Sequence[EntrySink], entry: Entry, size: int, offset: int, block: bytes) -> None:
    """Hand on what is no hole of a block; of the first one an empty piece, at least."""
    pieces = list(data_extents(block)) or ([(0, b"")] if not offset else [])
    for feed in feeds:
        for start, piece in pieces:
            feed.piece(entry, size, offset + start, piece)


class _Tally:
    """Counts the entries of a manifest as they pass by."""

    def __init__(self) -> None:
        self.total = 0
        self._files = self._bytes = self._entries = self._version = 0

    def watch(self, lines: Iterator[tuple[bytes, ManifestEntry]], firsts: set[str]) -> Iterator[bytes]:
        """firsts: the names that others are further ones of."""
        further = []
        known: dict[str, ManifestEntry] = {}
        for line, entry in lines:
            self.total += manifest.line_hash(line)
            if entry.kind == "h":
                further.append(entry)
            else:
                self._count(entry.path, entry)
                if entry.path in firsts:
                    known[entry.path] = entry
            yield line
        for entry in further:
            self._count(entry.path, known[entry.target])

    def _count(self, name: str, entry: ManifestEntry) -> None:
        kind, path = entry.kind, decode_path(name)
        self._entries += 1
        if kind == "d":
            self._version += tree.fingerprint(path, stat.S_IFDIR | entry.mode, 0, 0, b"")
            return
        self._files += 1
        if kind == "l":
            self._version += tree.fingerprint(path, stat.S_IFLNK | 0o777, 0, 0, decode_target(entry.target))
            return
        self._bytes += entry.size
        self._version += tree.fingerprint(path, stat.S_IFREG | entry.mode, entry.size, entry.mtime_ns, b"")

    @property
    def survey(self) -> tree.Survey:
        return tree.Survey(self._files, self._bytes, self._entries, tree.version_of(self._version))
