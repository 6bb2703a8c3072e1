"""Luggage: what goes into the archive of a source: its own entries and, if wanted, the interpreter it is based on.

An environment that takes its base along is relocated to the very place where it stands, as if it had been put there by
a yeet. So it is one that carries its base, and what unpacks it need not know anything else about it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ezpz.yeet.model.entry import Entry
from ezpz.yeet.model.source import Kind
from ezpz.yeet.relocate.inspect.environment import link_policy_of, nested_directories_of
from ezpz.yeet.relocate.inspect.interpreter import find_python
from ezpz.yeet.relocate.inspect.tree_reader import TreeReader
from ezpz.yeet.relocate.layout import PYTHON_DIRECTORY
from ezpz.yeet.source.identity import Listings
from ezpz.yeet.source.link_policy import is_below, on_shared_filesystem
from ezpz.yeet.source.permissions import readers_of_all
from ezpz.yeet.source.scan import Scan
from ezpz.yeet.source.scanner import scan_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.source import Source
    from ezpz.yeet.model.warnings import SourceWarnings
    from ezpz.yeet.relocate.recorder import RelocationRecorder

SYSTEM = b"/usr"  # what is there comes with the operating system, and a machine with the same libc has it
EMBEDDED, KEPT, NONE = "embedded", "kept", "none"


@dataclass(frozen=True, slots=True)
class ArchiveInput:
    """The parcel, by which rules it was made, and what the user should know."""

    parcel: ArchivePlan
    rules: str
    notices: tuple[SourceWarnings, ...]
    scans: tuple[Scan, ...]

    def close(self) -> None:
        """Forget what was scanned."""
        for each in self.scans:
            each.close()


def luggage_of(
    source: Source, base: str, exclude: tuple[str, ...], environ: Mapping[str, str], cancel: CancelToken
) -> ArchiveInput:
    """Look at a directory and count what goes into its archive. Raises EzpzError, Cancelled.

    base: "embed", "keep", or "auto": embedded unless it is the system's own, on a disk of this host
    """
    assert source.kind is not None
    root = os.fsencode(source.real)
    if base == "embed" or (base == "auto" and _is_wanted(root, source.kind)):
        return _with_base(source, exclude, environ, cancel)
    known = tuple(dict.fromkeys((os.fsencode(source.path), root)))
    foreign = nested_directories_of(source.kind, root)
    left_out = (*exclude, *(f"/{os.fsdecode(name)}" for name in foreign))
    scanned = scan_directory(root, exclude=left_out, link_policy=link_policy_of(source.kind, known), cancel=cancel)
    for name in foreign:
        scanned.notices.note("environments-left-out", name)
    parcel = parcel_of(scanned)
    parcel.about.update(_about(source, parcel, _kept(root, source.kind)))
    return ArchiveInput(parcel, "as it stands", (scanned.notices,), (scanned,))


def _is_wanted(root: bytes, kind: Kind) -> bool:
    """Whether an environment's base is none that every machine has."""
    python = find_python(root) if kind is Kind.VENV else None
    real = os.path.realpath(python) if python is not None else b""
    home = TreeReader(root).settings.get(b"home", b"")
    places = [real, os.path.realpath(home) if home else b""]
    return python is not None and any(
        place and (not is_below(place, SYSTEM) or on_shared_filesystem(place)) for place in places
    )


