"""Luggage: what goes into the archive of a source: its own entries and, if wanted, the interpreter it is based on.

An environment that takes its base along is relocated to the very place where it stands, as if it had been put there by
a yeet. So it is one that carries its base, and what unpacks it need not know anything else about it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.yeet.archive.parcel import Parcel, parcel_of
from ezpz.yeet.boundary import below, on_shared_filesystem
from ezpz.yeet.relocate.base import FOLDER
from ezpz.yeet.relocate.environment import Folder, boundary_of, left_out_of
from ezpz.yeet.relocate.interpreter import python_of
from ezpz.yeet.scan import Scan, scan
from ezpz.yeet.source import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.yeet.agent.cancel import CancelToken
    from ezpz.yeet.notices import Notices
    from ezpz.yeet.source import Source

SYSTEM = b"/usr"  # what is there comes with the operating system, and a machine with the same libc has it
EMBEDDED, KEPT, NONE = "embedded", "kept", "none"


@dataclass(frozen=True, slots=True)
class Luggage:
    """The parcel, by which rules it was made, and what the user should know."""

    parcel: Parcel
    rules: str
    notices: tuple[Notices, ...]
    scans: tuple[Scan, ...]

    def close(self) -> None:
        """Forget what was scanned."""
        for each in self.scans:
            each.close()


def luggage_of(
    source: Source, base: str, exclude: tuple[str, ...], environ: Mapping[str, str], cancel: CancelToken
) -> Luggage:
    """Look at a directory and count what goes into its archive. Raises EzpzError, Cancelled.

    base: "embed", "keep", or "auto": embedded unless it is the system's own, on a disk of this host
    """
    assert source.kind is not None
    root = os.fsencode(source.real)
    if base == "embed" or (base == "auto" and _is_wanted(root, source.kind)):
        return _with_base(source, exclude, environ, cancel)
    known = tuple(dict.fromkeys((os.fsencode(source.path), root)))
    foreign = left_out_of(source.kind, root)
    left_out = (*exclude, *(f"/{os.fsdecode(name)}" for name in foreign))
    scanned = scan(root, exclude=left_out, boundary=boundary_of(source.kind, known), cancel=cancel)
    for name in foreign:
        scanned.notices.note("environments-left-out", name)
    parcel = parcel_of(scanned)
    parcel.about.update(_about(source, parcel, _kept(root, source.kind)))
    return Luggage(parcel, "as it stands", (scanned.notices,), (scanned,))


def _is_wanted(root: bytes, kind: Kind) -> bool:
    """Whether an environment's base is none that every machine has."""
    python = python_of(root) if kind is Kind.VENV else None
    real = os.path.realpath(python) if python is not None else b""
    home = Folder(root).settings.get(b"home", b"")
    places = [real, os.path.realpath(home) if home else b""]
    return python is not None and any(
        place and (not below(place, SYSTEM) or on_shared_filesystem(place)) for place in places
    )


def _with_base(source: Source, exclude: tuple[str, ...], environ: Mapping[str, str], cancel: CancelToken) -> Luggage:
    """The luggage of what is to work on another machine: its base and its editable installs come along."""
    from ezpz.yeet.decide import count
    from ezpz.yeet.plan import Request
    from ezpz.yeet.relocate.ledger import Ledger
    from ezpz.yeet.relocate.outfit import refuse_taken, relocation_to

    assert source.kind is not None
    root, place = os.fsencode(source.real), os.fsencode(source.path)
    request = Request(src=source.path, exclude=exclude, base="embed", editable="snapshot")
    found = count(source, source.kind, request, source.path, environ, cancel)
    environment = found.environment
    assert environment is not None
    embedded = environment.base if environment.has_base else None
    if embedded is not None:
        refuse_taken(root, FOLDER, "--base keep")
    relocation = relocation_to(place, environment, root, embedded, found.snapshot)
    own = Scan(found.scan.root)
    ledger = Ledger(relocation)
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
    notices = (found.scan.notices, environment.notices, ledger.notices)
    return Luggage(parcel, relocation.digest, notices, (own, found.scan, *found.extra))


def _kept(root: bytes, kind: Kind) -> dict[str, str]:
    """What an environment says of the base that it leaves where it is."""
    if kind is not Kind.VENV:
        return {"mode": NONE, "python": "", "prefix": ""}
    said = Folder(root).settings
    version = said.get(b"version") or said.get(b"version_info") or b""
    prefix = os.path.dirname(said.get(b"home", b""))
    return {"mode": KEPT, "python": os.fsdecode(version), "prefix": os.fsdecode(prefix)}


def _about(source: Source, parcel: Parcel, base: dict[str, str]) -> dict[str, Any]:
    assert source.kind is not None
    return {"kind": source.kind.value, "prefix": _prefix(source, parcel), "base": base}


def _prefix(source: Source, parcel: Parcel) -> str:
    """Where the tree stood, if it matters: to an environment, and to links that lead into it by their full path."""
    assert source.kind is not None
    if source.kind.is_environment:
        return source.path
    targets = [entry.target for entry in parcel.entries if entry.target.startswith(b"/")]
    for name in (source.path, source.real):
        if any(below(target, os.fsencode(name)) for target in targets):
            return name
    return ""
