"""Header: what stands before the content of a member of a tar archive (POSIX.1-2001, pax). Pure.

A plain ustar header where that can say everything, else an extended one before it: for times that are not whole
seconds, long names and large files. Sparse files are those of GNU tar, version 1.0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.yeet.model.entry import Entry

BLOCK = 512  # bytes
FILE, HARD_LINK, SYMLINK, FOLDER, EXTENDED, LONG_TARGET = b"0", b"1", b"2", b"5", b"x", b"K"
NAME, PREFIX = 100, 155  # bytes of a name in a header, and of the folders before it
MOST = 8**11 - 1  # in a field of eleven octal digits
EXTENDED_NAME, LONG_NAME = b"././@PaxHeader", b"././@LongLink"
SPARSE_FOLDER = b"./GNUSparseFile.0/"  # what unpacks it and knows nothing of holes does not take it for the file
NO_OWNER = b"0000000\0" * 2
END = bytes(2 * BLOCK)
SECOND = 10**9  # nanoseconds

Extent = tuple[int, int]


def member(entry: Entry) -> bytes:
    """The header of an entry, whose `size` is that of its content."""
    name = b"./" + entry.path
    if entry.link:
        return _headers(name, HARD_LINK, entry.permissions, 0, entry.mtime_ns, b"./" + entry.link)
    if entry.is_directory:
        return _headers(name + b"/" if entry.path else name, FOLDER, entry.permissions, 0, entry.mtime_ns)
    if entry.is_symlink:
        return _headers(name, SYMLINK, 0o777, 0, entry.mtime_ns, entry.target)
    return _headers(name, FILE, entry.permissions, entry.size, entry.mtime_ns)


def sparse_member(entry: Entry, extents: Sequence[Extent]) -> bytes:
    """The header of a file with holes and the map of what is in it: where each piece begins, and how long it is.

    The pieces follow, one directly behind the other, and then `padding` for `sparse_size` bytes.
    """
    name = b"./" + entry.path
    records = {
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name, b"GNU.sparse.realsize": b"%d" % entry.size,
    }  # fmt: skip
    stand_in = SPARSE_FOLDER + name.rpartition(b"/")[2][: NAME - len(SPARSE_FOLDER)]
    size = sparse_size(entry, extents)
    return _headers(stand_in, FILE, entry.permissions, size, entry.mtime_ns, more=records) + _map(entry, extents)


def sparse_size(entry: Entry, extents: Sequence[Extent]) -> int:
    """Bytes of a file with holes in the archive: its map, and its pieces."""
    return len(_map(entry, extents)) + sum(length for _, length in extents)


def padding(size: int) -> bytes:
    """What follows so many bytes of content."""
    return bytes(-size % BLOCK)


def _map(entry: Entry, extents: Sequence[Extent]) -> bytes:
    whole = [*extents, (entry.size, 0)] if not extents or sum(extents[-1]) != entry.size else extents
    text = b"%d\n" % len(whole) + b"".join(b"%d\n%d\n" % extent for extent in whole)
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
    """The ustar header, behind an extended one if it cannot say everything."""
    records = dict(more or {})
    seconds, rest = divmod(mtime_ns, SECOND)
    if rest or not 0 <= seconds <= MOST:
        records[b"mtime"] = _time(mtime_ns)
    if size > MOST:
        records[b"size"] = b"%d" % size
    short, prefix = _split(name)
    if short is None:
        records[b"path"] = name
    before = b""
    if len(target) > NAME and target.startswith(b"/"):
        before = _long_target(target)
    elif len(target) > NAME:
        records[b"linkpath"] = target
    seconds = seconds if 0 <= seconds <= MOST else 0
    size = size if size <= MOST else 0
    plain = _ustar(name[:NAME] if short is None else short, prefix, kind, mode, size, seconds, target[:NAME])
    return before + (_extended(records) + plain if records else plain)


def _long_target(target: bytes) -> bytes:
    """GNU tar's own header for what a link leads to: mksquashfs cuts the first slash off what an extended one says."""
    return _ustar(LONG_NAME, b"", LONG_TARGET, 0, len(target) + 1, 0, b"") + target + b"\0" + padding(len(target) + 1)


def _time(mtime_ns: int) -> bytes:
    seconds, rest = divmod(abs(mtime_ns), SECOND)
    return b"%b%d.%09d" % (b"-" if mtime_ns < 0 else b"", seconds, rest)


def _split(name: bytes) -> tuple[bytes | None, bytes]:
    """A name and the folders before it, as far as they fit into a header; None when they do not."""
    if len(name) <= NAME:
        return name, b""
    cut = name.find(b"/", len(name) - NAME - 1, len(name) - 1)
    return (name[cut + 1 :], name[:cut]) if 0 < cut <= PREFIX else (None, b"")


def _ustar(name: bytes, prefix: bytes, kind: bytes, mode: int, size: int, seconds: int, target: bytes) -> bytes:
    before = name.ljust(NAME, b"\0") + b"%07o\0%b%011o\0%011o\0" % (mode, NO_OWNER, size, seconds)
    after, total = _rest(kind, target, prefix)
    return before + b"%06o\0 " % (sum(before) + total) + after


@lru_cache(maxsize=64)
def _rest(kind: bytes, target: bytes, prefix: bytes) -> tuple[bytes, int]:
    """What stands behind the checksum, which is the same for most files, and what all but the beginning sums up to."""
    after = kind + target.ljust(NAME, b"\0") + b"ustar\x0000" + bytes(80) + prefix.ljust(167, b"\0")
    return after, sum(after) + 8 * 32


@lru_cache(maxsize=64)
def _before_records(size: int) -> bytes:
    """The header of an extended one, about which nothing but its length matters."""
    return _ustar(EXTENDED_NAME, b"", EXTENDED, 0o644, size, 0, b"")


def _extended(records: dict[bytes, bytes]) -> bytes:
    text = b"".join(_record(key, value) for key, value in sorted(records.items()))
    if not text.isascii() and not _is_utf8(text):
        text = _record(b"hdrcharset", b"BINARY") + text
    return _before_records(len(text)) + text + padding(len(text))


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts its own digits."""
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
