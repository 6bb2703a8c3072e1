"""Survey a source: its entries, its environment, and what comes along."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.runtime.threads import run_in_background
from ezpz.yeet.model.warnings import SourceWarnings
from ezpz.yeet.relocate.additions.plan import Snapshot, refuse_long, snapshot_of
from ezpz.yeet.relocate.bytecode.validity import estimate
from ezpz.yeet.relocate.inspect.environment import Environment, inspect_environment, left_out_of, link_policy_of
from ezpz.yeet.source.permissions import find_exposed
from ezpz.yeet.source.scan import Scan, entries_of
from ezpz.yeet.source.scanner import scan_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.source import Kind, Source
    from ezpz.yeet.relocate.options import RelocationOptions


def survey_source(
    source: Source,
    kind: Kind,
    options: RelocationOptions,
    destination: str,
    environ: Mapping[str, str],
    cancel: CancelToken | None,
    *,
    exclude: tuple[str, ...] = (),
    skip_unreadable: bool = False,
) -> SourceSurvey:
    """Count a directory, and at the same time ask its environment about itself."""
    root = os.fsencode(source.real)
    known = tuple(dict.fromkeys((os.fsencode(source.path), root)))
    foreign = left_out_of(kind, root)
    notices = SourceWarnings()
    examining = run_in_background(lambda: inspect_environment(root, kind, known, options, environ, notices, cancel))
    try:
        scanned = scan_directory(
            root,
            exclude=(*exclude, *(f"/{os.fsdecode(name)}" for name in foreign)),
            link_policy=link_policy_of(kind, known),
            skip_unreadable=skip_unreadable,
            cancel=cancel,
        )
    finally:
        examining.exception()  # waits for its end
    environment = examining.result()
    for name in foreign:
        scanned.notices.note("environments-left-out", name)
    return survey_environment(root, scanned, environment, options, os.fsencode(destination), notices, cancel)


@dataclass(slots=True)
class SourceSurvey:
    """What a source holds and what comes along with it, counted.

    scan: its own entries, none for an archive; environment, snapshot: None until it has been looked at
    """

    scan: Scan
    environment: Environment | None = None
    snapshot: Snapshot = field(default_factory=Snapshot)
    notices: SourceWarnings = field(default_factory=SourceWarnings)

    @property
    def extra(self) -> tuple[Scan, ...]:
        """What may come along besides its own entries."""
        base = self.environment.base if self.environment is not None else None
        return (self.snapshot.scan, *([base.scan] if base is not None else []))

    def bytecode_to_make(self, mode: str) -> tuple[int, int]:
        """How many files of bytecode will be made, and about how many bytes they take."""
        python = self.environment.interpreter if self.environment is not None else None
        if python is None or not python.tag or mode == "never":
            return 0, 0
        entries = (entry for each in (self.scan, *self.extra) for batch in each.batches() for entry in batch)
        return estimate(entries, python.tag)

    def close(self) -> None:
        """Forget the entries; the totals stay."""
        for each in (self.scan, *self.extra):
            each.close()


def survey_environment(
    root: bytes,
    scanned: Scan,
    environment: Environment,
    options: RelocationOptions,
    destination: bytes,
    notices: SourceWarnings,
    cancel: CancelToken | None = None,
) -> SourceSurvey:
    """Count what comes along with the environment at `root`. Raises EditableRefused, PrefixTooLong, OSError."""
    refuse_long(environment, destination)
    snapshot = snapshot_of(environment, destination, cancel) if options.editable == "snapshot" else Snapshot()
    if options.public:
        folders = (move.source for move in snapshot.moves)
        for path in find_exposed(os.stat(root).st_mode, entries_of(scanned), folders):
            notices.note("exposed", path)
    return SourceSurvey(scanned, environment, snapshot, notices)
