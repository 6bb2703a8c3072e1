"""Members of a tar archive from any program: v7, ustar, pax and GNU, sparse files included.

An archive is read once, in order, and is not trusted. Contradictions mean that it is damaged. The size of headers is
limited, so that they take little memory. An archive without an end was truncated.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ezpz.agent.common.manifest import BLOCK as PIECE
from ezpz.yeet.archive import tar_fields
from ezpz.yeet.archive.zstd import Damaged
from ezpz.yeet.source.sparse_blocks import HOLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ezpz.yeet.archive.tar_fields import Extents, Records

BLOCK = 512  # bytes
MAX_HEADER = 1 << 20  # bytes of an extended header or a long name
MAGIC = b"ustar"
GNU_MAGIC = b"ustar  \0"
CONTIGUOUS, OLD_FILE = b"7", b"\0"
SPARSE, LONG_NAME, LONG_TARGET, LABEL, VOLUME = b"S", b"L", b"K", b"V", b"M"
EXTENDED, GLOBAL = (b"x", b"X"), b"g"
NAMED_BY_GNU = {LONG_NAME: b"path", LONG_TARGET: b"linkpath"}
EXTENSIONS = (*EXTENDED, *NAMED_BY_GNU)
MAX_RECORDS = 1_000_000


class MemberType(Enum):
    """Type of a member."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    SPECIAL = "device or FIFO"


TYPES = {
    b"1": MemberType.HARD_LINK, b"2": MemberType.SYMLINK, b"3": MemberType.SPECIAL, b"4": MemberType.SPECIAL,
    b"5": MemberType.DIRECTORY, b"D": MemberType.DIRECTORY, b"6": MemberType.SPECIAL,
}  # fmt: skip
"""Types by the letter in a header; members with any other letter are files (POSIX)."""


class TarMember(NamedTuple):
    """A member, whose content has to be read before the next member.

    Attributes:
        name: its path, as the archive has it
        type: its type
        mode: its permissions
        mtime_ns: its time
        size: bytes of the file
        target: what a link points to
        extents: where a sparse file has data, None for other files
    """

    name: bytes
    type: MemberType
    mode: int
    mtime_ns: int
    size: int
    target: bytes
    extents: Extents | None


