"""Compression of chunks: zstd by whatever this host has, zlib, or none; what a host can unpack is negotiated."""

import ctypes
import shutil
import subprocess
import threading
import zlib
from typing import Callable, Optional, Tuple, Union

PLAIN, ZLIB, ZSTD = 0, 1, 2
LIBRARY = "libzstd.so.1"
UNKNOWN_SIZE = (1 << 64) - 1  # zstd.h, ZSTD_CONTENTSIZE_UNKNOWN; one less is an error
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = 32 << 20  # bytes
WORTH_IT = 0.95  # of the size; what compresses to more is sent as it is

Data = Union[bytes, bytearray, memoryview]
Pack = Callable[[bytes, int], bytes]
Unpack = Callable[[bytes, int], Data]


def keep_memory() -> None:
    """Let malloc keep what is freed (mallopt(3)): buffers of a chunk's size come and go all the time.

    By default each of them is mapped and unmapped, and the page faults are a sixth of what an agent costs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(parameter, KEPT)


class Unpackable(Exception):
    """Data that is not what it says, or larger than it may be."""


class Library:
    """libzstd through ctypes, with a context for each thread; the interpreter goes on meanwhile."""

    def __init__(self) -> None:
        library = ctypes.CDLL(LIBRARY)
        for name, result, arguments in (
            ("ZSTD_createCCtx", "p", ""),
            ("ZSTD_createDCtx", "p", ""),
            ("ZSTD_compressCCtx", "n", "ppnpni"),
            ("ZSTD_decompressDCtx", "n", "ppnpn"),
            ("ZSTD_compressBound", "n", "n"),
            ("ZSTD_isError", "i", "n"),
            ("ZSTD_getFrameContentSize", "u", "pn"),
        ):
            kinds = {"p": ctypes.c_void_p, "n": ctypes.c_size_t, "i": ctypes.c_int, "u": ctypes.c_ulonglong}
            function = getattr(library, name)
            function.restype, function.argtypes = kinds[result], [kinds[kind] for kind in arguments]
        self._zstd = library
        self._own = threading.local()

    def pack(self, data: bytes, level: int) -> bytes:
        if not hasattr(self._own, "packing"):
            self._own.packing = self._zstd.ZSTD_createCCtx()
        room = ctypes.create_string_buffer(self._zstd.ZSTD_compressBound(len(data)))
        size = self._zstd.ZSTD_compressCCtx(self._own.packing, _at(room), len(room), data, len(data), level)
        if self._zstd.ZSTD_isError(size):
            raise Unpackable("zstd cannot compress")
        return ctypes.string_at(room, size)

    def unpack(self, data: bytes, most: int) -> Data:
        if not hasattr(self._own, "unpacking"):
            self._own.unpacking = self._zstd.ZSTD_createDCtx()
        told = self._zstd.ZSTD_getFrameContentSize(data, len(data))
        if told > most and told != UNKNOWN_SIZE:
            raise Unpackable("no zstd data, or too much of it")
        room = bytearray(most if told == UNKNOWN_SIZE else told)  # a program that reads a pipe does not tell
        where = (ctypes.c_char * len(room)).from_buffer(room)
        size = self._zstd.ZSTD_decompressDCtx(self._own.unpacking, _at(where), len(room), data, len(data))
        if self._zstd.ZSTD_isError(size) or (told != UNKNOWN_SIZE and size != told):
            raise Unpackable("damaged zstd data")
        del where
        return room if size == len(room) else room[:size]


def _at(room: "ctypes.Array[ctypes.c_char]") -> int:
    return ctypes.addressof(room)


class Module:
    """compression.zstd, of Python 3.14 and newer."""

    def __init__(self) -> None:
        from importlib import import_module

        self._zstd = import_module("compression.zstd")

    def pack(self, data: bytes, level: int) -> bytes:
        return bytes(self._zstd.compress(data, level))

    def unpack(self, data: bytes, most: int) -> Data:
        try:
            whole = self._zstd.ZstdDecompressor().decompress(data, most + 1)
        except self._zstd.ZstdError as e:
            raise Unpackable(str(e))
        return _bounded(whole, most)


class Program:
    """The program zstd: the last resort, one process a chunk."""

    def __init__(self) -> None:
        if shutil.which("zstd") is None:
            raise OSError("zstd is not here")

    def pack(self, data: bytes, level: int) -> bytes:
        return self._run(["zstd", "-q", "-c", "-{}".format(max(1, level))], data)

    def unpack(self, data: bytes, most: int) -> Data:
        return _bounded(self._run(["zstd", "-d", "-q", "-c"], data), most)

    @staticmethod
    def _run(argv: "list[str]", data: bytes) -> bytes:
        done = subprocess.run(argv, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode != 0:
            raise Unpackable(done.stderr.decode("utf-8", "replace").strip())
        return done.stdout


def _bounded(data: Data, most: int) -> Data:
    if len(data) > most:
        raise Unpackable("more data than there may be")
    return data


def _find_zstd() -> Optional[Tuple[Pack, Unpack]]:
    for kind in (Module, Library, Program):
        try:
            found = kind()
        except (ImportError, OSError, AttributeError):
            continue
        return found.pack, found.unpack
    return None


class Codec:
    """What this host can pack and unpack; made once, used from any thread."""

    def __init__(self) -> None:
        self._zstd = _find_zstd()

    @property
    def best(self) -> int:
        """The best of what this host knows."""
        return ZLIB if self._zstd is None else ZSTD

    def pack(self, data: bytes, kind: int, level: int) -> Tuple[int, bytes]:
        """Compress by `kind`, one that this host knows; (PLAIN, data) when that is no gain."""
        if kind == PLAIN or not data:
            return PLAIN, data
        if kind == ZSTD and self._zstd is not None:
            packed = self._zstd[0](data, level)
        else:
            kind, packed = ZLIB, zlib.compress(data, max(1, min(9, level)))
        return (kind, packed) if len(packed) < len(data) * WORTH_IT else (PLAIN, data)

    def unpack(self, data: Data, kind: int, most: int) -> Data:
        """The data again, at most `most` bytes of it; what was not packed is not copied. Raises Unpackable."""
        if kind == PLAIN:
            return _bounded(data, most)
        if kind == ZSTD and self._zstd is not None:
            return self._zstd[1](bytes(data), most)
        if kind != ZLIB:
            raise Unpackable("a compression that this host does not know: {}".format(kind))
        unpacking = zlib.decompressobj()
        try:
            plain = unpacking.decompress(data, most + 1)
        except zlib.error as e:
            raise Unpackable(str(e))
        if not unpacking.eof:
            raise Unpackable("damaged zlib data, or more of it than there may be")
        return _bounded(plain, most)
