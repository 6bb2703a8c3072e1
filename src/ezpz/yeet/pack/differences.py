"""Differences between an existing archive and the source that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.manifest import Unreadable
from ezpz.agent.common.text import printable_path
from ezpz.agent.common.wire_paths import ProtocolError, decode_path, decode_target
from ezpz.runtime.text import pluralize
from ezpz.yeet.archive.info import is_complete, read_records

if TYPE_CHECKING:
    from ezpz.agent.common.manifest import ManifestEntry
    from ezpz.yeet.archive.info import ArchiveInfo
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.pack.archive_plan import ArchivePlan

MAX_NAMED = 5  # paths of each kind that are listed


@dataclass(frozen=True, slots=True)
class Differences:
    """Paths of the source that are new, changed and gone since the archive was made, sorted.

    Attributes:
        new: paths that the archive lacks
        changed: paths that differ
        gone: paths that only the archive has
        reason: why nothing is known of paths, else ""
    """

    new: tuple[bytes, ...] = ()
    changed: tuple[bytes, ...] = ()
    gone: tuple[bytes, ...] = ()
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the number of paths of each kind, and the first few of them, for JSON."""
        kinds = {"new": self.new, "changed": self.changed, "gone": self.gone}
        counted = {name: {"count": len(paths), "first": list(paths[:MAX_NAMED])} for name, paths in kinds.items()}
        return {**counted, "reason": self.reason}

    @property
    def summary(self) -> str:
        """Summary for people: 2 changed (bin/a, lib/b), 1 new (c)."""
        if self.reason:
            return self.reason
        kinds = (("changed", self.changed), ("new", self.new), ("gone", self.gone))
        return ", ".join(f"{len(paths):,} {name} ({_list_paths(paths)})" for name, paths in kinds if paths)


def find_differences(path: str, info: ArchiveInfo | None, plan: ArchivePlan) -> Differences:
    """Compare an archive with the plan for a new one.

    Args:
        path: the archive
        info: its manifest's header, None if it has none
        plan: the plan

    Raises:
        OSError: the archive cannot be read.
    """
    if info is None:
        return Differences(reason="it has no manifest that can be read")
    if not is_complete(path, info):
        return Differences(reason="it is not as long as it was written")
    try:
        old = {decode_path(entry.path): _record_facts(entry) for entry in read_records(path)}
    except (Unreadable, ProtocolError) as e:
        return Differences(reason=str(e))
    dropped = {name.encode("utf-8", "surrogateescape") for name in info.dropped}
    now = {entry.path: _entry_facts(entry) for entry in plan.entries[1:] if entry.path not in dropped}
    new, gone = sorted(now.keys() - old.keys()), sorted(old.keys() - now.keys())
    changed = sorted(each for each in now.keys() & old.keys() if now[each] != old[each])
    if not (new or gone or changed):
        return Differences(reason="it was made with other options, or of another base")
    return Differences(tuple(new), tuple(changed), tuple(gone))


def _record_facts(entry: ManifestEntry) -> tuple[object, ...]:
    """Return what a manifest says about an entry of the source: the size is the one before relocation."""
    if entry.kind == "f":
        provenance = entry.extra[0] if entry.extra else None
        size = provenance[0] if isinstance(provenance, list) and provenance else entry.size
        return ("f", entry.mode, entry.mtime_ns, size)
    if entry.kind == "d":
        return ("d", entry.mode, entry.mtime_ns)
    if entry.kind == "h":
        return ("h", decode_path(entry.target))
    return ("l", entry.mtime_ns, decode_target(entry.target))


def _entry_facts(entry: Entry) -> tuple[object, ...]:
    if entry.link:
        return ("h", entry.link)
    if entry.is_directory:
        return ("d", entry.mode & 0o7777, entry.mtime_ns)
    if entry.is_symlink:
        return ("l", entry.mtime_ns, entry.target)
    return ("f", entry.mode & 0o7777, entry.mtime_ns, entry.size)


def _list_paths(paths: tuple[bytes, ...]) -> str:
    more = f" and {pluralize(len(paths) - MAX_NAMED, 'other')}" if len(paths) > MAX_NAMED else ""
    return ", ".join(map(printable_path, paths[:MAX_NAMED])) + more
