"""Decide: look at the source and the allocation, count what there is, and make the plan; nothing is changed."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ezpz.cluster.detect import detect
from ezpz.errors import SourceEmpty, UsageError
from ezpz.yeet.archive.estimate import estimated_size
from ezpz.yeet.archive.told import told_by
from ezpz.yeet.boundary import COMMON
from ezpz.yeet.copy.base import STRATEGIES, choose
from ezpz.yeet.fanout.base import ENGINES
from ezpz.yeet.plan import (
    Choice,
    Plan,
    Request,
    destination_of,
    engine_choice,
    make_plan,
    threshold,
    totals_of,
    transport_choice,
)
from ezpz.yeet.reading import Contents, contents_of
from ezpz.yeet.relocate.environment import boundary_of, examine, left_out_of
from ezpz.yeet.relocate.outfit import in_words
from ezpz.yeet.scan import Scan, scan
from ezpz.yeet.source import Kind, Source, active_environment, inspect

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from ezpz.cluster.model import Allocation
    from ezpz.yeet.archive.told import Told
    from ezpz.yeet.events import Warned


STANDS_THERE = "none: it stands there already"


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known once everything has been looked at and nothing counted."""

    source: Source
    allocation: Allocation
    strategy: Choice
    transport: Choice


def look(request: Request, environ: Mapping[str, str]) -> Sight:
    """Look at the source and the allocation. Raises EzpzError."""
    source = inspect(active_environment(environ) if request.src is None else request.src)
    strategy = Choice(*choose(source, request.strategy))
    engine = ENGINES.load(engine_choice(request).name)
    if STRATEGIES.load(strategy.name).reads_archives != source.is_archive:
        what = "an archive" if source.is_archive else "a directory"
        raise UsageError(
            f"--strategy {strategy.name} cannot read '{source.path}', which is {what}", hint="leave --strategy out"
        )
    if source.is_archive and request.exclude:
        raise UsageError(
            f"--exclude {request.exclude[0]} cannot be used with an archive", hint="make the archive without it"
        )
    allocation = detect(hosts=request.hosts, hostfile=request.hostfile, hsn=request.hsn, environ=environ)
    if request.orig_prefix is not None:
        refuse_prefix(request.orig_prefix)
    destination_of(request, source)  # what makes no sense is said before any node is bothered
    threshold(request, len(allocation.nodes))
    in_job = bool(environ.get("SLURM_JOB_ID")) and shutil.which("srun") is not None
    transport = transport_choice(request, allocation, engine.transports, srun=in_job)
    return Sight(source, allocation, strategy, transport)


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


def refuse_prefix(prefix: str) -> None:
    """Raise UsageError for an --orig-prefix that is no place where one environment can have stood."""
    deep = prefix.startswith("/") and len([part for part in prefix.split("/") if part]) > 1
    if not deep or os.path.normpath(prefix) != prefix.rstrip("/") or os.fsencode(prefix.rstrip("/")) in COMMON:
        raise UsageError(
            f"--orig-prefix '{prefix}' is no full path of an environment",
            hint="pass where it stood when it was packed, as in --orig-prefix /lus/me/envs/torch",
        )


def decide(
    run: str, request: Request, sight: Sight, environ: Mapping[str, str], stop: threading.Event | None = None
) -> Decision:
    """Count the source, find out what its environment needs, and make the plan. Raises EzpzError or Stopped."""
    source = sight.source
    destination = destination_of(request, source)
    told = told_by(source.real) if source.is_archive else None
    request = request if told is None else with_prefix(request, told)
    if source.kind is None:
        contents, words = Contents(Scan(b"")), "as the unpacked tree needs it"
    else:
        contents = count(source, source.kind, request, destination, environ, stop)
        assert contents.environment is not None
        in_place = source.node_local and source.real == destination
        words = STANDS_THERE if in_place else in_words(contents.environment, destination, request.base)
    scanned = contents.scan
    archive_bytes = estimated_size(source.real, told) if source.is_archive else 0
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


def count(
    source: Source,
    kind: Kind,
    request: Request,
    destination: str,
    environ: Mapping[str, str],
    stop: threading.Event | None,
) -> Contents:
    """Count a directory, and at the same time ask its environment about itself."""
    root = os.fsencode(source.real)
    known = tuple(dict.fromkeys((os.fsencode(source.path), root)))
    foreign = left_out_of(kind, root)
    with ThreadPoolExecutor(1) as other:
        examining = other.submit(examine, root, kind, known, request, environ, stop)
        scanned = scan(
            root,
            exclude=(*request.exclude, *(f"/{os.fsdecode(name)}" for name in foreign)),
            boundary=boundary_of(kind, known),
            skip_unreadable=request.skip_unreadable,
            stop=stop,
        )
        environment = examining.result()
    for name in foreign:
        scanned.notices.note("environments-left-out", name)
    return contents_of(scanned, environment, request, os.fsencode(destination), stop)
