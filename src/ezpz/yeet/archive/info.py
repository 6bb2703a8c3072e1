"""Manifest and size of an archive, read without decompressing all of it."""

from __future__ import annotations

import json
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.agent.common import layout, manifest
from ezpz.agent.common.manifest import Unreadable
from ezpz.agent.common.wire_paths import ProtocolError, decode_target
from ezpz.errors import EzpzError
from ezpz.yeet.archive.decompress import decompress, split_lines
from ezpz.yeet.archive.squashfs import open_manifest
from ezpz.yeet.archive.tar_reader import MemberType, TarReader
from ezpz.yeet.archive.zstd import Damaged
from ezpz.yeet.source.archive_formats import GZIP, SQUASHFS, detect_format
from ezpz.yeet.source.errors import source_unreadable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ezpz.agent.common.manifest import ManifestEntry


MAX_LINE = 16 << 20  # bytes; the first line names the bytecode that was left out
MANIFEST_NAMES = (b"./" + layout.MANIFEST, layout.MANIFEST)
GZIP_OVERHEAD = 1024  # bytes by which gzip may lengthen incompressible data, plus a thousandth


@dataclass(frozen=True, slots=True)
class ArchiveInfo:
    """Header of a manifest; `pack.archive_manifest` describes the fields."""

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
    """Return the header of an archive's manifest, None if there is no readable one."""
    try:
        with _open_lines(path) as lines:
            return None if lines is None else _parse_header(next(lines, b""))
    except (OSError, Damaged, Unreadable, EzpzError):
        return None


def read_records(path: str) -> list[ManifestEntry]:
    """Return the entries in an archive's manifest. Raises Unreadable."""
    try:
        with _open_lines(path) as lines:
            if lines is None:
                raise Unreadable("it has no manifest")
            info = _parse_header(next(lines, b""))
            total, records = 0, []
            for line in lines:
                total += manifest.line_hash(line + b"\n")
                records.append(manifest.parse_line(line))
    except (OSError, Damaged, EzpzError) as e:
        raise Unreadable(str(e)) from e
    if manifest.content_digest(total) != info.contents:
        raise Unreadable("its manifest is damaged")
    return records


def is_complete(path: str, info: ArchiveInfo) -> bool:
    """Return whether an archive is as large as its manifest says. Raises OSError."""
    return not info.packed or os.path.getsize(path) == info.packed


def estimated_size(path: str, info: ArchiveInfo | None = None) -> int:
    """Return about how many bytes of content an archive has, without a manifest at least that many.

    Args:
        path: the archive
        info: its manifest's header, None if it has none

    Raises:
        SourceUnreadable: the archive cannot be read.
    """
    if info is not None:
        return info.bytes
    try:
        packed = os.path.getsize(path)
        return _gzip_size(path, packed) if detect_format(path) is GZIP else packed
    except OSError as e:
        raise source_unreadable(os.fsencode(path), e) from e


@contextmanager
def _open_lines(path: str) -> Iterator[Iterator[bytes] | None]:
    """Open the lines of an archive's manifest, None if its first member is no manifest."""
    kind = detect_format(path)
    if kind is SQUASHFS:
        with open_manifest(path) as text:
            yield split_lines(text, MAX_LINE)
        return
    with open(path, "rb") as file, closing(_generate(decompress(file, kind))) as pieces:
        members = TarReader(pieces)
        member = next(iter(members), None)
        if member is None or member.type is not MemberType.FILE or member.name not in MANIFEST_NAMES:
            yield None
            return
        yield split_lines(members.read_blocks(member), MAX_LINE)


def _generate(pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """Yield the pieces; closing this generator frees the memory of the decompression."""
    yield from pieces


def _parse_header(line: bytes) -> ArchiveInfo:
    """Return the header in the first line of a manifest. Raises Unreadable."""
    try:
        facts = json.loads(line)
        if not isinstance(facts, dict) or facts.get("format") != manifest.FORMAT:
            raise Unreadable("no manifest, or one of another ezpz")
        info = ArchiveInfo(**{name: facts[name] for name in ArchiveInfo.__slots__})
    except (ValueError, KeyError, RecursionError) as e:
        raise Unreadable("the beginning of a manifest that cannot be read") from e
    texts = [info.kind, info.prefix, info.version, info.contents, info.inputs]
    numbers = (info.files, info.bytes, info.packed)
    valid = isinstance(info.base, dict) and isinstance(info.dropped, list)
    valid = valid and all(map(_is_text, [*texts, *info.dropped]))
    if not valid or not all(type(number) is int and number >= 0 for number in numbers):
        raise Unreadable("a manifest whose beginning contradicts itself")
    return info


def _is_text(found: object) -> bool:
    """Return whether something is text whose only lone surrogates stand for bytes that are not UTF-8."""
    if not isinstance(found, str):
        return False
    try:
        decode_target(found)
    except ProtocolError:
        return False
    return True


def _gzip_size(path: str, packed: int) -> int:
    """Return the size of the content of a gzip file, whose last four bytes are that size modulo 4 GiB (RFC 1952)."""
    with open(path, "rb") as file:
        file.seek(max(0, packed - 4))
        size = int.from_bytes(file.read(4), "little")
    while size + size // 1000 + GZIP_OVERHEAD < packed:
        size += 1 << 32
    return size
