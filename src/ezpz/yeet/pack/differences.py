"""Differences: how an archive that is there differs from what it would be made of now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.manifest import Unreadable
from ezpz.agent.common.text import printable_path
from ezpz.agent.common.wire_paths import ProtocolError, decode_path, decode_target
from ezpz.runtime.text import pluralize
from ezpz.yeet.archive.info import is_whole, records_of

if TYPE_CHECKING:
    from ezpz.agent.common.manifest import ManifestEntry
    from ezpz.yeet.archive.info import ArchiveInfo
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.pack.collect import ArchivePlan

NAMED = 5  # paths of each sort that are named


@dataclass(frozen=True, slots=True)
class Differences:
    """Paths that are new, changed and gone since it was made, sorted; or the reason why nobody can tell, else ""."""

    new: tuple[bytes, ...] = ()
    changed: tuple[bytes, ...] = ()
    gone: tuple[bytes, ...] = ()
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it: how many, and the first few of each."""
        sorts = {"new": self.new, "changed": self.changed, "gone": self.gone}
        named = {name: {"count": len(paths), "first": list(paths[:NAMED])} for name, paths in sorts.items()}
        return {**named, "reason": self.reason}

    @property
    def words(self) -> str:
        """For people: 2 changed (bin/a, lib/b), 1 new (c)."""
        if self.reason:
            return self.reason
        sorts = (("changed", self.changed), ("new", self.new), ("gone", self.gone))
        return ", ".join(f"{len(paths):,} {name} ({_named(paths)})" for name, paths in sorts if paths)


def differences(path: str, told: ArchiveInfo | None, parcel: ArchivePlan) -> Differences:
    """How the archive at `path`, which tells this, differs from a parcel. Raises OSError."""
    if told is None:
        return Differences(reason="it has no manifest that can be read")
    if not is_whole(path, told):
        return Differences(reason="it is not as long as it was written")
    try:
        entries = records_of(path)
        was = {decode_path(entry.path): _facts(entry) for entry in entries}
    except (Unreadable, ProtocolError) as e:
        return Differences(reason=str(e))
    dropped = {name.encode("utf-8", "surrogateescape") for name in told.dropped}
    now = {entry.path: _facts_now(entry) for entry in parcel.entries[1:] if entry.path not in dropped}
    new, gone = sorted(now.keys() - was.keys()), sorted(was.keys() - now.keys())
    changed = sorted(each for each in now.keys() & was.keys() if now[each] != was[each])
    if not (new or gone or changed):
        return Differences(reason="it was made with other options, or of another base")
    return Differences(tuple(new), tuple(changed), tuple(gone))


def _facts(entry: ManifestEntry) -> tuple[object, ...]:
    """What an entry of a manifest is in the source: its size is what it was before it was relocated."""
    if entry.kind == "f":
        made = entry.extra[0] if entry.extra else None
        was = made[0] if isinstance(made, list) and made else entry.size
        return ("f", entry.mode, entry.mtime_ns, was)
    if entry.kind == "d":
        return ("d", entry.mode, entry.mtime_ns)
    if entry.kind == "h":
        return ("h", decode_path(entry.target))
    return ("l", entry.mtime_ns, decode_target(entry.target))


def _facts_now(entry: Entry) -> tuple[object, ...]:
    if entry.link:
        return ("h", entry.link)
    if entry.is_directory:
        return ("d", entry.mode & 0o7777, entry.mtime_ns)
    if entry.is_symlink:
        return ("l", entry.mtime_ns, entry.target)
    return ("f", entry.mode & 0o7777, entry.mtime_ns, entry.size)


def _named(paths: tuple[bytes, ...]) -> str:
    more = f" and {pluralize(len(paths) - NAMED, 'other')}" if len(paths) > NAMED else ""
    return ", ".join(map(printable_path, paths[:NAMED])) + more
