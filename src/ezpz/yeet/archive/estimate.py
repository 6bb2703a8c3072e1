"""Estimate: about how much an archive holds, without unpacking it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.errors import SourceUnreadable
from ezpz.yeet.archive.formats import GZIP, format_at

if TYPE_CHECKING:
    from ezpz.yeet.archive.told import Told

GZIP_OVERHEAD = 1024  # bytes by which what cannot be compressed may grow, besides a thousandth


def estimated_size(path: str, told: Told | None = None) -> int:
    """About how many bytes an archive holds, given what its manifest tells; at least so many when nothing does.

    Raises SourceUnreadable.
    """
    if told is not None:
        return told.bytes
    try:
        packed = os.path.getsize(path)
        return _gzip_size(path, packed) if format_at(path) is GZIP else packed
    except OSError as e:
        raise SourceUnreadable(f"cannot read '{path}': {e.strerror}", hint="are you allowed to read it?") from e


def _gzip_size(path: str, packed: int) -> int:
    """The last four bytes are the size modulo 4 GiB (RFC 1952)."""
    with open(path, "rb") as file:
        file.seek(max(0, packed - 4))
        size = int.from_bytes(file.read(4), "little")
    while size + size // 1000 + GZIP_OVERHEAD < packed:
        size += 1 << 32
    return size
