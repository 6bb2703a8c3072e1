"""Make the archive that a user asked for, unless it exists already."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.errors import DestinationRefused, SourceEmpty, UsageError
from ezpz.runtime.atomic_file import remove_stale
from ezpz.yeet.archive.info import is_complete, read_info
from ezpz.yeet.model.events import PhaseStarted, Read
from ezpz.yeet.pack.archive_manifest import ArchiveManifest
from ezpz.yeet.pack.collect import collect_input
from ezpz.yeet.pack.differences import Differences, find_differences
from ezpz.yeet.pack.squashfs_writer import write_squashfs
from ezpz.yeet.pack.tar_writer import write_tar
from ezpz.yeet.source.archive_formats import (
    DEFAULT_FORMAT,
    GZIP,
    SQUASHFS,
    TAR,
    ZSTD,
    ArchiveFormat,
    choose_format,
    choose_level,
)
from ezpz.yeet.source.inspect import active_environment, inspect_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.events import Emit, WarningRaised
    from ezpz.yeet.model.source import Source
    from ezpz.yeet.pack.archive_plan import ArchiveDescription

SCHEMA = "ezpz/archive/1"
MADE, REPLACED, UNCHANGED = "made", "replaced", "unchanged"
WRITERS = {TAR: write_tar, GZIP: write_tar, ZSTD: write_tar, SQUASHFS: write_squashfs}


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """What the user asked for, None for what was not given.

    Attributes:
        src: the source, by default the active environment
        output: the path of the archive
        format: the name of its format
        level: its compression level
        base: "auto", "embed" or "keep", as in `collect_input`
        exclude: patterns of paths to leave out
    """

    src: str | None = None
    output: str | None = None
    format: str | None = None
    level: int | None = None
    base: str = "auto"
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Archive:
    """Archive that was made, or that existed already.

    Attributes:
        path: where it is
        source: what it was made from
        format: its format
        level: its compression level
        outcome: MADE, REPLACED or UNCHANGED
        size: its size in bytes
        files: number of entries that are not directories
        content_bytes: bytes of content
        seconds: how long it took to make it
        description: what its manifest says about all of it
        before: how an archive that was replaced differed from the source, None if there was none
        warnings: what the user should know about the source
    """

    path: str
    source: Source
    format: ArchiveFormat
    level: int
    outcome: str
    size: int
    files: int
    content_bytes: int
    seconds: float
    description: ArchiveDescription
    before: Differences | None = None
    warnings: tuple[WarningRaised, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the archive for JSON; the schema is in docs/reference/json.md."""
        return {
            "schema": SCHEMA,
            "ezpz": __version__,
            "archive": self.path,
            "outcome": self.outcome,
            "format": self.format.name,
            "level": self.level if self.format.levels else None,
            "bytes": self.size,
            "source": self.source.path,
            "kind": self.description.kind,
            "base": self.description.base.mode,
            "files": self.files,
            "content_bytes": self.content_bytes,
            "before": None if self.before is None else self.before.to_dict(),
            "seconds": round(self.seconds, 3),
            "warnings": [{"case": warning.case, "text": warning.text} for warning in self.warnings],
        }


def make_archive(request: ArchiveRequest, environ: Mapping[str, str], emit: Emit, cancel: CancelToken) -> Archive:
    """Make the archive, unless an up-to-date one exists.

    Args:
        request: what to make
        environ: the variables of the user
        emit: called with each event
        cancel: ends the work early

    Raises:
        EzpzError: the archive cannot be made.
        `Cancelled`: `cancel` was used.
    """
    started = time.monotonic()
    source = inspect_source(request.src or active_environment(environ))
    if source.kind is None:
        raise UsageError(
            f"the source '{source.path}' is an archive already", hint="give the directory it was made from"
        )
    kind = choose_format(request.format, request.output)
    level = choose_level(kind, request.level)
    path = archive_path(source, request.output, kind)
    emit(PhaseStarted("count"))
    collected = collect_input(source, source.kind, request.base, request.exclude, environ, cancel)
    plan = collected.plan
    try:
        if len(plan.entries) == 1:
            raise SourceEmpty(f"nothing is left of the source '{source.path}'", hint="does --exclude match all of it?")
        contents = ArchiveManifest(plan, (kind.name, level, collected.rules))
        size, outcome, before = _write_if_needed(contents, path, kind, level, emit, cancel)
    finally:
        collected.close()
    return Archive(
        path, source, kind, level, outcome, size,
        files=sum(1 for entry in plan.entries if not entry.is_directory), content_bytes=plan.size,
        seconds=time.monotonic() - started, description=plan.description, before=before,
        warnings=tuple(warning for each in collected.warnings for warning in each.warnings()),
    )  # fmt: skip


def _write_if_needed(
    contents: ArchiveManifest, path: str, kind: ArchiveFormat, level: int, emit: Emit, cancel: CancelToken
) -> tuple[int, str, Differences | None]:
    """Write the archive unless it is up to date.

    Returns:
        Its size, the outcome, and how the archive that it replaced differed, None if there was none.
    """
    before = None
    if os.path.lexists(path):
        info = read_info(path)
        if info is not None and info.inputs == contents.inputs and is_complete(path, info):
            return os.path.getsize(path), UNCHANGED, None
        before = find_differences(path, info, contents.plan)
    remove_stale(os.path.dirname(path), time.time())
    emit(PhaseStarted("pack", contents.plan.size))
    size = WRITERS[kind](contents, path, kind, level, lambda count: emit(Read(count)), cancel)
    return size, MADE if before is None else REPLACED, before


def archive_path(source: Source, output: str | None, kind: ArchiveFormat | None = None) -> str:
    """Return where the archive goes: `output`, or the source's name with the format's suffix, next to the source.

    Raises:
        UsageError: the name of `output` is not one of the format.
        DestinationRefused: no archive can be written there.
    """
    choose_format(kind.name if kind is not None else None, output)
    name = source.name + (kind or DEFAULT_FORMAT).suffixes[0]
    path = os.path.abspath(output or os.path.join(os.path.dirname(source.path), name))
    directory = os.path.realpath(os.path.dirname(path))
    if os.path.commonpath([directory, source.real]) == source.real:
        raise DestinationRefused(
            f"the archive '{path}' would lie inside the source '{source.path}'", hint="choose another place with -o"
        )
    if not os.path.isdir(directory):
        raise DestinationRefused(
            f"the folder '{directory}' does not exist", hint="make it, or choose another place with -o"
        )
    if os.path.isdir(path):
        raise DestinationRefused(f"'{path}' is a directory", hint="choose another place with -o")
    return path
