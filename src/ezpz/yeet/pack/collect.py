"""Collect the input of an archive: the entries of a source and, if wanted, the base Python of its environment.

An environment that takes its base along is relocated to its own path, as if ezpz had deployed it there. So it is an
environment with an embedded base, and whatever unpacks it needs to know nothing else about it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ezpz.yeet.model.source import Kind
from ezpz.yeet.pack.archive_plan import (
    EMBEDDED,
    EXTERNAL,
    ArchivedBase,
    ArchiveDescription,
    ArchivePlan,
    plan_archive,
)
from ezpz.yeet.relocate.inspect.environment import link_policy_of, nested_directories_of
from ezpz.yeet.relocate.inspect.interpreter import find_python
from ezpz.yeet.relocate.inspect.tree_reader import TreeReader
from ezpz.yeet.relocate.layout import PYTHON_DIRECTORY
from ezpz.yeet.source.link_policy import is_below, on_shared_filesystem
from ezpz.yeet.source.scan import Scan
from ezpz.yeet.source.scanner import scan_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.source import Source
    from ezpz.yeet.model.warnings import SourceWarnings

SYSTEM_PREFIX = b"/usr"  # part of the operating system: machines with the same libc have the same
UNCHANGED_RULES = "as it stands"  # part of the fingerprint of existing archives


@dataclass(frozen=True, slots=True)
class ArchiveInput:
    """Everything that an archive is made from.

    Attributes:
        plan: its entries
        rules: the fingerprint of the rules by which their content changes
        warnings: what the user should know about the source
        scans: what `close` releases
    """

    plan: ArchivePlan
    rules: str
    warnings: tuple[SourceWarnings, ...]
    scans: tuple[Scan, ...]

    def close(self) -> None:
        """Release the scanned entries."""
        for each in self.scans:
            each.close()


def collect_input(
    source: Source, kind: Kind, base: str, exclude: tuple[str, ...], environ: Mapping[str, str], cancel: CancelToken
) -> ArchiveInput:
    """Scan a directory for its archive.

    Args:
        source: the directory
        kind: what it is
        base: "embed", "keep", or "auto" to embed a base Python unless it belongs to the operating system
        exclude: patterns of paths to leave out
        environ: the variables of the user
        cancel: ends the scan early

    Raises:
        EzpzError: the source cannot be archived.
        `Cancelled`: `cancel` was used.
    """
    root = os.fsencode(source.real)
    if base == "embed" or (base == "auto" and _needs_base(root, kind)):
        return _collect_with_base(source, kind, exclude, environ, cancel)
    known = tuple(dict.fromkeys((os.fsencode(source.path), root)))
    omitted = nested_directories_of(kind, root)
    patterns = (*exclude, *(f"/{os.fsdecode(name)}" for name in omitted))
    scanned = scan_directory(root, exclude=patterns, link_policy=link_policy_of(kind, known), cancel=cancel)
    for name in omitted:
        scanned.notices.add("environments-left-out", name)
    plan = _describe(plan_archive(scanned), source, kind, _external_base(root, kind))
    return ArchiveInput(plan, UNCHANGED_RULES, (scanned.notices,), (scanned,))


def _needs_base(root: bytes, kind: Kind) -> bool:
    """Return whether an environment has a base Python that other machines lack."""
    python = find_python(root) if kind is Kind.VENV else None
    if python is None:
        return False
    home = TreeReader(root).settings.get(b"home", b"")
    places = (os.path.realpath(python), os.path.realpath(home) if home else b"")
    return any(place and (not is_below(place, SYSTEM_PREFIX) or on_shared_filesystem(place)) for place in places)


def _collect_with_base(
    source: Source, kind: Kind, exclude: tuple[str, ...], environ: Mapping[str, str], cancel: CancelToken
) -> ArchiveInput:
    """Scan an environment with its base Python and its editable installs, to work on another machine."""
    from ezpz.yeet.relocate.additions.plan import check_path_is_free, plan_relocation
    from ezpz.yeet.relocate.options import RelocationOptions
    from ezpz.yeet.relocate.recorder import RelocationRecorder
    from ezpz.yeet.relocate.survey import survey_source

    root, place = os.fsencode(source.real), os.fsencode(source.path)
    options = RelocationOptions(base="embed", editable="snapshot")
    found = survey_source(source, kind, options, source.path, environ, cancel, exclude=exclude)
    environment = found.environment
    assert environment is not None
    embedded = environment.base if environment.has_base else None
    if embedded is not None:
        check_path_is_free(root, PYTHON_DIRECTORY, "--base keep")
    relocation = plan_relocation(place, environment, root, embedded, found.snapshot)
    recorder = RelocationRecorder(relocation)
    merged = _merge_scans(found.scan, *found.extra)
    python = environment.interpreter
    base = ArchivedBase()
    if embedded is not None and python is not None:
        base = ArchivedBase(EMBEDDED, python.name, os.fsdecode(python.base_prefix))
    plan = _describe(plan_archive(merged, recorder), source, kind, base)
    warnings = (found.scan.notices, found.notices, recorder.notices)
    return ArchiveInput(plan, relocation.digest, warnings, (merged, found.scan, *found.extra))


def _merge_scans(first: Scan, *others: Scan) -> Scan:
    """Return a scan with the entries of all scans, rooted at the first."""
    merged = Scan(first.root)
    for each in (first, *others):
        for batch in each.batches():
            merged.add(batch)
        merged.listings.update(each.listings)
    merged.latency = first.latency
    return merged


def _external_base(root: bytes, kind: Kind) -> ArchivedBase:
    """Return what an environment's own settings say about a base Python that the archive does not include."""
    if kind is not Kind.VENV:
        return ArchivedBase()
    settings = TreeReader(root).settings
    version = settings.get(b"version") or settings.get(b"version_info") or b""
    prefix = os.path.dirname(settings.get(b"home", b""))
    return ArchivedBase(EXTERNAL, os.fsdecode(version), os.fsdecode(prefix))


def _describe(plan: ArchivePlan, source: Source, kind: Kind, base: ArchivedBase) -> ArchivePlan:
    """Return the plan with its description."""
    return replace(plan, description=ArchiveDescription(kind.value, _original_prefix(plan, source, kind), base))


def _original_prefix(plan: ArchivePlan, source: Source, kind: Kind) -> str:
    """Return the path of the source if it matters: to an environment, and to absolute links into the tree itself."""
    if kind.is_environment:
        return source.path
    targets = [entry.target for entry in plan.entries if entry.target.startswith(b"/")]
    for name in (source.path, source.real):
        if any(is_below(target, os.fsencode(name)) for target in targets):
            return name
    return ""
