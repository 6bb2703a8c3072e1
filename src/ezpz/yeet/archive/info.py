"""Told: what the manifest of an archive tells, read from its beginning without unpacking the rest."""

from __future__ import annotations

import json
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.agent.common import layout, manifest
from ezpz.agent.common.manifest import Unreadable
from ezpz.agent.common.wire_paths import ProtocolError, decode_target
from ezpz.errors import EzpzError, SourceUnreadable
from ezpz.yeet.archive.decompress import lines_of, pieces_of
from ezpz.yeet.archive.squashfs import manifest_in
from ezpz.yeet.archive.tar_reader import TarReader, Type
from ezpz.yeet.archive.zstd import Damaged
from ezpz.yeet.source.archive_formats import GZIP, SQUASHFS, format_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.agent.common.manifest import ManifestEntry

HEADER_LIMIT = 16 << 20  # bytes of the first line; it names the bytecode that was left out
NAME = b"./" + layout.MANIFEST


@dataclass(frozen=True, slots=True)
class ArchiveInfo:
    """The header of a manifest; see `contents`."""

    kind: str
    prefix: str
    base: dict[str, Any]
    version: str
    contents: str
    inputs: str
    files: int
    bytes: int
    packed: int
    dropped: tuple[str, ...]


def read_info(path: str) -> ArchiveInfo | None:
    """What an archive tells about itself; None for one without a manifest, or with one that cannot be read."""
    try:
        with _manifest(path) as lines:
            return None if lines is None else _told(next(lines, b""))
    except (OSError, Damaged, Unreadable, EzpzError):
        return None


def records_of(path: str) -> list[ManifestEntry]:
    """The entries that the manifest of an archive tells of. Raises Unreadable."""
    try:
        with _manifest(path) as lines:
            if lines is None:
                raise Unreadable("it has no manifest")
            told = _told(next(lines, b""))
            total, records = 0, []
            for line in lines:
                total += manifest.line_hash(line + b"\n")
                records.append(manifest.parse_line(line))
    except (OSError, Damaged, EzpzError) as e:
        raise Unreadable(str(e)) from e
    if manifest.content_digest(total) != told.contents:
        raise Unreadable("its manifest is damaged")
    return records


@contextmanager
def _manifest(path: str) -> Iterator[Iterator[bytes] | None]:
    """Within it, the lines of an archive's manifest, None when its first member is another."""
    kind = format_at(path)
    if kind is SQUASHFS:
        with manifest_in(path) as text:
            yield lines_of(text, HEADER_LIMIT)
        return
    with open(path, "rb") as file, closing(_closable(pieces_of(file, kind))) as pieces:
        members = TarReader(pieces)
        member = next(iter(members), None)
        if member is None or member.type is not Type.FILE or member.name not in (NAME, layout.MANIFEST):
            yield None
            return
        yield lines_of(members.blocks(member), HEADER_LIMIT)


def _closable(pieces: Iterator[bytes]) -> Any:
    """A generator of what an iterator gives: unpacking holds memory until it is closed."""
    yield from pieces


def _told(line: bytes) -> ArchiveInfo:
    try:
        facts = json.loads(line)
        if not isinstance(facts, dict) or facts.get("format") != manifest.FORMAT:
            raise Unreadable("no manifest, or one of another ezpz")
        told = ArchiveInfo(**{name: facts[name] for name in ArchiveInfo.__slots__})
    except (ValueError, KeyError, RecursionError) as e:
        raise Unreadable("the beginning of a manifest that cannot be read") from e
    texts = [told.kind, told.prefix, told.version, told.contents, told.inputs]
    numbers = (told.files, told.bytes, told.packed)
    sound = isinstance(told.base, dict) and isinstance(told.dropped, list)
    sound = sound and all(map(_is_text, [*texts, *told.dropped]))
    if not sound or not all(type(number) is int and number >= 0 for number in numbers):
        raise Unreadable("a manifest whose beginning contradicts itself")
    return told


def _is_text(found: object) -> bool:
    """Whether it is text, of which the lone surrogates are bytes that are no UTF-8."""
    if not isinstance(found, str):
        return False
    try:
        decode_target(found)
    except ProtocolError:
        return False
    return True


def is_whole(path: str, told: ArchiveInfo) -> bool:
    """Whether an archive is as large as its manifest says. Raises OSError."""
    return not told.packed or os.path.getsize(path) == told.packed


GZIP_OVERHEAD = 1024  # bytes by which what cannot be compressed may grow, besides a thousandth


def estimated_size(path: str, told: ArchiveInfo | None = None) -> int:
    """About how many bytes an archive holds, given what its manifest tells; at least so many when nothing does.

    Raises SourceUnreadable.
    """
    if told is not None:
        return told.bytes
    try:
        packed = os.path.getsize(path)
        return _gzip_size(path, packed) if format_at(path) is GZIP else packed
    except OSError as e:
        raise SourceUnreadable(f"cannot read '{path}': {e.strerror}", hint="are you allowed to read it?") from e


def _gzip_size(path: str, packed: int) -> int:
    """The last four bytes are the size modulo 4 GiB (RFC 1952)."""
    with open(path, "rb") as file:
        file.seek(max(0, packed - 4))
        size = int.from_bytes(file.read(4), "little")
    while size + size // 1000 + GZIP_OVERHEAD < packed:
        size += 1 << 32
    return size
