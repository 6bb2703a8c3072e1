"""Make: from what the user asked for to an archive at its place, or to the news that a good one is there already."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.errors import DestinationRefused, SourceEmpty, UsageError
from ezpz.runtime.atomic_file import remove_stale
from ezpz.yeet.archive.info import is_whole, read_info
from ezpz.yeet.model.events import PhaseStarted, Read
from ezpz.yeet.pack.archive_manifest import ArchiveManifest
from ezpz.yeet.pack.collect import ArchiveInput, luggage_of
from ezpz.yeet.pack.differences import Differences, differences
from ezpz.yeet.pack.squashfs_writer import write_squashfs
from ezpz.yeet.pack.tar_builder import write
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

SCHEMA = "ezpz/archive/1"
MADE, REPLACED, UNCHANGED = "made", "replaced", "unchanged"
WRITERS = {TAR: write, GZIP: write, ZSTD: write, SQUASHFS: write_squashfs}


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """What the user asked for; None where they said nothing. base: "auto", "embed" or "keep"."""

    src: str | None = None
    output: str | None = None
    format: str | None = None
    level: int | None = None
    base: str = "auto"
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Archive:
    """What stands at `path` now. outcome: "made", "replaced" or "unchanged"

    size: its bytes; files, content_bytes: what is in it; before: how what stood there before differed, None for nothing
    about: what its manifest says of all of it, see `contents`
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
    about: dict[str, Any]
    before: Differences | None = None
    warnings: tuple[WarningRaised, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The archive as JSON can hold it; see docs/reference/json.md."""
        return {
            "schema": SCHEMA,
            "ezpz": __version__,
            "archive": self.path,
            "outcome": self.outcome,
            "format": self.format.name,
            "level": self.level if self.format.levels else None,
            "bytes": self.size,
            "source": self.source.path,
            "kind": self.about["kind"],
            "base": self.about["base"]["mode"],
            "files": self.files,
            "content_bytes": self.content_bytes,
            "before": None if self.before is None else self.before.to_dict(),
            "seconds": round(self.seconds, 3),
            "warnings": [{"case": warning.case, "text": warning.text} for warning in self.warnings],
        }


def make_archive(wanted: ArchiveRequest, environ: Mapping[str, str], emit: Emit, cancel: CancelToken) -> Archive:
    """Make the archive, unless a good one of the same is there. Raises EzpzError, Cancelled."""
    began = time.monotonic()
    source = inspect_source(wanted.src or active_environment(environ))
    if source.kind is None:
        raise UsageError(
            f"the source '{source.path}' is an archive already", hint="give the directory it was made from"
        )
    kind = choose_format(wanted.format, wanted.output)
    level = choose_level(kind, wanted.level)
    path = archive_path(source, wanted.output, kind)
    emit(PhaseStarted("count"))
    luggage = luggage_of(source, wanted.base, wanted.exclude, environ, cancel)
    try:
        if len(luggage.parcel.entries) == 1:
            raise SourceEmpty(f"nothing is left of the source '{source.path}'", hint="does --exclude match all of it?")
        contents = ArchiveManifest(luggage.parcel, (kind.name, level, luggage.rules))
        size, outcome, before = _put(contents, path, kind, level, emit, cancel)
    finally:
        luggage.close()
    entries = luggage.parcel.entries
    return Archive(
        path, source, kind, level, outcome, size,
        files=sum(1 for entry in entries if not entry.is_directory), content_bytes=luggage.parcel.size,
        seconds=time.monotonic() - began, about=luggage.parcel.about, before=before, warnings=_warnings(luggage),
    )  # fmt: skip


def _put(
    contents: ArchiveManifest, path: str, kind: ArchiveFormat, level: int, emit: Emit, cancel: CancelToken
) -> tuple[int, str, Differences | None]:
    """Write it, if what is there is not the same; its size, the outcome, and how what was there differed."""
    before = None
    if os.path.lexists(path):
        told = read_info(path)
        if told is not None and told.inputs == contents.inputs and is_whole(path, told):
            return os.path.getsize(path), UNCHANGED, None
        before = differences(path, told, contents.parcel)
    remove_stale(os.path.dirname(path), time.time())
    emit(PhaseStarted("pack", contents.parcel.size))
    size = WRITERS[kind](contents, path, kind, level, lambda moved: emit(Read(moved)), cancel)
    return size, MADE if before is None else REPLACED, before


def _warnings(luggage: ArchiveInput) -> tuple[WarningRaised, ...]:
    return tuple(warning for notices in luggage.notices for warning in notices.warnings())


def archive_path(source: Source, output: str | None, kind: ArchiveFormat | None = None) -> str:
    """Where the archive goes: `output`, or the source's name and the format's suffix beside it.

    Raises UsageError, DestinationRefused.
    """
    choose_format(kind.name if kind is not None else None, output)
    name = source.name + (kind or DEFAULT_FORMAT).suffixes[0]
    path = os.path.abspath(output or os.path.join(os.path.dirname(source.path), name))
    folder = os.path.realpath(os.path.dirname(path))
    if os.path.commonpath([folder, source.real]) == source.real:
        raise DestinationRefused(
            f"the archive '{path}' would lie inside the source '{source.path}'", hint="choose another place with -o"
        )
    if not os.path.isdir(folder):
        raise DestinationRefused(
            f"the folder '{folder}' does not exist", hint="make it, or choose another place with -o"
        )
    if os.path.isdir(path):
        raise DestinationRefused(f"'{path}' is a directory", hint="choose another place with -o")
    return path
