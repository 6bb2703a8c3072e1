"""Known: what an earlier run made of the same source by the same rules, so that it need not be read again."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from ezpz.agent.common.manifest import same_time
from ezpz.agent.common.wire_paths import decode_path
from ezpz.yeet.model.entry import Provenance
from ezpz.yeet.relocate.bytecode.compile_worker import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ezpz.agent.common.manifest import ManifestEntry
    from ezpz.yeet.model.entry import Entry


class PreviousFile(NamedTuple):
    """What became of a file: permissions, time in ns, bytes, the digest of its content, and how."""

    mode: int
    mtime_ns: int
    size: int
    digest: str
    made: Provenance


class PreviousVersion:
    """The files of a manifest, by path: those that were made from files of the source, and those that were added.

    root: the version in place on this host that the manifest tells of, None when it stands elsewhere
    changed: paths that are not as it tells
    """

    def __init__(self, entries: Iterable[ManifestEntry], root: bytes | None, changed: Iterable[bytes] = ()) -> None:
        self.root = root
        self._changed = frozenset(changed)
        self._results: dict[bytes, PreviousFile] = {}
        self._added: dict[bytes, PreviousFile] = {}
        self._caches: dict[bytes, tuple[int, int]] = {}
        for entry in entries:
            path = decode_path(entry.path)
            if entry.kind == "d" and path.endswith(CACHE):
                self._caches[path] = entry.mode, entry.mtime_ns
            elif entry.kind == "f":
                made = Provenance(*entry.extra[0]) if entry.extra else None
                result = PreviousFile(entry.mode, entry.mtime_ns, entry.size, entry.digest, made or Provenance(-1))
                (self._added if made is None else self._results)[path] = result

    def result_of(self, entry: Entry) -> PreviousFile | None:
        """What was made of this very file of the source, by its size, time and permissions; None for any other."""
        found = self._results.get(entry.path)
        if found is None or entry.content is not None:
            return None
        now = (entry.permissions, entry.mtime_ns, entry.size)
        return found if now == (found.mode, found.mtime_ns, found.made.size) else None

    def added(self, path: bytes) -> PreviousFile | None:
        """A file that was not in the source: bytecode that was made."""
        return self._added.get(path)

    def cache(self, path: bytes) -> tuple[int, int] | None:
        """Permissions and time, in ns, of a folder for bytecode."""
        return self._caches.get(path)

    def standing(self, entry: Entry, result: PreviousFile) -> tuple[bytes, int] | None:
        """Where on this host the result of an entry stands, unchanged, and its inode; None for nowhere."""
        if self.root is None or entry.path in self._changed:
            return None
        path = os.path.join(self.root, entry.path)
        try:
            status = os.lstat(path)
        except OSError:
            return None
        sound = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == result.mode
        if not sound or status.st_size != result.size or not same_time(status.st_mtime_ns, result.mtime_ns):
            return None
        return path, status.st_ino
