"""Count the source and make the plan. Nothing is changed."""

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


ALREADY_THERE = "none: it stands there already"


def with_prefix(request: Request, info: ArchiveInfo) -> Request:
    """Return a request with the prefix that an archive records for its tree, unless the user has set one."""
    if request.orig_prefix is not None or not info.prefix:
        return request
    try:
        refuse_prefix(info.prefix)
    except UsageError:  # such a prefix is ignored
        return request
    return replace(request, orig_prefix=info.prefix)


def relocation_options(request: Request) -> RelocationOptions:
    """Return the part of a request that decides how an environment is relocated."""
    return RelocationOptions(request.base, request.editable, request.orig_prefix, request.public)


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan, and what was counted for it."""

    plan: Plan
    contents: SourceSurvey

    @property
    def warnings(self) -> tuple[WarningRaised, ...]:
        """What the user should know about the source before anything is copied."""
        notices = (self.contents.scan.notices, self.contents.notices)
        return tuple(warning for each in notices for warning in each.warnings())


def plan_run(
    run_id: str, request: Request, preflight: Preflight, environ: Mapping[str, str], cancel: CancelToken | None = None
) -> Decision:
    """Count the source, find out what its environment needs, and make the plan. Raise EzpzError or `Cancelled`."""
    source = preflight.source
    destination = destination_of(request, source)
    counted = _identity_of_archive(source) if source.is_archive else 0
    info, archive_bytes = _of_archive(source) if source.is_archive else (None, 0)
    request = request if info is None else with_prefix(request, info)
    if source.kind is None:
        contents = SourceSurvey(Scan(b"", archive=counted))
    else:
        contents = survey_source(
            source, source.kind, relocation_options(request), destination, environ, cancel,
            exclude=request.exclude, skip_unreadable=request.skip_unreadable,
        )  # fmt: skip
    if contents.environment is None:
        words = "as the unpacked tree needs it"
    elif source.node_local and source.real == destination:
        words = ALREADY_THERE
    else:
        words = describe_relocation(contents.environment, destination, request.base)
    scanned = contents.scan
    totals = totals_of(source, scanned, archive_bytes)
    plan = make_plan(
        run_id, request, source, totals, preflight.allocation, preflight.strategy, words, preflight.transport
    )
    if not source.is_archive and not scanned.files and not scanned.directories:
        raise SourceEmpty(f"nothing is left of the source '{source.path}'", hint="does --exclude match all of it?")
    if plan.in_place and request.exclude and any(left.why == "excluded" for left in scanned.left_out):
        raise UsageError(
            f"--exclude {request.exclude[0]} cannot be used: the source stands at the destination already",
            hint="choose another --dst",
        )
    return Decision(plan, contents)


def _identity_of_archive(source: Source) -> int:
    """Return the identity of an archive, which must be the same after it was read. Raise SourceUnreadable."""
    path = os.fsencode(source.real)
    try:
        return identity_of(os.stat(path))
    except OSError as e:
        raise source_unreadable(path, e) from e


def _of_archive(source: Source) -> tuple[ArchiveInfo | None, int]:
    """Return what an archive records of itself, and the approximate number of bytes in it."""
    from ezpz.yeet.archive.info import estimated_size, read_info

    info = read_info(source.real)
    return info, estimated_size(source.real, info)


def totals_of(source: Source, scanned: Scan, archive_bytes: int) -> Totals:
    """Return the totals of a scanned directory, or the estimate for an archive."""
    if source.is_archive:
        return Totals(None, None, archive_bytes, archive_bytes, 0)
    return Totals(scanned.files, scanned.directories, scanned.size, scanned.allocated, len(scanned.left_out))
