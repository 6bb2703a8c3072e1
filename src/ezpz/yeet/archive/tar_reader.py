"""Members: what is in a tar archive, one after the other, from whoever made it: v7, ustar, pax and GNU, sparse too.

It is read once, in order, and nothing that it says is believed: what contradicts itself is damaged, no header is so
large that it takes memory worth mentioning, and an archive without an end is one that was cut short.
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
HEADER_LIMIT = 1 << 20  # bytes of an extended header or a long name
MAGIC = b"ustar"
GNU_MAGIC = b"ustar  \0"
CONTIGUOUS, OLD_FILE = b"7", b"\0"
SPARSE, LONG_NAME, LONG_TARGET, LABEL, VOLUME = b"S", b"L", b"K", b"V", b"M"
EXTENDED, GLOBAL = (b"x", b"X"), b"g"
NAMED_BY_GNU = {LONG_NAME: b"path", LONG_TARGET: b"linkpath"}
EXTENSIONS = (*EXTENDED, *NAMED_BY_GNU)
MOST_RECORDS = 1_000_000


class Type(Enum):
    """What a member is. SPECIAL: a device or a FIFO."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    SPECIAL = "device or FIFO"


TYPES = {
    b"1": Type.HARD_LINK, b"2": Type.SYMLINK, b"3": Type.SPECIAL, b"4": Type.SPECIAL,
    b"5": Type.FOLDER, b"D": Type.FOLDER, b"6": Type.SPECIAL,
}  # fmt: skip
"""Of all the others it is unknown what they are; then they are files (POSIX)."""


class TarMember(NamedTuple):
    """One member; its content is to be asked for before the next one.

    size: bytes of the file; target: what a link leads to; extents: where it has something, None for all of it
    """

    name: bytes
    type: Type
    mode: int
    mtime_ns: int
    size: int
    target: bytes
    extents: Extents | None


