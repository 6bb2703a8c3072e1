"""Blocks: how a large file is read, known and sent: piece by piece, without its holes."""

from __future__ import annotations

import errno
import os
from itertools import groupby
from typing import TYPE_CHECKING

from ezpz.agent.common.manifest import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAIN = 64 << 10  # bytes; zeros that fill so many, aligned, are a hole
HOLE = bytes(BLOCK)


def blocks_of(fd: int, size: int) -> Iterator[bytes]:
    """What is behind a descriptor, BLOCK bytes at a time; holes are not read. Raises OSError."""
    filled_from = 0
    for at in range(0, size, BLOCK):
        length = min(BLOCK, size - at)
        if filled_from <= at:
            filled_from = _next_data(fd, at, size)
        yield HOLE[:length] if filled_from >= at + length else os.pread(fd, length, at)


def _next_data(fd: int, at: int, size: int) -> int:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as e:
        return size if e.errno == errno.ENXIO else at  # nothing but a hole follows, or nobody can tell


def data_extents(block: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of a block that are no holes, each with its offset."""
    starts = range(0, len(block), GRAIN)
    for hole, grains in groupby(starts, key=lambda start: HOLE.startswith(block[start : start + GRAIN])):
        found = list(grains)
        if not hole:
            yield found[0], block[found[0] : found[-1] + GRAIN]
