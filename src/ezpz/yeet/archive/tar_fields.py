"""Pax: what the fields and extended headers of a tar archive say, as numbers and extents. Pure; all raise Damaged."""

from __future__ import annotations

import re
from typing import TypeAlias

from ezpz.yeet.archive.zstd import Damaged

Records: TypeAlias = "list[tuple[bytes, bytes]]"
Extents: TypeAlias = "list[tuple[int, int]]"
"""Where a file has something: where each piece begins, and how long it is."""

MOST_EXTENTS = 1 << 20
TIME = re.compile(rb"-?\d{1,11}(\.\d*)?")
NUMBER = re.compile(rb"\d{1,19}")
RECORD = re.compile(rb"(\d{1,7}) ")
SECOND = 10**9  # nanoseconds


def number(field: bytes) -> int:
    """A number in a header: in octal digits, or in binary as GNU tar writes large ones."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.partition(b"\0")[0].strip(b" ")
    try:
        return int(text or b"0", 8)
    except ValueError as e:
        raise Damaged(f"{field[:16]!r} is no number") from e


def number_in(text: bytes) -> int:
    """A number in an extended header."""
    if not NUMBER.fullmatch(text):
        raise Damaged(f"{text[:40]!r} is no number")
    return int(text)


def time(text: bytes) -> int:
    """A time in an extended header ("1700000000.123456789") in whole nanoseconds, without the rounding of a float."""
    if not TIME.fullmatch(text):
        raise Damaged(f"{text[:40]!r} is no time")
    seconds, _, fraction = text.partition(b".")
    return int(seconds) * SECOND + (-1 if text.startswith(b"-") else 1) * int(fraction[:9].ljust(9, b"0") or 0)


def records(text: bytes) -> Records:
    """What an extended header says, in its order."""
    found: Records = []
    at = 0
    while at < len(text):
        length = RECORD.match(text, at)
        if length is None:
            raise Damaged("an extended header that is none")
        end = at + int(length[1])
        key, equals, value = text[length.end() : end - 1].partition(b"=")
        if not equals or end > len(text) or text[end - 1 : end] != b"\n":
            raise Damaged("an extended header that is none")
        found.append((key, value))
        at = end
    return found


def is_sparse(said: dict[bytes, bytes]) -> bool:
    """Whether an extended header tells of a file with holes."""
    return b"GNU.sparse.major" in said or b"GNU.sparse.size" in said or b"GNU.sparse.map" in said


def extents(own: Records, said: dict[bytes, bytes]) -> Extents:
    """The map of a sparse file of the versions 0.0 and 0.1, which is in its extended header."""
    if b"GNU.sparse.map" in said:
        numbers = [number_in(text) for text in said[b"GNU.sparse.map"].split(b",") if text]
    else:
        wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        numbers = [number_in(value) for key, value in own if key in wanted]
    if len(numbers) % 2:
        raise Damaged("a map of holes that is none")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def old_extents(field: bytes, most: int) -> Extents:
    """The map of a sparse file in a header of GNU tar's own format."""
    pairs = [field[start : start + 24] for start in range(0, 24 * most, 24)]
    return [(number(pair[:12]), number(pair[12:])) for pair in pairs if pair.strip(b"\0")]


def checked(found: Extents, content: int, size: int) -> Extents:
    """A map that fits so many bytes in the archive and a file of this size; without its empty pieces."""
    end = 0
    for start, length in found:
        if start < end or length < 0:
            raise Damaged("a map of holes that contradicts itself")
        end = start + length
    if end > size or sum(length for _, length in found) != content:
        raise Damaged("a map of holes that does not fit")
    return [extent for extent in found if extent[1]]
