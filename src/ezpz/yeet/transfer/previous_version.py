"""The files that an earlier run made of the same source by the same rules, which need not be read again."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from ezpz.agent.common.manifest import same_time
from ezpz.agent.common.wire_paths import decode_path
from ezpz.yeet.model.entry import BYTECODE_DIRECTORY, Provenance

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ezpz.agent.common.manifest import ManifestEntry
    from ezpz.yeet.model.entry import Entry


class PreviousFile(NamedTuple):
    """What a file became: permissions, time in ns, bytes, the digest of its content, and how it was made."""

    mode: int
    mtime_ns: int
    size: int
    digest: str
    made: Provenance


class UnchangedFile(NamedTuple):
    """A file of the previous version that this host still has as the manifest describes it."""

    path: bytes
    inode: int


class PreviousVersion:
    """The files of a manifest, by path: those made from files of the source, and those that were added.

    Args:
        entries: The entries of the manifest.
        root: The copy on this host that the manifest describes, or None if the copy is elsewhere.
        changed: The paths of the copy that differ from the manifest.
    """

    def __init__(self, entries: Iterable[ManifestEntry], root: bytes | None, changed: Iterable[bytes] = ()) -> None:
        self.root = root
        self._changed = frozenset(changed)
        self._results: dict[bytes, PreviousFile] = {}
        self._added: dict[bytes, PreviousFile] = {}
        self._caches: dict[bytes, tuple[int, int]] = {}
        for entry in entries:
            path = decode_path(entry.path)
            if entry.kind == "d" and path.endswith(BYTECODE_DIRECTORY):
                self._caches[path] = entry.mode, entry.mtime_ns
            elif entry.kind == "f":
                made = Provenance(*entry.extra[0]) if entry.extra else None
                result = PreviousFile(entry.mode, entry.mtime_ns, entry.size, entry.digest, made or Provenance(-1))
                (self._added if made is None else self._results)[path] = result

    @property
    def is_empty(self) -> bool:
        """Whether nothing was made from a file of the source."""
        return not self._results

    def result_of(self, entry: Entry) -> PreviousFile | None:
        """Return what became of a file of the source with the same size, time and permissions, or None."""
        found = self._results.get(entry.path)
        if found is None or entry.content is not None:
            return None
        now = (entry.permissions, entry.mtime_ns, entry.size)
        return found if now == (found.mode, found.mtime_ns, found.made.size) else None

    def added(self, path: bytes) -> PreviousFile | None:
        """Return a file that was not in the source, which is bytecode that was made, or None."""
        return self._added.get(path)

    def cache(self, path: bytes) -> tuple[int, int] | None:
        """Return the permissions and the time in ns of a directory for bytecode, or None."""
        return self._caches.get(path)

    def find_unchanged(self, entry: Entry, file: PreviousFile) -> UnchangedFile | None:
        """Return the unchanged result of an entry on this host, or None if this host does not have it."""
        if self.root is None or entry.path in self._changed:
            return None
        path = os.path.join(self.root, entry.path)
        try:
            status = os.lstat(path)
        except OSError:
            return None
        sound = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == file.mode
        if not sound or status.st_size != file.size or not same_time(status.st_mtime_ns, file.mtime_ns):
            return None
        return UnchangedFile(path, status.st_ino)


NO_PREVIOUS_VERSION = PreviousVersion((), None)
