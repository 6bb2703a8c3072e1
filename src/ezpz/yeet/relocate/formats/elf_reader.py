"""Read the parts of an ELF file that ld.so uses: segments, the dynamic section, and its strings.

Everything is found through the program headers: section headers may have been stripped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ReadAt = Callable[[int, int], bytes]  # takes an offset and a size; returns fewer bytes at the end of the file

MAGIC = b"\x7fELF"
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
DT_NULL, DT_NEEDED, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 0, 1, 5, 6, 10, 14, 15, 29
DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
RUN_PATHS = (DT_RPATH, DT_RUNPATH)
NAMES = (DT_NEEDED, DT_SONAME, 0x6FFFFEFA, 0x6FFFFEFB, 0x6FFFFEFC, 0x7FFFFFFD, 0x7FFFFFFF)  # config, audits, filters
TABLES = (4, DT_STRTAB, 7, 17, 23, 0x6FFFFEF5, 0x6FFFFFF0, DT_VERDEF, DT_VERNEED)  # hash, rela, rel, jmprel, versym
PAGE = 4096  # bytes; the smallest page of any Linux. The last page of a segment is mapped completely
MAX_SECTION = 1 << 20  # bytes of a dynamic section or of one string; only a damaged file has more


class CorruptElf(ValueError):
    """Not a dynamic ELF file, or not a complete one."""


class Segment(NamedTuple):
    """A program header."""

    kind: int
    offset: int
    address: int
    size: int  # in the file
    memory: int
    align: int

    @property
    def mapped(self) -> int:
        """Its size up to the end of its last page."""
        return self.size + -(self.address + self.size) % PAGE

    def maps(self, address: int) -> bool:
        """Return whether this segment maps the byte at `address` from the file."""
        return self.kind == PT_LOAD and 0 <= address - self.address < self.mapped


class ElfImage:
    """The headers and the dynamic section of a file. All methods raise CorruptElf.

    Attributes:
        abi: Equal for files that can be in one process.
        segments: The program headers.
        slots: All (tag, value) pairs of the dynamic section.
        tags: The pairs before its end.
    """

    def __init__(self, read: ReadAt) -> None:
        self._read_at = read
        head = read(0, 64)
        if head[:4] != MAGIC or len(head) < 52 or head[4] not in (1, 2) or head[5] not in (1, 2):
            raise CorruptElf
        self.abi = head[4:6] + head[18:20]
        self.order = "<" if head[5] == 1 else ">"
        wide = head[4] == 2
        self.modulus = 1 << (64 if wide else 32)
        self.slot = self.order + ("2Q" if wide else "2I")
        self.symbol = self.order + ("I20x" if wide else "I12x")
        self.sections_at: int = self.unpack("Q" if wide else "I", 40 if wide else 32)[0]
        table: int = self.unpack("Q" if wide else "I", 32 if wide else 28)[0]
        size, count = self.unpack("2H", 54 if wide else 42)
        if size != (56 if wide else 32):
            raise CorruptElf
        headers = struct.iter_unpack(self.order + ("I4x6Q" if wide else "8I"), self.read(table, size * count))
        self.segments = tuple(
            Segment(kind, offset, address, size, memory, align)
            for kind, offset, address, _physical, size, memory, *_, align in headers
        )
        where = next((segment for segment in self.segments if segment.kind == PT_DYNAMIC), None)
        if where is None or where.size > MAX_SECTION:
            raise CorruptElf
        self._slots_at = where.offset
        width = struct.calcsize(self.slot)
        self.slots = tuple(struct.iter_unpack(self.slot, self.read(where.offset, where.size // width * width)))
        end = next((index for index, (tag, _) in enumerate(self.slots) if tag == DT_NULL), len(self.slots))
        self.tags: tuple[tuple[int, int], ...] = self.slots[:end]
        self.values = dict(self.tags)
        self.strtab = self.values.get(DT_STRTAB, 0)

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes of the file."""
        data = self._read_at(offset, size) if offset >> 63 == 0 else b""
        if len(data) < size:
            raise CorruptElf
        return data

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        """Return the numbers at `offset`, in the byte order of the file."""
        return struct.unpack(self.order + layout, self.read(offset, struct.calcsize(self.order + layout)))

    def slot_position(self, index: int) -> int:
        """Return the offset in the file of a slot of the dynamic section."""
        return self._slots_at + index * struct.calcsize(self.slot)

    def position(self, address: int) -> int:
        """Return the offset in the file of the byte at `address`."""
        for segment in self.segments:
            if segment.maps(address):
                return segment.offset + address - segment.address
        raise CorruptElf

    def string(self, offset: int) -> bytes:
        """Return the string at `offset` of the string table."""
        start = self.position((self.strtab + offset) % self.modulus)
        size = 256
        while size <= MAX_SECTION:
            text = self._read_at(start, size) if start >> 63 == 0 else b""
            if (end := text.find(b"\0")) >= 0:
                return text[:end]
            if len(text) < size:
                raise CorruptElf
            size *= 16
        raise CorruptElf

    def strings(self, tag: int) -> tuple[bytes, ...]:
        """Return the strings that the slots with this tag name."""
        return tuple(self.string(value) for each, value in self.tags if each == tag)

    def room(self, offset: int) -> tuple[int, int]:
        """Return the offset of a string in the file, and the length that may replace it.

        NULs of an earlier edit count as room.
        """
        start, length = self.position((self.strtab + offset) % self.modulus), len(self.string(offset))
        after = self._read_at(start + length, max(1, min(MAX_SECTION, self.values.get(DT_STRSZ, 0) - offset - length)))
        return start, length + len(after) - len(after.lstrip(b"\0")) - 1

    def is_shared(self, offset: int, room: int) -> bool:
        """Return whether something else uses a byte of that room: linkers let a string be the end of another one."""
        start = self.position((self.strtab + offset) % self.modulus)
        if offset and self.read(start - 1, 1) != b"\0":
            return True
        try:
            return any(offset <= name < offset + room for name in self._name_offsets(offset))
        except CorruptElf:
            return True

    def _name_offsets(self, but: int) -> Iterator[int]:
        """Yield the offset of every name in the string table, except of run paths at `but`."""
        yield from (value for tag, value in self.tags if tag in NAMES or (tag in RUN_PATHS and value != but))
        yield from self._symbols()
        yield from self._needed_versions()
        yield from self._defined_versions()

    def _symbols(self) -> Iterator[int]:
        """Yield the names of everything between the symbol table and what follows it.

        Nothing records its length: the DT_GNU_HASH of a program that exports nothing does not count what it imports.
        """
        start = self.values.get(DT_SYMTAB)
        if start is None:
            return
        position = self.position(start)
        inside = next(segment for segment in self.segments if segment.maps(start))
        ends = [inside.address + inside.size, *(segment.address for segment in self.segments)]
        ends += [value for tag, value in self.tags if tag in TABLES]
        size = min((end for end in ends if end > start), default=start) - start
        width = struct.calcsize(self.symbol)
        for (name,) in struct.iter_unpack(self.symbol, self.read(position, size // width * width)):
            yield name

    def _needed_versions(self) -> Iterator[int]:
        """Yield the names of libraries and of their versions in DT_VERNEED."""
        at = self.position(self.values[DT_VERNEED]) if DT_VERNEED in self.values else 0
        for _ in range(self.values.get(DT_VERNEEDNUM, 0)):
            _, count, library, first, following = self.unpack("2H3I", at)
            yield library
            yield from self._chain("I2H2I", at + first, count)
            if not following:
                return
            at += following

    def _defined_versions(self) -> Iterator[int]:
        """Yield the names of versions in DT_VERDEF."""
        at = self.position(self.values[DT_VERDEF]) if DT_VERDEF in self.values else 0
        for _ in range(self.values.get(DT_VERDEFNUM, 0)):
            *_, count, _hash, first, following = self.unpack("4H3I", at)
            yield from self._chain("2I", at + first, count)
            if not following:
                return
            at += following

    def _chain(self, layout: str, at: int, count: int) -> Iterator[int]:
        """Yield the names of `count` records that each end with a name and the distance to the next record."""
        for _ in range(count):
            *_, name, following = self.unpack(layout, at)
            yield name
            if not following:
                return
            at += following
