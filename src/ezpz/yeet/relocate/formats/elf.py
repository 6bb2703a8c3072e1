"""ELF files: which libraries they name, and another run path in the same bytes. Lengths never change."""

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
    Image,
    Reader,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NT_GNU_BUILD_ID = 3


@dataclass(frozen=True)
class Dynamic:
    """What a file tells ld.so. `abi` is equal for files that can be in one process; a `program` names its ld.so."""

    soname: bytes
    needed: tuple[bytes, ...]
    rpath: tuple[bytes, ...]
    runpath: tuple[bytes, ...]
    abi: bytes
    program: bool


class Edits(NamedTuple):
    """Other run paths for a file.

    writes: where in the file which bytes go; edited: how many entries change; stuck: those that should and cannot
    """

    writes: tuple[tuple[int, bytes], ...]
    edited: int
    stuck: tuple[bytes, ...]


@dataclass(frozen=True)
class Retargeted:
    """A file after `retarget`: how many run path entries changed, and those that should have and could not."""

    data: bytes
    edited: int
    stuck: tuple[bytes, ...]


def is_elf(data: bytes) -> bool:
    """Whether `data` begins as an ELF file does."""
    return data[:4] == MAGIC


def read_dynamic(read: Reader) -> Dynamic | None:
    """What a file tells ld.so, or None when it is static, damaged or no ELF file; a few kilobytes of it are read."""
    try:
        image = Image(read)
        return Dynamic(
            soname=b"".join(image.strings(DT_SONAME)[:1]),
            needed=image.strings(DT_NEEDED),
            rpath=_entries(image.strings(DT_RPATH)),
            runpath=_entries(image.strings(DT_RUNPATH)),
            abi=image.abi,
            program=any(segment.kind == PT_INTERP for segment in image.segments),
        )
    except CorruptElf:
        return None


def retarget(data: bytes, change: Callable[[bytes], tuple[bytes, ...]]) -> Retargeted:
    """`data` with other run path entries; see `edits`."""
    writes, edited, stuck = edits(_reader(data), change)
    if not writes:
        return Retargeted(data, edited, stuck)
    new = bytearray(data)
    for start, text in writes:
        new[start : start + len(text)] = text
    return Retargeted(bytes(new), edited, stuck)


def edits(read: Reader, change: Callable[[bytes], tuple[bytes, ...]]) -> Edits:
    """What to write into a file for other run path entries, as far as the room of the old ones allows.

    change: one entry to what may stand in its place, best first; () leaves it. Idempotent if it leaves what it gave.
    """
    writes: list[tuple[int, bytes]] = []
    edited, stuck = 0, []
    try:
        image = Image(read)
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
        return Edits((), 0, ())
    return Edits(tuple(writes), edited, tuple(stuck))


def add_run_path(data: bytes, run_path: bytes) -> bytes | None:
    """`data` with a DT_RPATH that begins with `run_path`, or None when it has that already or there is no room.

    It is no DT_RUNPATH, because LD_LIBRARY_PATH, which may still name the old place, comes before that. The string goes
    where the build id was, or else into the zeros that fill up the last page of a segment.
    """
    try:
        image = Image(_reader(data))
        slot = next((index for index, (tag, _) in enumerate(image.tags) if tag in RUN_PATHS), len(image.tags))
        whole = run_path
        if slot < len(image.tags):
            old = image.string(image.tags[slot][1])
            if run_path in old.split(b":"):
                return None
            whole = b":".join(filter(None, (run_path, old)))
        elif [tag for tag, _ in image.slots[slot : slot + 2]] != [DT_NULL, DT_NULL]:
            return None
        place = _build_id(image, data, len(whole) + 1) or _padding(image, data, len(whole) + 1)
    except CorruptElf:
        return None
    if place is None:
        return None
    new = bytearray(data)
    new[place.start : place.end] = whole.ljust(place.end - place.start, b"\0")
    if place.kind_at is not None:  # what is no build id any more should not be taken for one
        struct.pack_into(image.order + "I", new, place.kind_at, 0)
    # glibc and musl add this to the address of the string table and do not look at its size: it may wrap around
    struct.pack_into(image.slot, new, image.slot_at(slot), DT_RPATH, (place.address - image.strtab) % image.modulus)
    return bytes(new)


def prefer_rpath(data: bytes) -> bytes:
    """`data` with its DT_RUNPATH, which LD_LIBRARY_PATH overrides, made a DT_RPATH, which it does not.

    For a program that has to start with its own libraries; what is loaded later searches a DT_RPATH of the program too.
    """
    try:
        image = Image(_reader(data))
    except CorruptElf:
        return data
    if any(tag == DT_RPATH for tag, _ in image.tags):
        return data
    new = bytearray(data)
    for index, (tag, value) in enumerate(image.tags):
        if tag == DT_RUNPATH:
            struct.pack_into(image.slot, new, image.slot_at(index), DT_RPATH, value)
    return bytes(new)


class _Place(NamedTuple):
    """Bytes that a process has in memory and nobody needs."""

    start: int
    end: int
    address: int
    kind_at: int | None = None  # where the type of the note is


def _reader(data: bytes) -> Reader:
    return lambda offset, size: data[offset : offset + size]


def _entries(run_paths: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(entry for run_path in run_paths if run_path for entry in run_path.split(b":"))


def _fit(old: list[bytes], options: list[tuple[bytes, ...]], room: int) -> list[bytes]:
    """What becomes of each old entry: its best option that leaves room for the rest; some stay if it must be."""
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


def _build_id(image: Image, data: bytes, size: int) -> _Place | None:
    """The build id, which only debuggers read, if it is mapped and of `size` bytes or more."""
    for segment in image.segments:
        at, end = segment.offset, segment.offset + segment.size
        align = 8 if segment.align == 8 else 4
        while segment.kind == PT_NOTE and at + 12 <= end:
            name_size, length, kind = image.unpack("3I", at)
            text = at + 12 + name_size + -name_size % align
            address = segment.address + text - segment.offset
            if kind == NT_GNU_BUILD_ID and data[at + 12 : at + 16] == b"GNU\0" and length >= size:
                image.take(text, length)
                return _Place(text, text + length, address, at + 8) if image.position(address) == text else None
            at = text + length + -length % align
    return None


def _padding(image: Image, data: bytes, size: int) -> _Place | None:
    """Zeros between two segments in the file, in the last page of the first one, that are `size` bytes or more."""
    loads = [segment for segment in image.segments if segment.kind == PT_LOAD]
    for segment in loads:
        start = segment.offset + segment.size
        end = min((other.offset for other in loads if other.offset >= start), default=start)
        end = min(end, start + segment.mapped - segment.size)
        whole = segment.size == segment.memory and not start <= image.sections_at < end
        if whole and end - start > size and data[start:end].strip(b"\0") == b"" and len(data) >= end:
            return _Place(start + 1, start + 1 + size, segment.address + segment.size + 1)  # after a NUL
    return None
