"""Extents of sparse files: where they have data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ezpz.agent.common.manifest import BLOCK
from ezpz.yeet.source.sparse_blocks import MIN_HOLE, blocks_of, data_extents

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from ezpz.yeet.archive.tar_header import Extent

STAT_BLOCK = 512  # bytes; the unit of st_blocks


def is_sparse(status: os.stat_result) -> bool:
    """Return whether a file may have holes."""
    return status.st_size > MIN_HOLE and status.st_blocks * STAT_BLOCK < status.st_size


def file_extents(fd: int, size: int) -> list[Extent]:
    """Return the extents of a file, computed from its content since its holes may differ from disk to disk."""
    blocks = enumerate(blocks_of(fd, size))
    return merge_extents(
        (number * BLOCK + at, len(piece)) for number, block in blocks for at, piece in data_extents(block)
    )


def data_pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the pieces of a file in memory that are not zeros, each with its offset."""
    for start in range(0, len(data), BLOCK):
        for at, piece in data_extents(data[start : start + BLOCK]):
            yield start + at, piece


def merge_extents(extents: Iterable[Extent]) -> list[Extent]:
    """Return the extents with adjacent ones merged."""
    merged: list[Extent] = []
    for start, length in extents:
        if merged and sum(merged[-1]) == start:
            merged[-1] = merged[-1][0], merged[-1][1] + length
        else:
            merged.append((start, length))
    return merged
