"""Place: where an archive goes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.errors import DestinationRefused
from ezpz.yeet.archive.formats import DEFAULT, Format, chosen

if TYPE_CHECKING:
    from ezpz.yeet.source import Source


def archive_path(source: Source, output: str | None, kind: Format | None = None) -> str:
    """Where the archive goes: `output`, or the source's name and the format's suffix beside it.

    Raises UsageError, DestinationRefused.
    """
    chosen(kind.name if kind is not None else None, output)
    name = source.name + (kind or DEFAULT).suffixes[0]
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
