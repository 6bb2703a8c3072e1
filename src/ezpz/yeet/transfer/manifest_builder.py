"""The manifest of a tree, built from its entries in the order in which threads take them."""

from __future__ import annotations

import io
import json
import stat
import tempfile
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ezpz.agent.common import manifest, tree
from ezpz.agent.common.wire_paths import decode_path, decode_target, encode_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.yeet.model.entry import Entry, Provenance

SPOOL_MEMORY = 32 << 20  # bytes of lines kept in memory, beyond that in a temporary file


class ManifestSummary(NamedTuple):
    """A complete manifest: the totals of the tree, the digest of its content, and the packed lines."""

    survey: tree.Survey
    contents: str
    manifest: bytes


class ManifestBuilder:
    """Collects the lines of a manifest from any thread."""

    def __init__(self) -> None:
        self._spool = tempfile.SpooledTemporaryFile(SPOOL_MEMORY)  # noqa: SIM115 - closed by close()
        self._count = 0
        self._first_valid: dict[bytes, int] = {}  # by path: the number of the first line that counts
        self._linked = False
        self._lock = threading.Lock()

    def directory(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """Add a directory. The last call for a path counts."""
        self._add(["d", encode_path(path), mode & 0o7777, mtime_ns], supersedes=path)

    def symlink(self, entry: Entry) -> None:
        """Add a symbolic link."""
        self._add(["l", encode_path(entry.path), entry.mtime_ns, encode_path(entry.target)])

    def hard_link(self, path: bytes, first: bytes) -> None:
        """Add a hard link to the file or symbolic link `first`."""
        self._linked = True
        self._add(["h", encode_path(path), encode_path(first)])

    def file(self, entry: Entry, size: int, digest: str, made: Provenance | None) -> None:
        """Add a file. `made` is None for a file that was not made from the source."""
        record = ["f", encode_path(entry.path), entry.mode & 0o7777, entry.mtime_ns, size, digest]
        self._add(record if made is None else [*record, list(made)])

    def remove(self, path: bytes) -> None:
        """Ignore every line of a path that was added before."""
        with self._lock:
            self._first_valid[path] = self._count

    def build(self) -> ManifestSummary:
        """Return the manifest of everything that was added. Raise OSError."""
        groups = self._groups()
        tally = _Tally()
        packed = io.BytesIO()
        manifest.write(packed, {}, tally.watch(self._in_order(groups), set(map(min, groups.values()))))
        return ManifestSummary(tally.survey, manifest.content_digest(tally.total), packed.getvalue())

    def close(self) -> None:
        """Discard the lines."""
        self._spool.close()

    def _add(self, record: list[Any], supersedes: bytes = b"") -> None:
        line = manifest.line_of(record)
        with self._lock:
            if supersedes:
                self._first_valid[supersedes] = self._count
            self._count += 1
            self._spool.write(line)

    def _groups(self) -> dict[str, list[str]]:
        """Return all names of each file that has several, by the name that was added first."""
        groups: dict[str, list[str]] = {}
        for _, record in self._lines() if self._linked else ():
            if record[0] == "h":
                groups.setdefault(record[2], [record[2]]).append(record[1])
        return groups

    def _in_order(self, groups: dict[str, list[str]]) -> Iterator[tuple[bytes, list[Any]]]:
        """Yield the valid lines as if the least name of each file had been added first.

        Which name is added first depends on the threads. The manifest does not.
        """
        for line, record in self._lines():
            first = record[2] if record[0] == "h" else record[1]
            least = min(groups.get(first, [first]))
            if least == first:
                yield line, record
                continue
            if record[0] == "h":
                named = ["h", first if record[1] == least else record[1], least]
            else:
                named = [record[0], least, *record[2:]]
            yield manifest.line_of(named), named

    def _lines(self) -> Iterator[tuple[bytes, list[Any]]]:
        """Yield the valid lines and their records."""
        self._spool.seek(0)
        for number, line in enumerate(self._spool):
            record = json.loads(line)
            if number >= self._first_valid.get(decode_path(record[1]), 0):
                yield line, record


class _Tally:
    """Counts the entries of a manifest while its lines are written."""

    def __init__(self) -> None:
        self.total = 0
        self._files = self._bytes = self._entries = self._version = 0

    def watch(self, lines: Iterator[tuple[bytes, list[Any]]], firsts: set[str]) -> Iterator[bytes]:
        """Yield the lines and count them. `firsts` holds the names that have hard links."""
        hard_links = []
        known: dict[str, list[Any]] = {}
        for line, record in lines:
            self.total += manifest.line_hash(line)
            if record[0] == "h":
                hard_links.append(record)
            else:
                self._count(record[1], record)
                if record[1] in firsts:
                    known[record[1]] = record
            yield line
        for _, name, first in hard_links:
            self._count(name, known[first])

    def _count(self, name: str, record: list[Any]) -> None:
        kind, path = record[0], decode_path(name)
        self._entries += 1
        if kind == "d":
            self._version += tree.fingerprint(path, stat.S_IFDIR | record[2], 0, 0, b"")
            return
        self._files += 1
        if kind == "l":
            self._version += tree.fingerprint(path, stat.S_IFLNK | 0o777, 0, 0, decode_target(record[3]))
            return
        self._bytes += record[4]
        self._version += tree.fingerprint(path, stat.S_IFREG | record[2], record[4], record[3], b"")

    @property
    def survey(self) -> tree.Survey:
        """The totals of all lines that were yielded."""
        return tree.Survey(self._files, self._bytes, self._entries, tree.version_of(self._version))
