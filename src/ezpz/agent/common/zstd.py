"""Zstandard (RFC 8878) by what this host has: libzstd, the module of Python, or the program."""

import ctypes
import shutil
import subprocess
import threading
from typing import Any, List, Optional, Sequence, Tuple, Type, TypeVar, Union

LIBRARY = "libzstd.so.1"
UNKNOWN_SIZE = (1 << 64) - 1  # zstd.h, ZSTD_CONTENTSIZE_UNKNOWN; one less is an error
C_LEVEL, C_CHECKSUM = 100, 201  # zstd.h, ZSTD_cParameter
C_TYPES = {
    "p": ctypes.c_void_p, "n": ctypes.c_size_t, "i": ctypes.c_int, "u": ctypes.c_ulonglong, "s": ctypes.c_char_p,
}  # fmt: skip
Signature = Tuple[str, str, str]  # a function of the library, its result, its arguments, by the keys of C_TYPES

Data = Union[bytes, bytearray, memoryview]
Z = TypeVar("Z")


class CorruptData(Exception):
    """Data that is not what it should be, or larger than it may be."""


class ZstdLibrary:
    """libzstd through ctypes, with contexts for each thread; other threads run meanwhile."""

    signatures: "Sequence[Signature]" = (
        ("ZSTD_createCCtx", "p", ""),
        ("ZSTD_createDCtx", "p", ""),
        ("ZSTD_compressCCtx", "n", "ppnpni"),
        ("ZSTD_decompressDCtx", "n", "ppnpn"),
        ("ZSTD_compressBound", "n", "n"),
        ("ZSTD_isError", "i", "n"),
        ("ZSTD_getErrorName", "s", "n"),
        ("ZSTD_getFrameContentSize", "u", "pn"),
    )

    def __init__(self) -> None:
        """Load the library. Raise OSError if there is none, AttributeError if it is too old."""
        self.library = ctypes.CDLL(LIBRARY)
        self.contexts = threading.local()
        for name, result, arguments in self.signatures:
            function = getattr(self.library, name)
            function.restype, function.argtypes = C_TYPES[result], [C_TYPES[kind] for kind in arguments]

    def pack(self, data: bytes, level: int) -> bytes:
        """Return a frame. Raise CorruptData."""
        room = self.compression_room(len(data))
        where = (ctypes.c_char * len(room)).from_buffer(room)
        size = self.checked(self.compress(self.compression_context(), ctypes.addressof(where), len(room), data, level))
        return ctypes.string_at(where, size)

    def compress(self, context: int, address: int, room: int, data: bytes, level: int) -> int:
        """Write a frame to an address with so much room; return its size, or the code of an error."""
        return int(self.library.ZSTD_compressCCtx(context, address, room, data, len(data), level))

    def compression_context(self) -> int:
        """Return the context of this thread."""
        if not hasattr(self.contexts, "compression"):
            self.contexts.compression = self.library.ZSTD_createCCtx()
        return int(self.contexts.compression)

    def compression_room(self, size: int) -> bytearray:
        """Return a buffer of this thread for the frame of so many bytes."""
        bound = self.library.ZSTD_compressBound(size)
        if bound > len(getattr(self.contexts, "room", b"")):
            self.contexts.room = bytearray(bound)
        room: bytearray = self.contexts.room
        return room

    def unpack(self, data: bytes, limit: int) -> Data:
        """Return the content of a frame, at most `limit` bytes. Raise CorruptData."""
        if not hasattr(self.contexts, "decompression"):
            self.contexts.decompression = self.library.ZSTD_createDCtx()
        size = self.library.ZSTD_getFrameContentSize(data, len(data))
        if size > limit and size != UNKNOWN_SIZE:
            raise CorruptData("no zstd data, or too much of it")
        room = bytearray(limit if size == UNKNOWN_SIZE else size)  # a program that reads a pipe does not know the size
        where = (ctypes.c_char * len(room)).from_buffer(room)
        address = ctypes.addressof(where)
        done = self.checked(
            self.library.ZSTD_decompressDCtx(self.contexts.decompression, address, len(room), data, len(data))
        )
        if size not in (UNKNOWN_SIZE, done):
            raise CorruptData("damaged zstd data")
        del where
        return room if done == len(room) else room[:done]

    def checked(self, size: int) -> int:
        """Return the result of a function. Raise CorruptData if it is the code of an error."""
        if self.library.ZSTD_isError(size):
            raise CorruptData(self.library.ZSTD_getErrorName(size).decode())
        return size


class ZstdModule:
    """compression.zstd, of Python 3.14 and newer."""

    def __init__(self) -> None:
        """Import the module. Raise ImportError."""
        from importlib import import_module

        self.module: Any = import_module("compression.zstd")

    def pack(self, data: bytes, level: int) -> bytes:
        """Return a frame."""
        return bytes(self.module.compress(data, level))

    def unpack(self, data: bytes, limit: int) -> Data:
        """Return the content of a frame, at most `limit` bytes. Raise CorruptData."""
        try:
            content = self.module.ZstdDecompressor().decompress(data, limit + 1)
        except self.module.ZstdError as e:
            raise CorruptData(str(e))
        return bounded(content, limit)


class ZstdProgram:
    """The program zstd: the last resort, one process for each frame."""

    options: "Sequence[str]" = ()
    """Options for compression."""

    def __init__(self) -> None:
        """Find the program. Raise OSError."""
        if shutil.which("zstd") is None:
            raise OSError("zstd is not here")

    def pack(self, data: bytes, level: int) -> bytes:
        """Return a frame. Raise CorruptData."""
        return self._run(["zstd", "-q", "-c", *self.options, "-{}".format(max(1, level))], data)

    def unpack(self, data: bytes, limit: int) -> Data:
        """Return the content of a frame, at most `limit` bytes. Raise CorruptData."""
        return bounded(self._run(["zstd", "-d", "-q", "-c"], data), limit)

    @staticmethod
    def _run(argv: "List[str]", data: bytes) -> bytes:
        done = subprocess.run(argv, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode != 0:
            raise CorruptData(done.stderr.decode("utf-8", "replace").strip())
        return done.stdout


def bounded(data: Data, limit: int) -> Data:
    """Return data of at most `limit` bytes. Raise CorruptData for more."""
    if len(data) > limit:
        raise CorruptData("more data than there may be")
    return data


def first_available(kinds: "Sequence[Type[Z]]") -> "Optional[Z]":
    """Return the first binding that works on this host, or None."""
    for kind in kinds:
        try:
            return kind()
        except (ImportError, OSError, AttributeError):
            continue
    return None
