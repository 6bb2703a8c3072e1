"""Told: what the manifest of an archive tells, read from its beginning without unpacking the rest."""

from __future__ import annotations

import json
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.errors import EzpzError
from ezpz.yeet.agent import manifest, tree
from ezpz.yeet.agent.manifest import Unreadable
from ezpz.yeet.agent.names import Malformed, raw_target
from ezpz.yeet.archive.formats import SQUASHFS, format_at
from ezpz.yeet.archive.members import Members, Type
from ezpz.yeet.archive.squashfs import manifest_in
from ezpz.yeet.archive.stream import lines_of, pieces_of
from ezpz.yeet.archive.zstd import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.yeet.agent.manifest import Record

HEADER_LIMIT = 16 << 20  # bytes of the first line; it names the bytecode that was left out
NAME = b"./" + tree.MANIFEST


@dataclass(frozen=True, slots=True)
class Told:
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


def told_by(path: str) -> Told | None:
    """What an archive tells about itself; None for one without a manifest, or with one that cannot be read."""
    try:
        with _manifest(path) as lines:
            return None if lines is None else _told(next(lines, b""))
    except (OSError, Damaged, Unreadable, EzpzError):
        return None


def records_of(path: str) -> list[Record]:
    """The entries that the manifest of an archive tells of. Raises Unreadable."""
    try:
        with _manifest(path) as lines:
            if lines is None:
                raise Unreadable("it has no manifest")
            told = _told(next(lines, b""))
            total, records = 0, []
            for line in lines:
                total += manifest.summed(line + b"\n")
                records.append(manifest.record_of(line))
    except (OSError, Damaged, EzpzError) as e:
        raise Unreadable(str(e)) from e
    if manifest.contents_of(total) != told.contents:
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
        members = Members(pieces)
        member = next(iter(members), None)
        if member is None or member.type is not Type.FILE or member.name not in (NAME, tree.MANIFEST):
            yield None
            return
        yield lines_of(members.blocks(member), HEADER_LIMIT)


def _closable(pieces: Iterator[bytes]) -> Any:
    """A generator of what an iterator gives: unpacking holds memory until it is closed."""
    yield from pieces


def _told(line: bytes) -> Told:
    try:
        facts = json.loads(line)
        if not isinstance(facts, dict) or facts.get("format") != manifest.FORMAT:
            raise Unreadable("no manifest, or one of another ezpz")
        told = Told(**{name: facts[name] for name in Told.__slots__})
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
        raw_target(found)
    except Malformed:
        return False
    return True


def is_whole(path: str, told: Told) -> bool:
    """Whether an archive is as large as its manifest says. Raises OSError."""
    return not told.packed or os.path.getsize(path) == told.packed
