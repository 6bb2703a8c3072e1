"""Read the libraries that an ELF file needs, and edit its run paths without changing its length."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ezpz.yeet.relocate.formats.elf_reader import (
    DT_NEEDED,
    DT_NULL,
    DT_RPATH,
    DT_RUNPATH,
    DT_SONAME,
    MAGIC,
    PT_INTERP,
    PT_LOAD,
    PT_NOTE,
    RUN_PATHS,
    CorruptElf,
    ElfImage,
    ReadAt,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NT_GNU_BUILD_ID = 3


@dataclass(frozen=True)
class DynamicInfo:
    """What a file tells ld.so.

    Attributes:
        soname: Its own name, or b"".
        needed: Names of the libraries it needs.
        rpath: Entries of DT_RPATH.
        runpath: Entries of DT_RUNPATH.
        abi: Equal for files that can be in one process.
        is_program: Whether it names its ld.so.
    """

    soname: bytes
    needed: tuple[bytes, ...]
    rpath: tuple[bytes, ...]
    runpath: tuple[bytes, ...]
    abi: bytes
    is_program: bool


class RunPathEdits(NamedTuple):
    """Edits of the run paths of a file.

    Attributes:
        writes: Offsets and the bytes to write there.
        edited: Number of entries that change.
        stuck: Entries that should change and cannot.
    """

    writes: tuple[tuple[int, bytes], ...]
    edited: int
    stuck: tuple[bytes, ...]


@dataclass(frozen=True)
class RetargetResult:
    """A file after `retarget`.

    Attributes:
        data: The new bytes.
        edited: Number of run path entries that changed.
        stuck: Entries that should have changed and could not.
    """

    data: bytes
    edited: int
    stuck: tuple[bytes, ...]


def is_elf(data: bytes) -> bool:
    """Return whether `data` begins as an ELF file does."""
    return data[:4] == MAGIC


def read_dynamic(read: ReadAt) -> DynamicInfo | None:
    """Return what a file tells ld.so, or None if it is static, damaged, or not ELF. A few kilobytes are read."""
    try:
        image = ElfImage(read)
        return DynamicInfo(
            soname=b"".join(image.strings(DT_SONAME)[:1]),
            needed=image.strings(DT_NEEDED),
            rpath=_split_entries(image.strings(DT_RPATH)),
            runpath=_split_entries(image.strings(DT_RUNPATH)),
            abi=image.abi,
            is_program=any(segment.kind == PT_INTERP for segment in image.segments),
        )
    except CorruptElf:
        return None


def retarget(data: bytes, change: Callable[[bytes], tuple[bytes, ...]]) -> RetargetResult:
    """Return `data` with other run path entries, see `plan_edits`."""
    writes, edited, stuck = plan_edits(_reader_of(data), change)
    if not writes:
        return RetargetResult(data, edited, stuck)
    new = bytearray(data)
    for start, text in writes:
        new[start : start + len(text)] = text
    return RetargetResult(bytes(new), edited, stuck)


def plan_edits(read: ReadAt, change: Callable[[bytes], tuple[bytes, ...]]) -> RunPathEdits:
    """Return the edits that replace run path entries, as far as the room of the old ones allows.

    Idempotent if `change` leaves the entries that it returned.

    Args:
        read: Reads the file.
        change: Returns the replacements for an entry, best first. () leaves the entry.
    """
    writes: list[tuple[int, bytes]] = []
    edited, stuck = 0, []
    try:
        image = ElfImage(read)
        for offset in dict.fromkeys(value for tag, value in image.tags if tag in RUN_PATHS):
            old = image.string(offset).split(b":")
            options = [change(entry) for entry in old]
            if old == [b""] or not any(options):
                continue
            start, room = image.room(offset)
            chosen = old if image.is_shared(offset, room) else _fit(old, options, room)
            if chosen != old:
                writes.append((start, b":".join(chosen).ljust(room, b"\0")))
            edited += sum(a != b for a, b in zip(old, chosen, strict=True))
            stuck += [a for a, b, may in zip(old, chosen, options, strict=True) if a == b and may and a not in may]
    except CorruptElf:
        return RunPathEdits((), 0, ())
    return RunPathEdits(tuple(writes), edited, tuple(stuck))


def add_run_path(data: bytes, run_path: bytes) -> bytes | None:
    """Return `data` with a DT_RPATH that begins with `run_path`, or None if it has one already or there is no room.

    It is not a DT_RUNPATH: LD_LIBRARY_PATH, which may still name the old place, comes before that. The string replaces
    the build id, or else zeros that fill the last page of a segment.
    """
    try:
        image = ElfImage(_reader_of(data))
        slot = next((index for index, (tag, _) in enumerate(image.tags) if tag in RUN_PATHS), len(image.tags))
        new_path = run_path
        if slot < len(image.tags):
            old = image.string(image.tags[slot][1])
            if run_path in old.split(b":"):
                return None
            new_path = b":".join(filter(None, (run_path, old)))
        elif [tag for tag, _ in image.slots[slot : slot + 2]] != [DT_NULL, DT_NULL]:
            return None
        free = _find_build_id(image, data, len(new_path) + 1) or _find_padding(image, data, len(new_path) + 1)
    except CorruptElf:
        return None
    if free is None:
        return None
    new = bytearray(data)
    new[free.start : free.end] = new_path.ljust(free.end - free.start, b"\0")
    if free.kind_at is not None:  # so that nothing takes it for a build id
        struct.pack_into(image.order + "I", new, free.kind_at, 0)
    # glibc and musl add this to the address of the string table and ignore the size of the table: it may wrap around
    struct.pack_into(
        image.slot, new, image.slot_position(slot), DT_RPATH, (free.address - image.strtab) % image.modulus
    )
    return bytes(new)


def prefer_rpath(data: bytes) -> bytes:
    """Return `data` with its DT_RUNPATH, which LD_LIBRARY_PATH overrides, made a DT_RPATH, which it does not.

    For a program that has to start with its own libraries. Libraries loaded later search the program's DT_RPATH as
    well.
    """
    try:
        image = ElfImage(_reader_of(data))
    except CorruptElf:
        return data
    if any(tag == DT_RPATH for tag, _ in image.tags):
        return data
    new = bytearray(data)
    for index, (tag, value) in enumerate(image.tags):
        if tag == DT_RUNPATH:
            struct.pack_into(image.slot, new, image.slot_position(index), DT_RPATH, value)
    return bytes(new)


class _FreeBytes(NamedTuple):
    """Bytes that are mapped into a process and not needed.

    Attributes:
        start: Offset in the file.
        end: Offset of their end.
        address: Address in the process.
        kind_at: Offset of the type of the note that they belong to, or None.
    """

    start: int
    end: int
    address: int
    kind_at: int | None = None


def _reader_of(data: bytes) -> ReadAt:
    return lambda offset, size: data[offset : offset + size]


def _split_entries(run_paths: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(entry for run_path in run_paths if run_path for entry in run_path.split(b":"))


def _fit(old: list[bytes], options: list[tuple[bytes, ...]], room: int) -> list[bytes]:
    """Return the replacement of each old entry: the best one that leaves room for the rest.

    Some entries may have to stay.
    """
    room -= len(old) - 1  # the colons
    choices = [may or (entry,) for entry, may in zip(old, options, strict=True)]
    if sum(len(min(may, key=len)) for may in choices) > room:
        choices = [(*may, entry) for entry, may in zip(old, choices, strict=True)]
    rest = sum(len(min(may, key=len)) for may in choices)
    chosen = []
    for may in choices:
        rest -= len(min(may, key=len))
        chosen.append(next(option for option in may if len(option) + rest <= room))
        room -= len(chosen[-1])
    return chosen


def _find_build_id(image: ElfImage, data: bytes, size: int) -> _FreeBytes | None:
    """Return the build id, which only debuggers read, if it is mapped and has `size` bytes or more."""
    for segment in image.segments:
        at, end = segment.offset, segment.offset + segment.size
        align = 8 if segment.align == 8 else 4
        while segment.kind == PT_NOTE and at + 12 <= end:
            name_size, length, kind = image.unpack("3I", at)
            text = at + 12 + name_size + -name_size % align
            address = segment.address + text - segment.offset
            if kind == NT_GNU_BUILD_ID and data[at + 12 : at + 16] == b"GNU\0" and length >= size:
                image.read(text, length)
                return _FreeBytes(text, text + length, address, at + 8) if image.position(address) == text else None
            at = text + length + -length % align
    return None


def _find_padding(image: ElfImage, data: bytes, size: int) -> _FreeBytes | None:
    """Return `size` or more zeros between two segments in the file, in the last page of the first one."""
    loads = [segment for segment in image.segments if segment.kind == PT_LOAD]
    for segment in loads:
        start = segment.offset + segment.size
        end = min((other.offset for other in loads if other.offset >= start), default=start)
        end = min(end, start + segment.mapped - segment.size)
        is_complete = segment.size == segment.memory and not start <= image.sections_at < end
        if is_complete and end - start > size and data[start:end].strip(b"\0") == b"" and len(data) >= end:
            return _FreeBytes(start + 1, start + 1 + size, segment.address + segment.size + 1)  # after a NUL
    return None
