"""Compression of chunks: zstd by what this host has, zlib, or none. What all hosts can unpack is negotiated."""

import ctypes
import zlib
from typing import Any, Tuple

from ..common.zstd import CorruptData, Data, ZstdLibrary, ZstdModule, ZstdProgram, bounded, first_available

PLAIN, ZLIB, ZSTD = 0, 1, 2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MALLOC_KEPT = 32 << 20  # bytes
MAX_RATIO = 0.95  # of the size; what compresses to more is sent as it is


def keep_memory() -> None:
    """Let malloc keep what is freed (mallopt(3)): buffers of a chunk's size are allocated all the time.

    By default each of them is mapped and unmapped, and the page faults are a sixth of what an agent costs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(parameter, MALLOC_KEPT)


class Codec:
    """What this host can pack and unpack; made once, used from any thread."""

    def __init__(self) -> None:
        kinds: Any = (ZstdModule, ZstdLibrary, ZstdProgram)
        self._zstd: Any = first_available(kinds)

    @property
    def best(self) -> int:
        """The best compression that this host knows."""
        return ZLIB if self._zstd is None else ZSTD

    def pack(self, data: bytes, kind: int, level: int) -> Tuple[int, bytes]:
        """Return the compression and the compressed data: (PLAIN, data) if compression gains nothing."""
        if kind == PLAIN or not data:
            return PLAIN, data
        if kind == ZSTD and self._zstd is not None:
            packed = self._zstd.pack(data, level)
        else:
            kind, packed = ZLIB, zlib.compress(data, max(1, min(9, level)))
        return (kind, packed) if len(packed) < len(data) * MAX_RATIO else (PLAIN, data)

    def unpack(self, data: Data, kind: int, limit: int) -> Data:
        """Return the data again, at most `limit` bytes; what was not packed is not copied. Raise CorruptData."""
        if kind == PLAIN:
            return bounded(data, limit)
        if kind == ZSTD and self._zstd is not None:
            unpacked: Data = self._zstd.unpack(bytes(data), limit)
            return unpacked
        if kind != ZLIB:
            raise CorruptData("a compression that this host does not know: {}".format(kind))
        unpacking = zlib.decompressobj()
        try:
            plain = unpacking.decompress(data, limit + 1)
        except zlib.error as e:
            raise CorruptData(str(e))
        if not unpacking.eof:
            raise CorruptData("damaged zlib data, or more of it than there may be")
        return bounded(plain, limit)
