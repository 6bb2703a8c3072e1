"""Decide: count what there is, and make the plan; nothing is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ezpz.errors import SourceEmpty, UsageError
from ezpz.yeet.model.plan import Plan, Request, Totals, destination_of, make_plan
from ezpz.yeet.pipeline.preflight import refuse_prefix
from ezpz.yeet.relocate.additions.plan import describe_relocation
from ezpz.yeet.relocate.options import RelocationOptions
from ezpz.yeet.relocate.survey import SourceSurvey, survey_source
from ezpz.yeet.source.errors import source_unreadable
from ezpz.yeet.source.identity import identity_of
from ezpz.yeet.source.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.archive.info import ArchiveInfo
    from ezpz.yeet.model.events import WarningRaised
    from ezpz.yeet.model.source import Source
    from ezpz.yeet.pipeline.preflight import Preflight


STANDS_THERE = "none: it stands there already"


def with_prefix(request: Request, told: ArchiveInfo) -> Request:
    """A request for an archive that tells where its tree stood, unless the user has told."""
    if request.orig_prefix is not None or not told.prefix:
        return request
    try:
        refuse_prefix(told.prefix)
    except UsageError:  # what it says is no place of one environment, and is not believed
        return request
    return replace(request, orig_prefix=told.prefix)


def relocation_options(request: Request) -> RelocationOptions:
    """Return the part of a request that decides how an environment is relocated."""
    return RelocationOptions(request.base, request.editable, request.orig_prefix, request.public)


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan, and what was counted to make it."""

    plan: Plan
    contents: SourceSurvey

    @property
    def warnings(self) -> tuple[WarningRaised, ...]:
        """What the user should know about the source, before anything moves."""
        return tuple(
            warning for each in (self.contents.scan.notices, self.contents.notices) for warning in each.warnings()
        )


def decide(
    run: str, request: Request, sight: Preflight, environ: Mapping[str, str], cancel: CancelToken | None = None
) -> Decision:
    """Count the source, find out what its environment needs, and make the plan. Raises EzpzError or Cancelled."""
    source = sight.source
    destination = destination_of(request, source)
    counted = _identity_of_archive(source) if source.is_archive else 0
    told, archive_bytes = _of_archive(source) if source.is_archive else (None, 0)
    request = request if told is None else with_prefix(request, told)
    if source.kind is None:
        contents, words = SourceSurvey(Scan(b"", archive=counted)), "as the unpacked tree needs it"
    else:
        contents = survey_source(
            source, source.kind, relocation_options(request), destination, environ, cancel,
            exclude=request.exclude, skip_unreadable=request.skip_unreadable,
        )  # fmt: skip
        assert contents.environment is not None
        in_place = source.node_local and source.real == destination
        words = STANDS_THERE if in_place else describe_relocation(contents.environment, destination, request.base)
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
        raise source_unreadable(path, e) from e


def _of_archive(source: Source) -> tuple[ArchiveInfo | None, int]:
    """What an archive tells of itself, and how many bytes are in it, about."""
    from ezpz.yeet.archive.info import estimated_size, read_info

    told = read_info(source.real)
    return told, estimated_size(source.real, told)


def totals_of(source: Source, scanned: Scan, archive_bytes: int) -> Totals:
    """The totals of a scanned directory, or the estimate for an archive."""
    if source.is_archive:
        return Totals(None, None, archive_bytes, archive_bytes, 0)
    return Totals(scanned.files, scanned.directories, scanned.size, scanned.allocated, len(scanned.left_out))
