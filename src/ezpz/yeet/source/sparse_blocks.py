"""Read large files in blocks, without their holes."""

from __future__ import annotations

import errno
import os
from itertools import groupby
from typing import TYPE_CHECKING

from ezpz.agent.common.manifest import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_HOLE = 64 << 10  # bytes; aligned zeros of this size are a hole
HOLE = bytes(BLOCK)


def blocks_of(fd: int, size: int) -> Iterator[bytes]:
    """Yield the content of a file, BLOCK bytes at a time. Holes are not read. Raises OSError."""
    data_from = 0
    for at in range(0, size, BLOCK):
        length = min(BLOCK, size - at)
        if data_from <= at:
            data_from = _next_data(fd, at, size)
        yield HOLE[:length] if data_from >= at + length else os.pread(fd, length, at)


def _next_data(fd: int, at: int, size: int) -> int:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as e:
        return size if e.errno == errno.ENXIO else at  # ENXIO: only a hole follows; else: holes are unknown


def data_extents(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of a block that are not holes, each with its offset."""
    starts = range(0, len(block), MIN_HOLE)
    for is_hole, run in groupby(starts, key=lambda start: HOLE.startswith(block[start : start + MIN_HOLE])):
        found = list(run)
        if not is_hole:
            yield found[0], block[found[0] : found[-1] + MIN_HOLE]
