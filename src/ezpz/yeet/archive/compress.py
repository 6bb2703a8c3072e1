"""Compress: blocks of an archive, each by itself, so that many are packed at once and the result is always the same."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from ezpz.yeet.archive.zstd import zstd
from ezpz.yeet.source.archive_formats import GZIP, TAR, ZSTD, ArchiveFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STORED = 0xFFFF  # bytes in a stored block of deflate (RFC 1951), at most
RAW = 128 << 10  # bytes in a raw block of zstd (RFC 8878), at most
MAGIC = (0xFD2FB528).to_bytes(4, "little")
SIZE_KNOWN, WINDOW = 0xC0, 0x38  # a frame with its size in eight bytes, whose window is one block
GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # RFC 1952: deflate, no name, no time


class Packing(Protocol):
    """What blocks become in one format; any number of them, one behind the other, are a file of it."""

    def stored(self, data: bytes) -> bytes:
        """A block that is as long as any other of that many bytes, so that room can be left for it."""

    def pack(self, data: bytes) -> bytes:
        """A block, compressed. Safe from any thread."""


class PlainPacking:
    """No compression."""

    def __init__(self, level: int = 0) -> None: ...

    def stored(self, data: bytes) -> bytes:
        return data

    def pack(self, data: bytes) -> bytes:
        return data


class GzipPacking:
    """Each block is a member of its own, which every gunzip reads as one file."""

    def __init__(self, level: int) -> None:
        self.level = level

    def stored(self, data: bytes) -> bytes:
        blocks = b"".join(
            bytes((last,)) + len(block).to_bytes(2, "little") + (len(block) ^ 0xFFFF).to_bytes(2, "little") + block
            for block, last in _split(data, STORED)
        )
        return self._member(blocks, data)

    def pack(self, data: bytes) -> bytes:
        packing = zlib.compressobj(self.level, zlib.DEFLATED, -zlib.MAX_WBITS)
        return self._member(packing.compress(data) + packing.flush(), data)

    @staticmethod
    def _member(deflated: bytes, data: bytes) -> bytes:
        return GZIP_HEAD + deflated + zlib.crc32(data).to_bytes(4, "little") + (len(data) % 2**32).to_bytes(4, "little")


class ZstdPacking:
    """Each block is a frame of its own, with a checksum; one that is stored has none."""

    def __init__(self, level: int) -> None:
        self.level = level
        self._zstd = zstd()

    def stored(self, data: bytes) -> bytes:
        head = MAGIC + bytes((SIZE_KNOWN, WINDOW)) + len(data).to_bytes(8, "little")
        return head + b"".join(
            (last | len(block) << 3).to_bytes(3, "little") + block for block, last in _split(data, RAW)
        )

    def pack(self, data: bytes) -> bytes:
        return self._zstd.pack(data, self.level)


PACKINGS: dict[str, Callable[[int], Packing]] = {TAR.name: PlainPacking, GZIP.name: GzipPacking, ZSTD.name: ZstdPacking}


def packing_of(kind: ArchiveFormat, level: int) -> Packing:
    """How blocks are packed in a format. Raises ToolMissing when this host cannot."""
    return PACKINGS[kind.name](level)


def _split(data: bytes, most: int) -> Iterator[tuple[bytes, int]]:
    """Pieces of at most so many bytes, one at least, each with 1 for the last and 0 for the others."""
    for start in range(0, max(1, len(data)), most):
        yield data[start : start + most], int(start + most >= len(data))
