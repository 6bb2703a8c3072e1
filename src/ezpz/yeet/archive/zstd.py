"""Zstandard (RFC 8878) by whatever this host has: libzstd, Python's own module, or the program."""

from __future__ import annotations

import ctypes
import importlib
import shutil
import threading
from contextlib import suppress
from functools import cache
from typing import IO, TYPE_CHECKING, Any, ClassVar, Protocol

from ezpz.errors import ToolMissing
from ezpz.runtime import process
from ezpz.runtime.streamed_process import StreamedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = "libzstd.so.1"
C_LEVEL, C_CHECKSUM, D_WINDOW_LOG = 100, 201, 100  # zstd.h
WINDOW_LOG = 27  # of what is read; a larger window is memory that an archive asks for
INPUT = 256 << 10  # bytes that are read at once
OUTPUT = 1 << 20  # bytes that are unpacked at once


class Damaged(Exception):
    """Data that is not what it should be."""


class Zstd(Protocol):
    """Packs one piece of data into a frame with a checksum, and unpacks a file of frames. Safe from any thread."""

    def pack(self, data: bytes, level: int) -> bytes: ...

    def unpack(self, file: IO[bytes]) -> Iterator[bytes]:
        """The content of a file, in pieces. Raises Damaged, OSError."""


class _Buffer(ctypes.Structure):
    _fields_: ClassVar = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


class Library:
    """libzstd through ctypes; the interpreter goes on meanwhile."""

    def __init__(self) -> None:
        self._zstd = library = ctypes.CDLL(LIBRARY)
        kinds = {"p": ctypes.c_void_p, "n": ctypes.c_size_t, "i": ctypes.c_int, "s": ctypes.c_char_p}
        for name, result, arguments in (
            ("ZSTD_createCCtx", "p", ""),
            ("ZSTD_createDCtx", "p", ""),
            ("ZSTD_freeDCtx", "n", "p"),
            ("ZSTD_CCtx_setParameter", "n", "pii"),
            ("ZSTD_DCtx_setParameter", "n", "pii"),
            ("ZSTD_compress2", "n", "ppnpn"),
            ("ZSTD_compressBound", "n", "n"),
            ("ZSTD_decompressStream", "n", "ppp"),
            ("ZSTD_isError", "i", "n"),
            ("ZSTD_getErrorName", "s", "n"),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = kinds[result], [kinds[kind] for kind in arguments]
        self._own = threading.local()

    def pack(self, data: bytes, level: int) -> bytes:
        zstd, own = self._zstd, self._own
        if not hasattr(own, "packing"):
            own.packing, own.room = zstd.ZSTD_createCCtx(), bytearray()
            self._checked(zstd.ZSTD_CCtx_setParameter(own.packing, C_CHECKSUM, 1))
        self._checked(zstd.ZSTD_CCtx_setParameter(own.packing, C_LEVEL, level))
        bound = zstd.ZSTD_compressBound(len(data))
        if bound > len(own.room):
            own.room = bytearray(bound)
        where = (ctypes.c_char * len(own.room)).from_buffer(own.room)
        size = zstd.ZSTD_compress2(own.packing, ctypes.addressof(where), len(own.room), data, len(data))
        return ctypes.string_at(where, self._checked(size))

    def unpack(self, file: IO[bytes]) -> Iterator[bytes]:
        zstd, room = self._zstd, ctypes.create_string_buffer(OUTPUT)
        unpacking = zstd.ZSTD_createDCtx()
        try:
            self._checked(zstd.ZSTD_DCtx_setParameter(unpacking, D_WINDOW_LOG, WINDOW_LOG))
            left = 0
            while data := file.read(INPUT):
                source = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
                full = True
                while source.pos < source.size or full:
                    target = _Buffer(ctypes.addressof(room), OUTPUT, 0)
                    left = self._checked(
                        zstd.ZSTD_decompressStream(unpacking, ctypes.byref(target), ctypes.byref(source))
                    )
                    full = target.pos == OUTPUT  # there may be more of it
                    if target.pos:
                        yield ctypes.string_at(room, target.pos)
            if left:
                raise Damaged("it ends within a frame")
        finally:
            zstd.ZSTD_freeDCtx(unpacking)

    def _checked(self, size: int) -> int:
        if self._zstd.ZSTD_isError(size):
            raise Damaged(self._zstd.ZSTD_getErrorName(size).decode())
        return size


class Module:
    """compression.zstd, of Python 3.14 and newer."""

    def __init__(self) -> None:
        self._zstd: Any = importlib.import_module("compression.zstd")

    def pack(self, data: bytes, level: int) -> bytes:
        kinds = self._zstd.CompressionParameter
        options = {kinds.compression_level: level, kinds.checksum_flag: 1}
        return bytes(self._zstd.compress(data, options=options))

    def unpack(self, file: IO[bytes]) -> Iterator[bytes]:
        options = {self._zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
        unpacking: Any = None
        data = b""
        try:
            while data or (data := file.read(INPUT)):
                unpacking = unpacking or self._zstd.ZstdDecompressor(options=options)
                yield unpacking.decompress(data, OUTPUT)
                while not unpacking.eof and not unpacking.needs_input:
                    yield unpacking.decompress(b"", OUTPUT)
                data, unpacking = (unpacking.unused_data, None) if unpacking.eof else (b"", unpacking)
        except self._zstd.ZstdError as e:
            raise Damaged(str(e)) from e
        if unpacking is not None:
            raise Damaged("it ends within a frame")


class Program:
    """The program zstd: the last resort, a process for each piece."""

    def __init__(self) -> None:
        if shutil.which("zstd") is None:
            raise OSError("zstd is not here")

    def pack(self, data: bytes, level: int) -> bytes:
        done = process.run(["zstd", "-q", "-c", "--check", f"-{level}"], feed=data)
        if done.returncode:
            raise Damaged(done.err)
        return done.stdout

    def unpack(self, file: IO[bytes]) -> Iterator[bytes]:
        with StreamedProcess(["zstd", "-d", "-q", "-c", f"--memory={1 << WINDOW_LOG}"], stdin=file) as unpacking:
            yield from unpacking
            assert unpacking.done is not None
            if unpacking.done.returncode:
                raise Damaged(unpacking.done.err.strip() or f"zstd ended with {unpacking.done.returncode}")


@cache
def zstd() -> Zstd:
    """The best that this host has. Raises ToolMissing."""
    for kind in (Library, Module, Program):
        with suppress(ImportError, OSError, AttributeError):
            return kind()
    raise ToolMissing(
        "this host has no zstd: neither libzstd.so.1, nor Python 3.14, nor the program",
        hint="install one of them, or make and use a .tar.gz",
    )