def _with_base(
    source: Source, exclude: tuple[str, ...], environ: Mapping[str, str], cancel: CancelToken
) -> ArchiveInput:
    """The luggage of what is to work on another machine: its base and its editable installs come along."""
    from ezpz.yeet.relocate.additions.plan import check_path_is_free, plan_relocation
    from ezpz.yeet.relocate.options import RelocationOptions
    from ezpz.yeet.relocate.recorder import RelocationRecorder
    from ezpz.yeet.relocate.survey import survey_source

    assert source.kind is not None
    root, place = os.fsencode(source.real), os.fsencode(source.path)
    options = RelocationOptions(base="embed", editable="snapshot")
    found = survey_source(source, source.kind, options, source.path, environ, cancel, exclude=exclude)
    environment = found.environment
    assert environment is not None
    embedded = environment.base if environment.has_base else None
    if embedded is not None:
        check_path_is_free(root, PYTHON_DIRECTORY, "--base keep")
    relocation = plan_relocation(place, environment, root, embedded, found.snapshot)
    own = Scan(found.scan.root)
    ledger = RelocationRecorder(relocation)
    for each in (found.scan, *found.extra):
        for batch in each.batches():
            own.add(batch)
        own.listings.update(each.listings)
    own.latency = found.scan.latency
    parcel = parcel_of(own, ledger)
    python = environment.interpreter
    facts = {"mode": NONE, "python": "", "prefix": ""}
    if embedded is not None and python is not None:
        facts = {"mode": EMBEDDED, "python": python.name, "prefix": os.fsdecode(python.base_prefix)}
    parcel.about.update(_about(source, parcel, facts))
    notices = (found.scan.notices, found.notices, ledger.notices)
    return ArchiveInput(parcel, relocation.digest, notices, (own, found.scan, *found.extra))


def _kept(root: bytes, kind: Kind) -> dict[str, str]:
    """What an environment says of the base that it leaves where it is."""
    if kind is not Kind.VENV:
        return {"mode": NONE, "python": "", "prefix": ""}
    said = TreeReader(root).settings
    version = said.get(b"version") or said.get(b"version_info") or b""
    prefix = os.path.dirname(said.get(b"home", b""))
    return {"mode": KEPT, "python": os.fsdecode(version), "prefix": os.fsdecode(prefix)}


def _about(source: Source, parcel: ArchivePlan, base: dict[str, str]) -> dict[str, Any]:
    assert source.kind is not None
    return {"kind": source.kind.value, "prefix": _prefix(source, parcel), "base": base}


def _prefix(source: Source, parcel: ArchivePlan) -> str:
    """Where the tree stood, if it matters: to an environment, and to links that lead into it by their full path."""
    assert source.kind is not None
    if source.kind.is_environment:
        return source.path
    targets = [entry.target for entry in parcel.entries if entry.target.startswith(b"/")]
    for name in (source.path, source.real):
        if any(is_below(target, os.fsencode(name)) for target in targets):
            return name
    return ""


@dataclass(slots=True)
class ArchivePlan:
    """The top and the entries below it, a folder's content right behind it, since plain tar closes what it leaves.

    root: where they stand; ledger: relocates what is packed, None when nothing is
    listings: the directories that were counted, as they were
    about: what the manifest says of all of it, see `contents`
    """

    root: bytes
    entries: list[Entry]
    threads: int
    ledger: RelocationRecorder | None = None
    listings: Listings = field(default_factory=Listings)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return sum(entry.size for entry in self.entries if not entry.link)

    @property
    def readers(self) -> int:
        """Return the classes of `access` that may read all of it where it stands. Raises OSError."""
        return readers_of_all(self.root, self.entries)


def parcel_of(scanned: Scan, ledger: RelocationRecorder | None = None) -> ArchivePlan:
    """What a scan has found, in order: the first name of a file comes before the others, which are links to it.

    Raises OSError.
    """
    top = os.stat(scanned.root)
    entries = [entry for batch in scanned.batches() for entry in batch]
    if ledger is not None:
        entries = [ledger.relocate_entry(entry) for entry in entries]
    entries.sort(key=lambda entry: entry.path.replace(b"/", b"\0"))
    linked = {entry.link for entry in entries if entry.link}
    if linked:
        _lead_to_first(entries, linked)
    entries.insert(0, Entry(b"", top.st_mode, top.st_mtime_ns, 0))
    return ArchivePlan(scanned.root, entries, scanned.threads, ledger, scanned.listings)


def _lead_to_first(entries: list[Entry], linked: set[bytes]) -> None:
    """Let the further names of each file lead to the one that comes first here; a scan finds them in any order.

    A symbolic link of several names that does not say the same in all of them stands for itself.
    """
    first: dict[bytes, Entry] = {}
    for number, entry in enumerate(entries):
        if not entry.link and entry.path not in linked:
            continue
        known = first.setdefault(entry.link or entry.path, entry)
        same = known is not entry and (known.mode, known.target) == (entry.mode, entry.target)
        entries[number] = entry._replace(link=known.path if same else b"")
