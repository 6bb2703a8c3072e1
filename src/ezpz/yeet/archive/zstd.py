"""Zstandard for archives: frames with a checksum, and files of any length, by what this host has."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import IO, TYPE_CHECKING, Any, ClassVar, Protocol

from ezpz.agent.common.zstd import C_CHECKSUM, C_LEVEL, ZstdLibrary, ZstdModule, ZstdProgram, first_available
from ezpz.agent.common.zstd import CorruptData as Damaged
from ezpz.errors import ToolMissing
from ezpz.runtime.streamed_process import StreamedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["INPUT", "OUTPUT", "Damaged", "Zstd", "zstd"]

D_WINDOW_LOG = 100  # zstd.h, ZSTD_dParameter
WINDOW_LOG = 27  # of what is read; a larger window is memory that an archive asks for
INPUT = 256 << 10  # bytes that are read at once
OUTPUT = 1 << 20  # bytes that are unpacked at once
CUT = "it ends within a frame"


class Zstd(Protocol):
    """Packs data into a frame with a checksum, and unpacks a file of frames. Safe from any thread."""

    def pack(self, data: bytes, level: int) -> bytes:
        """Return a frame. Raise Damaged."""

    def unpack_file(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield the content of a file, in pieces. Raise Damaged or OSError."""


class _Buffer(ctypes.Structure):
    _fields_: ClassVar = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


class ArchiveZstdLibrary(ZstdLibrary):
    """libzstd, 1.4 or newer."""

    signatures = (
        *ZstdLibrary.signatures,
        ("ZSTD_freeDCtx", "n", "p"),
        ("ZSTD_CCtx_setParameter", "n", "pii"),
        ("ZSTD_DCtx_setParameter", "n", "pii"),
        ("ZSTD_compress2", "n", "ppnpn"),
        ("ZSTD_decompressStream", "n", "ppp"),
    )

    def compress(self, context: int, address: int, room: int, data: bytes, level: int) -> int:
        """Write a frame with a checksum."""
        for parameter, value in ((C_CHECKSUM, 1), (C_LEVEL, level)):
            self.checked(self.library.ZSTD_CCtx_setParameter(context, parameter, value))
        return int(self.library.ZSTD_compress2(context, address, room, data, len(data)))

    def unpack_file(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield the content of a file, in pieces. Raise Damaged or OSError."""
        library, room = self.library, ctypes.create_string_buffer(OUTPUT)
        context = library.ZSTD_createDCtx()
        try:
            self.checked(library.ZSTD_DCtx_setParameter(context, D_WINDOW_LOG, WINDOW_LOG))
            left = 0
            while data := file.read(INPUT):
                source = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
                full = True
                while source.pos < source.size or full:
                    target = _Buffer(ctypes.addressof(room), OUTPUT, 0)
                    left = self.checked(
                        library.ZSTD_decompressStream(context, ctypes.byref(target), ctypes.byref(source))
                    )
                    full = target.pos == OUTPUT  # there may be more of it
                    if target.pos:
                        yield ctypes.string_at(room, target.pos)
            if left:
                raise Damaged(CUT)
        finally:
            library.ZSTD_freeDCtx(context)


class ArchiveZstdModule(ZstdModule):
    """compression.zstd, of Python 3.14 and newer."""

    def pack(self, data: bytes, level: int) -> bytes:
        """Return a frame with a checksum."""
        kinds = self.module.CompressionParameter
        options = {kinds.compression_level: level, kinds.checksum_flag: 1}
        return bytes(self.module.compress(data, options=options))

    def unpack_file(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield the content of a file, in pieces. Raise Damaged or OSError."""
        options = {self.module.DecompressionParameter.window_log_max: WINDOW_LOG}
        unpacking: Any = None
        data = b""
        try:
            while data or (data := file.read(INPUT)):
                unpacking = unpacking or self.module.ZstdDecompressor(options=options)
                yield unpacking.decompress(data, OUTPUT)
                while not unpacking.eof and not unpacking.needs_input:
                    yield unpacking.decompress(b"", OUTPUT)
                data, unpacking = (unpacking.unused_data, None) if unpacking.eof else (b"", unpacking)
        except self.module.ZstdError as e:
            raise Damaged(str(e)) from e
        if unpacking is not None:
            raise Damaged(CUT)


class ArchiveZstdProgram(ZstdProgram):
    """The program zstd: the last resort, one process for each frame or file."""

    options = ("--check",)

    def unpack_file(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield the content of a file, in pieces. Raise Damaged or OSError."""
        with StreamedProcess(["zstd", "-d", "-q", "-c", f"--memory={1 << WINDOW_LOG}"], stdin=file) as unpacking:
            yield from unpacking
            assert unpacking.done is not None
            if unpacking.done.returncode:
                raise Damaged(unpacking.done.err.strip() or f"zstd ended with {unpacking.done.returncode}")


@cache
def zstd() -> Zstd:
    """Return the best binding that this host has. Raise ToolMissing."""
    kinds: tuple[Any, ...] = (ArchiveZstdLibrary, ArchiveZstdModule, ArchiveZstdProgram)
    found: Zstd | None = first_available(kinds)
    if found is None:
        raise ToolMissing(
            "this host has no zstd: neither libzstd.so.1, nor Python 3.14, nor the program",
            hint="install one of them, or make and use a .tar.gz",
        )
    return found