class TarReader:
    """Iterator over the members of an archive that arrives in pieces. Raises Damaged, and what the pieces raise."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer, self._at = b"", 0
        self._content = self._padding = 0  # bytes of the current member that are not read yet
        self._globals: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[TarMember]:
        while (member := self._read_member()) is not None:
            yield member
            self._skip(self._content + self._padding)
        for _ in self._pieces:  # decompression verifies the checksum at the end
            pass

    def read(self, member: TarMember) -> bytes:
        """Return the content of a file, which has to fit in memory."""
        if member.extents is None:
            self._content -= member.size
            return self._take(member.size)
        return b"".join(self.read_blocks(member))

    def read_blocks(self, member: TarMember) -> Iterator[bytes]:
        """Yield the content of a file in blocks of `manifest.BLOCK` bytes; the last one may be shorter."""
        extents = [(0, member.size)] if member.extents is None else member.extents
        following = iter([*extents, (member.size, 0)])
        start, length = next(following)
        for at in range(0, member.size, PIECE):
            end = min(at + PIECE, member.size)
            if start >= end:
                yield HOLE[: end - at]
                continue
            parts, offset = [], at
            while offset < end:
                if start > offset:
                    parts.append(bytes(min(start, end) - offset))
                    offset = min(start, end)
                    continue
                count = min(length, end - offset)
                self._content -= count
                parts.append(self._take(count))
                offset, start, length = offset + count, start + count, length - count
                while not length and start < member.size:
                    start, length = next(following)
            yield b"".join(parts)

    def _read_member(self) -> TarMember | None:
        """Return the next member with the contents of its extended headers, None at the end."""
        own: Records = []
        while (head := self._take(BLOCK)).strip(b"\0"):
            _refuse_damaged(head)
            kind, size = head[156:157], tar_fields.parse_number(head[124:136])
            if size < 0 or kind == VOLUME:
                raise Damaged("a member of negative size" if size < 0 else "it is one of several volumes")
            if kind == GLOBAL:
                self._globals.update(tar_fields.parse_records(self._read_extension(size)))
            elif kind in EXTENSIONS:
                own += self._read_records(kind, size)
            elif kind == LABEL:
                self._skip(size + -size % BLOCK)
            else:
                return self._member(head, kind, size, own)
            if len(own) + len(self._globals) > MAX_RECORDS:
                raise Damaged("too many extended headers")
        return None

    def _read_records(self, kind: bytes, size: int) -> Records:
        """Return the records of an extended header or of one of GNU tar's own."""
        data = self._read_extension(size)
        return tar_fields.parse_records(data) if kind in EXTENDED else [(NAMED_BY_GNU[kind], _text(data))]

    def _member(self, head: bytes, kind: bytes, size: int, own: Records) -> TarMember:
        """Return a member from its header and from the records of its extended headers."""
        extended = {**self._globals, **dict(own)}
        name = extended[b"path"] if b"path" in extended else _name(head)
        target = extended[b"linkpath"] if b"linkpath" in extended else _text(head[157:257])
        size = tar_fields.parse_decimal(extended[b"size"]) if b"size" in extended else size
        mtime_ns = tar_fields.parse_number(head[136:148]) * tar_fields.NANOSECONDS
        if b"mtime" in extended:
            mtime_ns = tar_fields.parse_time(extended[b"mtime"])
        found = TYPES.get(kind, MemberType.FILE)
        if kind == OLD_FILE and name.endswith(b"/"):
            found = MemberType.DIRECTORY
        if found is not MemberType.FILE:
            size = 0
        self._content, self._padding = size, -size % BLOCK
        extents: Extents | None = None
        if kind == SPARSE:
            extents, size = self._read_gnu_map(head)
        elif found is MemberType.FILE and tar_fields.is_sparse(extended):
            name = extended.get(b"GNU.sparse.name", name)
            extents, size = self._read_sparse_map(own, extended)
        if extents is not None:
            extents = tar_fields.check_extents(extents, self._content, size)
        if b"\0" in name or b"\0" in target:
            raise Damaged("a name with a NUL in it")
        return TarMember(name, found, tar_fields.parse_number(head[100:108]) & 0o7777, mtime_ns, size, target, extents)

    def _read_sparse_map(self, own: Records, extended: dict[bytes, bytes]) -> tuple[Extents, int]:
        """Return the map of a sparse file that an extended header describes, and the size of the file."""
        size = extended.get(b"GNU.sparse.realsize") or extended.get(b"GNU.sparse.size") or b"x"
        parsed = tar_fields.parse_decimal(size)
        if extended.get(b"GNU.sparse.major", b"0") == b"1":
            return self._read_map(), parsed
        return tar_fields.parse_extents(own, extended), parsed

    def _read_extension(self, size: int) -> bytes:
        """Return the content of an extended header."""
        if size > MAX_HEADER:
            raise Damaged("a header that is too large")
        data = self._take(size)
        self._skip(-size % BLOCK)
        return data

    def _read_gnu_map(self, head: bytes) -> tuple[Extents, int]:
        """Return the map of a sparse file in GNU tar's own format, and the size of the file."""
        found, more = tar_fields.parse_gnu_extents(head[386:482], 4), head[482]
        while more:
            block = self._take(BLOCK)
            found, more = found + tar_fields.parse_gnu_extents(block[:504], 21), block[504]
            if len(found) > tar_fields.MAX_EXTENTS:
                raise Damaged("a file with too many holes")
        return found, tar_fields.parse_number(head[483:495])

    def _read_map(self) -> Extents:
        """Return the map of a sparse file of version 1.0, which is at the start of its content."""
        text, wanted = b"", 1
        numbers: list[int] = []
        while len(numbers) < wanted:
            self._content -= BLOCK
            if self._content < 0 or len(text) > BLOCK:
                raise Damaged("a map of holes that is none")
            *lines, text = (text + self._take(BLOCK)).split(b"\n")
            numbers += [tar_fields.parse_decimal(line) for line in lines]
            wanted = 1 + 2 * numbers[0] if numbers else 1
            if wanted > 2 * tar_fields.MAX_EXTENTS:
                raise Damaged("a file with too many holes")
        return list(zip(numbers[1:wanted:2], numbers[2:wanted:2], strict=True))

    def _take(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises Damaged if there are fewer."""
        end = self._at + size
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            return data
        parts = [self._buffer[self._at :]]
        size -= len(parts[0])
        while size > 0:
            self._fill()
            parts.append(self._buffer[:size])
            self._at = min(size, len(self._buffer))
            size -= self._at
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        """Skip bytes, and forget the current member."""
        while size > len(self._buffer) - self._at:
            size -= len(self._buffer) - self._at
            self._fill()
        self._at += size
        self._content = self._padding = 0

    def _fill(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise Damaged("it ends in the middle")
        self._buffer, self._at = piece, 0


def _refuse_damaged(head: bytes) -> None:
    """Raise Damaged for a header with a wrong checksum, whose own field counts as spaces."""
    total, expected = sum(head) - sum(head[148:156]) + 256, tar_fields.parse_number(head[148:156])
    if total == expected:
        return
    # Old programs compute the sum of signed bytes.
    signed = total - 256 * sum(byte > 127 for byte in head[:148] + head[156:])
    if signed != expected:
        raise Damaged("a member's header is none")


def _name(head: bytes) -> bytes:
    name = _text(head[:100])
    is_ustar = head[257:262] == MAGIC and head[257:265] != GNU_MAGIC
    prefix = _text(head[345:500]) if is_ustar else b""
    return prefix + b"/" + name if prefix else name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
