"""The manifest of a tree, built from its entries in the order in which threads take them."""

from __future__ import annotations

import io
import stat
import tempfile
import threading
from typing import TYPE_CHECKING, NamedTuple

from ezpz.agent.common import manifest, tree_version
from ezpz.agent.common.manifest import ManifestEntry
from ezpz.agent.common.wire_paths import decode_path, decode_target, encode_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.yeet.model.entry import Entry, Provenance

SPOOL_MEMORY = 32 << 20  # bytes of lines kept in memory, beyond that in a temporary file


class ManifestSummary(NamedTuple):
    """A complete manifest: the totals of the tree, the digest of its content, and the packed lines."""

    survey: tree_version.Survey
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
        self._add(ManifestEntry("d", encode_path(path), mode & 0o7777, mtime_ns), supersedes=path)

    def symlink(self, entry: Entry) -> None:
        """Add a symbolic link."""
        path, target = encode_path(entry.path), encode_path(entry.target)
        self._add(ManifestEntry("l", path, mtime_ns=entry.mtime_ns, target=target))

    def hard_link(self, path: bytes, first: bytes) -> None:
        """Add a hard link to the file or symbolic link `first`."""
        self._linked = True
        self._add(ManifestEntry("h", encode_path(path), target=encode_path(first)))

    def file(self, entry: Entry, size: int, digest: str, made: Provenance | None) -> None:
        """Add a file. `made` is None for a file that was not made from the source."""
        path, mode = encode_path(entry.path), entry.mode & 0o7777
        extra = () if made is None else (list(made),)
        self._add(ManifestEntry("f", path, mode, entry.mtime_ns, size, digest, extra=extra))

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

    def _add(self, entry: ManifestEntry, supersedes: bytes = b"") -> None:
        line = manifest.line_of(entry)
        with self._lock:
            if supersedes:
                self._first_valid[supersedes] = self._count
            self._count += 1
            self._spool.write(line)

    def _groups(self) -> dict[str, list[str]]:
        """Return all names of each file that has several, by the name that was added first."""
        groups: dict[str, list[str]] = {}
        for _, entry in self._lines() if self._linked else ():
            if entry.kind == "h":
                groups.setdefault(entry.target, [entry.target]).append(entry.path)
        return groups

    def _in_order(self, groups: dict[str, list[str]]) -> Iterator[tuple[bytes, ManifestEntry]]:
        """Yield the valid lines as if the least name of each file had been added first.

        Which name is added first depends on the threads. The manifest does not.
        """
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
        """Yield the valid lines and their entries."""
        self._spool.seek(0)
        for number, line in enumerate(self._spool):
            entry = manifest.parse_line(line)
            if number >= self._first_valid.get(decode_path(entry.path), 0):
                yield line, entry


class _Tally:
    """Counts the entries of a manifest while its lines are written."""

    def __init__(self) -> None:
        self.total = 0
        self._files = self._bytes = self._entries = self._version = 0

    def watch(self, lines: Iterator[tuple[bytes, ManifestEntry]], firsts: set[str]) -> Iterator[bytes]:
        """Yield the lines and count them. `firsts` holds the names that have hard links."""
        hard_links = []
        known: dict[str, ManifestEntry] = {}
        for line, entry in lines:
            self.total += manifest.line_hash(line)
            if entry.kind == "h":
                hard_links.append(entry)
            else:
                self._count(entry.path, entry)
                if entry.path in firsts:
                    known[entry.path] = entry
            yield line
        for link in hard_links:
            self._count(link.path, known[link.target])

    def _count(self, name: str, entry: ManifestEntry) -> None:
        kind, path = entry.kind, decode_path(name)
        self._entries += 1
        if kind == "d":
            self._version += tree_version.fingerprint(path, stat.S_IFDIR | entry.mode, 0, 0, b"")
            return
        self._files += 1
        if kind == "l":
            self._version += tree_version.fingerprint(path, stat.S_IFLNK | 0o777, 0, 0, decode_target(entry.target))
            return
        self._bytes += entry.size
        self._version += tree_version.fingerprint(path, stat.S_IFREG | entry.mode, entry.size, entry.mtime_ns, b"")

    @property
    def survey(self) -> tree_version.Survey:
        """The totals of all lines that were yielded."""
        return tree_version.Survey(self._files, self._bytes, self._entries, tree_version.version_of(self._version))
