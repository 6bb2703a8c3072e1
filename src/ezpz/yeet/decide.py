"""Decide: count what there is, and make the plan; nothing is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ezpz.errors import SourceEmpty, UsageError
from ezpz.runtime.threads import run_in_background
from ezpz.yeet.copy.base import unreadable
from ezpz.yeet.counted import identity_of
from ezpz.yeet.look import refuse_prefix
from ezpz.yeet.plan import Plan, Request, destination_of, make_plan, totals_of
from ezpz.yeet.reading import Contents, contents_of
from ezpz.yeet.relocate.environment import boundary_of, examine, left_out_of
from ezpz.yeet.relocate.outfit import in_words
from ezpz.yeet.scan import Scan, scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.yeet.agent.cancel import CancelToken
    from ezpz.yeet.archive.told import Told
    from ezpz.yeet.events import Warned
    from ezpz.yeet.look import Sight
    from ezpz.yeet.source import Kind, Source


STANDS_THERE = "none: it stands there already"


def with_prefix(request: Request, told: Told) -> Request:
    """A request for an archive that tells where its tree stood, unless the user has told."""
    if request.orig_prefix is not None or not told.prefix:
        return request
    try:
        refuse_prefix(told.prefix)
    except UsageError:  # what it says is no place of one environment, and is not believed
        return request
    return replace(request, orig_prefix=told.prefix)


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan, and what was counted to make it."""

    plan: Plan
    contents: Contents

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """What the user should know about the source, before anything moves."""
        environment = self.contents.environment
        notices = (self.contents.scan.notices, *([environment.notices] if environment is not None else []))
        return tuple(warning for each in notices for warning in each.warnings())


def decide(
    run: str, request: Request, sight: Sight, environ: Mapping[str, str], cancel: CancelToken | None = None
) -> Decision:
    """Count the source, find out what its environment needs, and make the plan. Raises EzpzError or Cancelled."""
    source = sight.source
    destination = destination_of(request, source)
    counted = _identity_of_archive(source) if source.is_archive else 0
    told, archive_bytes = _of_archive(source) if source.is_archive else (None, 0)
    request = request if told is None else with_prefix(request, told)
    if source.kind is None:
        contents, words = Contents(Scan(b"", archive=counted)), "as the unpacked tree needs it"
    else:
        contents = count(source, source.kind, request, destination, environ, cancel)
        assert contents.environment is not None
        in_place = source.node_local and source.real == destination
        words = STANDS_THERE if in_place else in_words(contents.environment, destination, request.base)
    scanned = contents.scan
    totals = totals_of(source, scanned, archive_bytes)
    plan = make_plan(run, request, source, totals, sight.allocation, sight.strategy, words, sight.transport)
    if not source.is_archive and not scanned.files and not scanned.directories:
        raise SourceEmpty(f"nothing is left of the source '{source.path}'", hint="does --exclude match all of it?")
    if plan.in_place and request.exclude and any(left.why == "excluded" for left in scanned.left_out):
        raise UsageError(
            f"--exclude {request.exclude[0]} cannot be used: the source stands at the destination already",
            hint="choose another --dst",
        )
    return Decision(plan, contents)


def _identity_of_archive(source: Source) -> int:
    """Return what the archive is to be compared with after it was read. Raises SourceUnreadable."""
    path = os.fsencode(source.real)
    try:
        return identity_of(os.stat(path))
    except OSError as e:
        raise unreadable(path, e) from e


def _of_archive(source: Source) -> tuple[Told | None, int]:
    """What an archive tells of itself, and how many bytes are in it, about."""
    from ezpz.yeet.archive.estimate import estimated_size
    from ezpz.yeet.archive.told import told_by

    told = told_by(source.real)
    return told, estimated_size(source.real, told)


def count(
    source: Source,
    kind: Kind,
    request: Request,
    destination: str,
    environ: Mapping[str, str],
    cancel: CancelToken | None,
) -> Contents:
    """Count a directory, and at the same time ask its environment about itself."""
    root = os.fsencode(source.real)
    known = tuple(dict.fromkeys((os.fsencode(source.path), root)))
    foreign = left_out_of(kind, root)
    examining = run_in_background(lambda: examine(root, kind, known, request, environ, cancel))
    try:
        scanned = scan(
            root,
            exclude=(*request.exclude, *(f"/{os.fsdecode(name)}" for name in foreign)),
            boundary=boundary_of(kind, known),
            skip_unreadable=request.skip_unreadable,
            cancel=cancel,
        )
    finally:
        examining.exception()  # waits for its end
    environment = examining.result()
    for name in foreign:
        scanned.notices.note("environments-left-out", name)
    return contents_of(root, scanned, environment, request, os.fsencode(destination), cancel)