class TarReader:
    """Iterates over the members of an archive, given its pieces. Raises Damaged, and what getting a piece raises."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer, self._at = b"", 0
        self._content = self._padding = 0  # bytes of the current member that were not asked for yet
        self._globals: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[TarMember]:
        while (member := self._next()) is not None:
            yield member
            self._skip(self._content + self._padding)
        for _ in self._pieces:  # what is compressed is checked at its very end
            pass

    def whole(self, member: TarMember) -> bytes:
        """The content of a file, which fits in memory."""
        if member.extents is None:
            self._content -= member.size
            return self._take(member.size)
        return b"".join(self.blocks(member))

    def blocks(self, member: TarMember) -> Iterator[bytes]:
        """The content of a file, in blocks of `manifest.BLOCK` bytes, of which the last one may be shorter."""
        extents = [(0, member.size)] if member.extents is None else member.extents
        following = iter([*extents, (member.size, 0)])
        start, length = next(following)
        for at in range(0, member.size, PIECE):
            end = min(at + PIECE, member.size)
            if start >= end:
                yield HOLE[: end - at]
                continue
            parts, here = [], at
            while here < end:
                if start > here:
                    parts.append(bytes(min(start, end) - here))
                    here = min(start, end)
                    continue
                taken = min(length, end - here)
                self._content -= taken
                parts.append(self._take(taken))
                here, start, length = here + taken, start + taken, length - taken
                while not length and start < member.size:
                    start, length = next(following)
            yield b"".join(parts)

    def _next(self) -> TarMember | None:
        """The next member, with all that the headers before it say; None at the end."""
        own: Records = []
        while (head := self._take(BLOCK)).strip(b"\0"):
            _refuse_damaged(head)
            kind, size = head[156:157], tar_fields.number(head[124:136])
            if size < 0 or kind == VOLUME:
                raise Damaged("a member of negative size" if size < 0 else "it is one of several volumes")
            if kind == GLOBAL:
                self._globals.update(tar_fields.records(self._extension(size)))
            elif kind in EXTENSIONS:
                own += self._records(kind, size)
            elif kind == LABEL:
                self._skip(size + -size % BLOCK)
            else:
                return self._member(head, kind, size, own)
            if len(own) + len(self._globals) > MOST_RECORDS:
                raise Damaged("too many extended headers")
        return None

    def _records(self, kind: bytes, size: int) -> Records:
        """What a header before a member says of it."""
        data = self._extension(size)
        return tar_fields.records(data) if kind in EXTENDED else [(NAMED_BY_GNU[kind], _text(data))]

    def _member(self, head: bytes, kind: bytes, size: int, own: Records) -> TarMember:
        said = {**self._globals, **dict(own)}
        name = said[b"path"] if b"path" in said else _name(head)
        target = said[b"linkpath"] if b"linkpath" in said else _text(head[157:257])
        size = tar_fields.number_in(said[b"size"]) if b"size" in said else size
        mtime_ns = tar_fields.time(said[b"mtime"]) if b"mtime" in said else tar_fields.number(head[136:148]) * 10**9
        found = TYPES.get(kind, Type.FILE)
        if kind == OLD_FILE and name.endswith(b"/"):
            found = Type.FOLDER
        extents: Extents | None = None
        real = size
        if found is not Type.FILE:
            size = real = 0
        self._content, self._padding = size, -size % BLOCK
        if kind == SPARSE:
            extents, real = self._old_map(head)
        elif found is Type.FILE and tar_fields.is_sparse(said):
            name = said.get(b"GNU.sparse.name", name)
            real = tar_fields.number_in(said.get(b"GNU.sparse.realsize") or said.get(b"GNU.sparse.size") or b"x")
            extents = tar_fields.extents(own, said) if said.get(b"GNU.sparse.major", b"0") != b"1" else self._map()
        if extents is not None:
            extents = tar_fields.checked(extents, self._content, real)
        if b"\0" in name or b"\0" in target:
            raise Damaged("a name with a NUL in it")
        return TarMember(name, found, tar_fields.number(head[100:108]) & 0o7777, mtime_ns, real, target, extents)

    def _extension(self, size: int) -> bytes:
        if size > HEADER_LIMIT:
            raise Damaged("a header that is too large")
        data = self._take(size)
        self._skip(-size % BLOCK)
        return data

    def _old_map(self, head: bytes) -> tuple[Extents, int]:
        """The map of a sparse file of GNU tar's own format, and the file's size."""
        found, more = tar_fields.old_extents(head[386:482], 4), head[482]
        while more:
            block = self._take(BLOCK)
            found, more = found + tar_fields.old_extents(block[:504], 21), block[504]
            if len(found) > tar_fields.MOST_EXTENTS:
                raise Damaged("a file with too many holes")
        return found, tar_fields.number(head[483:495])

    def _map(self) -> Extents:
        """The map of a sparse file of version 1.0, which its content begins with."""
        text, wanted = b"", 1
        numbers: list[int] = []
        while len(numbers) < wanted:
            self._content -= BLOCK
            if self._content < 0 or len(text) > BLOCK:
                raise Damaged("a map of holes that is none")
            *lines, text = (text + self._take(BLOCK)).split(b"\n")
            numbers += [tar_fields.number_in(line) for line in lines]
            wanted = 1 + 2 * numbers[0] if numbers else 1
            if wanted > 2 * tar_fields.MOST_EXTENTS:
                raise Damaged("a file with too many holes")
        return list(zip(numbers[1:wanted:2], numbers[2:wanted:2], strict=True))

    def _take(self, size: int) -> bytes:
        """So many bytes. Raises Damaged when there are fewer."""
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
    """Raise Damaged for a header whose checksum is wrong: its own field counts as spaces."""
    total, told = sum(head) - sum(head[148:156]) + 256, tar_fields.number(head[148:156])
    if total == told:
        return
    signed = total - 256 * sum(byte > 127 for byte in head[:148] + head[156:])  # as some old programs have counted
    if signed != told:
        raise Damaged("a member's header is none")


def _name(head: bytes) -> bytes:
    name = _text(head[:100])
    is_ustar = head[257:262] == MAGIC and head[257:265] != GNU_MAGIC
    prefix = _text(head[345:500]) if is_ustar else b""
    return prefix + b"/" + name if prefix else name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
