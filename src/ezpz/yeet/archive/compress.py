"""Compression of archives in independent blocks, so that threads share the work and the result is reproducible."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from ezpz.yeet.archive.zstd import zstd
from ezpz.yeet.source.archive_formats import GZIP, TAR, ZSTD, ArchiveFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_DEFLATE_STORED = 0xFFFF  # bytes in a stored block of deflate (RFC 1951)
MAX_ZSTD_RAW = 128 << 10  # bytes in a raw block of zstd (RFC 8878)
ZSTD_MAGIC = (0xFD2FB528).to_bytes(4, "little")
ZSTD_SIZE_KNOWN, ZSTD_WINDOW = 0xC0, 0x38  # a frame with its size in eight bytes, whose window is one block
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # RFC 1952: deflate, no name, no time


class BlockCompressor(Protocol):
    """Compressor of blocks in one format. Any number of blocks, one after the other, are a file of this format."""

    def store(self, data: bytes) -> bytes:
        """Return an uncompressed block, whose length depends only on that of the data, to reserve space for it."""

    def compress(self, data: bytes) -> bytes:
        """Return a compressed block. Safe from any thread."""


class PlainBlocks:
    """Blocks without compression."""

    def __init__(self, level: int = 0) -> None: ...

    def store(self, data: bytes) -> bytes:
        return data

    def compress(self, data: bytes) -> bytes:
        return data


class GzipBlocks:
    """Blocks that are gzip members, which every gunzip reads as one file."""

    def __init__(self, level: int) -> None:
        self.level = level

    def store(self, data: bytes) -> bytes:
        blocks = b"".join(
            bytes((last,)) + len(block).to_bytes(2, "little") + (len(block) ^ 0xFFFF).to_bytes(2, "little") + block
            for block, last in _split(data, MAX_DEFLATE_STORED)
        )
        return self._member(blocks, data)

    def compress(self, data: bytes) -> bytes:
        deflate = zlib.compressobj(self.level, zlib.DEFLATED, -zlib.MAX_WBITS)
        return self._member(deflate.compress(data) + deflate.flush(), data)

    @staticmethod
    def _member(deflated: bytes, data: bytes) -> bytes:
        checksum, size = zlib.crc32(data), len(data) % 2**32
        return GZIP_HEADER + deflated + checksum.to_bytes(4, "little") + size.to_bytes(4, "little")


class ZstdBlocks:
    """Blocks that are zstd frames, with a checksum unless they are stored."""

    def __init__(self, level: int) -> None:
        self.level = level
        self._zstd = zstd()

    def store(self, data: bytes) -> bytes:
        header = ZSTD_MAGIC + bytes((ZSTD_SIZE_KNOWN, ZSTD_WINDOW)) + len(data).to_bytes(8, "little")
        return header + b"".join(
            (last | len(block) << 3).to_bytes(3, "little") + block for block, last in _split(data, MAX_ZSTD_RAW)
        )

    def compress(self, data: bytes) -> bytes:
        return self._zstd.pack(data, self.level)


COMPRESSORS: dict[str, Callable[[int], BlockCompressor]] = {
    TAR.name: PlainBlocks,
    GZIP.name: GzipBlocks,
    ZSTD.name: ZstdBlocks,
}


def compressor_for(kind: ArchiveFormat, level: int) -> BlockCompressor:
    """Return the compressor of a format. Raises ToolMissing if this host has none."""
    return COMPRESSORS[kind.name](level)


def _split(data: bytes, limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield pieces of at most `limit` bytes, at least one, each with 1 for the last and 0 for the others."""
    for start in range(0, max(1, len(data)), limit):
        yield data[start : start + limit], int(start + limit >= len(data))
