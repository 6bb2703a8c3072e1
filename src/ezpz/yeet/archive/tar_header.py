"""Headers of the members of a tar archive that is written (POSIX.1-2001, pax). Pure.

A member has a ustar header. An extended header precedes it where ustar is not enough: times that are not whole seconds,
long names, and large files. Sparse files have the format of GNU tar, version 1.0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.yeet.model.entry import Entry

BLOCK = 512  # bytes
FILE, HARD_LINK, SYMLINK, DIRECTORY, EXTENDED, LONG_TARGET = b"0", b"1", b"2", b"5", b"x", b"K"
NAME_SIZE, PREFIX_SIZE = 100, 155  # bytes of a name in a header, and of the directories before it
MAX_NUMBER = 8**11 - 1  # in a field of eleven octal digits
EXTENDED_NAME, LONG_NAME = b"././@PaxHeader", b"././@LongLink"
SPARSE_DIRECTORY = b"./GNUSparseFile.0/"  # a program without support for sparse files unpacks them here
NO_OWNER = b"0000000\0" * 2
END = bytes(2 * BLOCK)
NANOSECONDS = 10**9  # per second

Extent = tuple[int, int]


def member(entry: Entry) -> bytes:
    """Return the header of an entry, whose `size` is that of its content."""
    name = b"./" + entry.path
    if entry.link:
        return _headers(name, HARD_LINK, entry.permissions, 0, entry.mtime_ns, b"./" + entry.link)
    if entry.is_directory:
        return _headers(name + b"/" if entry.path else name, DIRECTORY, entry.permissions, 0, entry.mtime_ns)
    if entry.is_symlink:
        return _headers(name, SYMLINK, 0o777, 0, entry.mtime_ns, entry.target)
    return _headers(name, FILE, entry.permissions, entry.size, entry.mtime_ns)


def sparse_member(entry: Entry, extents: Sequence[Extent]) -> bytes:
    """Return the header of a sparse file, and its map.

    The pieces with data follow without gaps, and then `padding` for `sparse_size` bytes.

    Args:
        entry: the file
        extents: the offset and the length of each piece with data
    """
    name = b"./" + entry.path
    records = {
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name, b"GNU.sparse.realsize": b"%d" % entry.size,
    }  # fmt: skip
    placeholder = SPARSE_DIRECTORY + name.rpartition(b"/")[2][: NAME_SIZE - len(SPARSE_DIRECTORY)]
    size = sparse_size(entry, extents)
    return _headers(placeholder, FILE, entry.permissions, size, entry.mtime_ns, more=records) + _map(entry, extents)


def sparse_size(entry: Entry, extents: Sequence[Extent]) -> int:
    """Return the bytes of a sparse file in the archive: its map, and its pieces."""
    return len(_map(entry, extents)) + sum(length for _, length in extents)


def padding(size: int) -> bytes:
    """Return what follows `size` bytes of content."""
    return bytes(-size % BLOCK)


def _map(entry: Entry, extents: Sequence[Extent]) -> bytes:
    """Return the map, whose last extent ends where the file does."""
    complete = [*extents, (entry.size, 0)] if not extents or sum(extents[-1]) != entry.size else extents
    text = b"%d\n" % len(complete) + b"".join(b"%d\n%d\n" % extent for extent in complete)
    return text + padding(len(text))


def _headers(
    name: bytes,
    kind: bytes,
    mode: int,
    size: int,
    mtime_ns: int,
    target: bytes = b"",
    more: dict[bytes, bytes] | None = None,
) -> bytes:
    """Return the ustar header of a member, preceded by an extended one if needed."""
    records = dict(more or {})
    seconds, rest = divmod(mtime_ns, NANOSECONDS)
    if rest or not 0 <= seconds <= MAX_NUMBER:
        records[b"mtime"] = _time(mtime_ns)
    if size > MAX_NUMBER:
        records[b"size"] = b"%d" % size
    short, prefix = _split(name)
    if short is None:
        records[b"path"] = name
    before = b""
    if len(target) > NAME_SIZE and target.startswith(b"/"):
        before = _long_target(target)
    elif len(target) > NAME_SIZE:
        records[b"linkpath"] = target
    seconds = seconds if 0 <= seconds <= MAX_NUMBER else 0
    size = size if size <= MAX_NUMBER else 0
    plain = _ustar(name[:NAME_SIZE] if short is None else short, prefix, kind, mode, size, seconds, target[:NAME_SIZE])
    return before + (_extended(records) + plain if records else plain)


def _long_target(target: bytes) -> bytes:
    """Return GNU tar's own header for a long target: mksquashfs removes the first slash of a target in a pax header."""
    return _ustar(LONG_NAME, b"", LONG_TARGET, 0, len(target) + 1, 0, b"") + target + b"\0" + padding(len(target) + 1)


def _time(mtime_ns: int) -> bytes:
    seconds, rest = divmod(abs(mtime_ns), NANOSECONDS)
    return b"%b%d.%09d" % (b"-" if mtime_ns < 0 else b"", seconds, rest)


def _split(name: bytes) -> tuple[bytes | None, bytes]:
    """Return a name and the directories before it as a header holds them, None for the name if they do not fit."""
    if len(name) <= NAME_SIZE:
        return name, b""
    cut = name.find(b"/", len(name) - NAME_SIZE - 1, len(name) - 1)
    return (name[cut + 1 :], name[:cut]) if 0 < cut <= PREFIX_SIZE else (None, b"")


def _ustar(name: bytes, prefix: bytes, kind: bytes, mode: int, size: int, seconds: int, target: bytes) -> bytes:
    """Return a ustar header with its checksum."""
    before = name.ljust(NAME_SIZE, b"\0") + b"%07o\0%b%011o\0%011o\0" % (mode, NO_OWNER, size, seconds)
    after, total = _after_checksum(kind, target, prefix)
    return before + b"%06o\0 " % (sum(before) + total) + after


@lru_cache(maxsize=64)
def _after_checksum(kind: bytes, target: bytes, prefix: bytes) -> tuple[bytes, int]:
    """Return what follows the checksum in a header, and the sum of its bytes and of a blank checksum.

    It is the same for most files.
    """
    after = kind + target.ljust(NAME_SIZE, b"\0") + b"ustar\x0000" + bytes(80) + prefix.ljust(167, b"\0")
    return after, sum(after) + 8 * 32


@lru_cache(maxsize=64)
def _extended_header(size: int) -> bytes:
    """Return the header of a member that holds `size` bytes of records."""
    return _ustar(EXTENDED_NAME, b"", EXTENDED, 0o644, size, 0, b"")


def _extended(records: dict[bytes, bytes]) -> bytes:
    """Return an extended header."""
    text = b"".join(_record(key, value) for key, value in sorted(records.items()))
    if not text.isascii() and not _is_utf8(text):
        text = _record(b"hdrcharset", b"BINARY") + text
    return _extended_header(len(text)) + text + padding(len(text))


def _record(key: bytes, value: bytes) -> bytes:
    """Return `LENGTH KEY=VALUE` and a line feed, where the length includes its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    length = rest + len(b"%d" % length)
    return b"%d %b=%b\n" % (length, key, value)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
