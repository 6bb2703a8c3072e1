"""Parsers for the fields and extended headers of a tar archive. Pure; all raise Damaged for invalid input."""

from __future__ import annotations

import re
from typing import TypeAlias

from ezpz.yeet.archive.zstd import Damaged

Records: TypeAlias = "list[tuple[bytes, bytes]]"
Extents: TypeAlias = "list[tuple[int, int]]"
"""Where a sparse file has data: the offset and the length of each piece."""

MAX_EXTENTS = 1 << 20
TIME = re.compile(rb"-?\d{1,11}(\.\d*)?")
NUMBER = re.compile(rb"\d{1,19}")
RECORD = re.compile(rb"(\d{1,7}) ")
NANOSECONDS = 10**9  # per second


def parse_number(field: bytes) -> int:
    """Return a number in a header: octal digits, or binary as GNU tar writes large numbers."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.partition(b"\0")[0].strip(b" ")
    try:
        return int(text or b"0", 8)
    except ValueError as e:
        raise Damaged(f"{field[:16]!r} is no number") from e


def parse_decimal(text: bytes) -> int:
    """Return a number in an extended header."""
    if not NUMBER.fullmatch(text):
        raise Damaged(f"{text[:40]!r} is no number")
    return int(text)


def parse_time(text: bytes) -> int:
    """Return a time in an extended header ("1700000000.123456789") in nanoseconds, without rounding."""
    if not TIME.fullmatch(text):
        raise Damaged(f"{text[:40]!r} is no time")
    seconds, _, fraction = text.partition(b".")
    return int(seconds) * NANOSECONDS + (-1 if text.startswith(b"-") else 1) * int(fraction[:9].ljust(9, b"0") or 0)


def parse_records(text: bytes) -> Records:
    """Return the keys and values of an extended header, in order."""
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


def is_sparse(extended: dict[bytes, bytes]) -> bool:
    """Return whether an extended header describes a sparse file."""
    return any(key in extended for key in (b"GNU.sparse.major", b"GNU.sparse.size", b"GNU.sparse.map"))


def parse_extents(own: Records, extended: dict[bytes, bytes]) -> Extents:
    """Return the map of a sparse file of version 0.0 or 0.1, which is in its extended header.

    Args:
        own: the records of the extended header, in order, since version 0.0 repeats its keys
        extended: the same and the global ones, by key
    """
    if b"GNU.sparse.map" in extended:
        numbers = [parse_decimal(text) for text in extended[b"GNU.sparse.map"].split(b",") if text]
    else:
        wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        numbers = [parse_decimal(value) for key, value in own if key in wanted]
    if len(numbers) % 2:
        raise Damaged("a map of holes that is none")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def parse_gnu_extents(field: bytes, limit: int) -> Extents:
    """Return the map of a sparse file in a header of GNU tar's own format, which has space for `limit` extents."""
    pairs = [field[start : start + 24] for start in range(0, 24 * limit, 24)]
    return [(parse_number(pair[:12]), parse_number(pair[12:])) for pair in pairs if pair.strip(b"\0")]


def check_extents(found: Extents, content: int, size: int) -> Extents:
    """Return a map without its empty extents, once it is known to be consistent.

    Args:
        found: the map
        content: bytes of the file in the archive
        size: bytes of the file with its holes
    """
    end = 0
    for start, length in found:
        if start < end or length < 0:
            raise Damaged("a map of holes that contradicts itself")
        end = start + length
    if end > size or sum(length for _, length in found) != content:
        raise Damaged("a map of holes that does not fit")
    return [extent for extent in found if extent[1]]
