"""Survey a source: its entries, its environment, and what is included with it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.runtime.threads import run_in_background
from ezpz.yeet.model.warnings import SourceWarnings
from ezpz.yeet.relocate.additions.plan import Snapshot, check_prefix_length, take_snapshot
from ezpz.yeet.relocate.bytecode.validity import estimate_missing
from ezpz.yeet.relocate.inspect.environment import (
    Environment,
    inspect_environment,
    link_policy_of,
    nested_directories_of,
)
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
    """Scan a directory, and inspect its environment at the same time.

    Args:
        source: The source.
        kind: Its kind.
        options: What the user wants to happen to an environment.
        destination: Path of the copy.
        environ: Environment variables of the session.
        cancel: Stops the survey when it is set.
        exclude: Patterns of paths to leave out, see ExcludeFilter.
        skip_unreadable: Leave out what cannot be read, with a warning.

    Raises:
        EzpzError: See `scan_directory`, `inspect_environment`, and `survey_environment`.
        OSError: A file of the environment cannot be read.
        `Cancelled`: The token was set.
    """
    root = os.fsencode(source.real)
    known = tuple(dict.fromkeys((os.fsencode(source.path), root)))
    nested = nested_directories_of(kind, root)
    notices = SourceWarnings()
    examining = run_in_background(lambda: inspect_environment(root, kind, known, options, environ, notices, cancel))
    try:
        scanned = scan_directory(
            root,
            exclude=(*exclude, *(f"/{os.fsdecode(name)}" for name in nested)),
            link_policy=link_policy_of(kind, known),
            skip_unreadable=skip_unreadable,
            cancel=cancel,
        )
    finally:
        examining.exception()  # waits for its end
    environment = examining.result()
    for name in nested:
        scanned.notices.add("environments-left-out", name)
    return survey_environment(root, scanned, environment, options, os.fsencode(destination), notices, cancel)


@dataclass(slots=True)
class SourceSurvey:
    """The content of a source and what is included with it. Its scans change: they grow, and are closed after use.

    Attributes:
        scan: Its own entries. Empty for an archive.
        environment: What the tree tells about itself. None before it is inspected.
        snapshot: The included code of editable installs.
        notices: Warnings about the environment.
    """

    scan: Scan
    environment: Environment | None = None
    snapshot: Snapshot = field(default_factory=Snapshot)
    notices: SourceWarnings = field(default_factory=SourceWarnings)

    @property
    def extra(self) -> tuple[Scan, ...]:
        """The scans of what may be included with its own entries."""
        base = self.environment.base if self.environment is not None else None
        return (self.snapshot.scan, *([base.scan] if base is not None else []))

    def estimate_bytecode(self, mode: str) -> tuple[int, int]:
        """Return how many files of bytecode will be compiled, and about how many bytes they need."""
        python = self.environment.interpreter if self.environment is not None else None
        if python is None or not python.tag or mode == "never":
            return 0, 0
        entries = (entry for each in (self.scan, *self.extra) for batch in each.batches() for entry in batch)
        return estimate_missing(entries, python.tag)

    def close(self) -> None:
        """Release the entries. The totals stay."""
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
    """Scan what is included with the environment at `root`.

    Args:
        root: Path of the tree.
        scanned: Its own entries.
        environment: What the tree tells about itself.
        options: What the user wants to happen to the environment.
        destination: Path of the copy.
        notices: Gets warnings.
        cancel: Stops the scan when it is set.

    Raises:
        EditableRefused: The code of editable installs is too large.
        PrefixTooLong: A compiled file has no room for the destination.
        OSError: A file cannot be read.
    """
    check_prefix_length(environment, destination)
    snapshot = take_snapshot(environment, destination, cancel) if options.editable == "snapshot" else Snapshot()
    if options.public:
        directories = (move.source for move in snapshot.moves)
        for path in find_exposed(os.stat(root).st_mode, entries_of(scanned), directories):
            notices.add("exposed", path)
    return SourceSurvey(scanned, environment, snapshot, notices)
