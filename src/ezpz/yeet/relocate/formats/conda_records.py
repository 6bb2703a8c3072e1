"""Conda environments: which files hold the prefix by their own records, and how one inside compiled code changes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ezpz.agent.common.text import printable_path
from ezpz.errors import PrefixTooLong
from ezpz.yeet.relocate.formats.prefix import AFTER, LOOK_BACK
from ezpz.yeet.relocate.layout import CONDA_META

PYTHON_FOLDER = re.compile(rb"python\d+\.\d+t?")
CONDA_ITSELF = re.compile(rb"conda-\d[^/]*\.json")  # not conda-build-*, not conda-env-*
IN_A_PATH = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.~+@%-" + bytes(range(128, 256)))
NULS = re.compile(rb"\0+")
UNPACK_RECORDS = re.compile(rb"^_prefix_records = (\[.*?^\])", re.MULTILINE | re.DOTALL)

Read: TypeAlias = Callable[[bytes], bytes | None]
Names: TypeAlias = Callable[[bytes], tuple[bytes, ...]]


@dataclass(frozen=True)
class PrefixRecords:
    """Which files conda wrote the prefix into when it installed them.

    binary: the path of a compiled file, and the longest prefix in bytes that it has room for
    placeholders: the prefixes that the packages were built with, which stand in files that were never installed
    """

    binary: Mapping[bytes, int] = field(default_factory=dict)
    placeholders: frozenset[bytes] = frozenset()


@dataclass(frozen=True)
class PackRecords:
    """What conda-pack left for `conda-unpack` to replace: the path of a file, and the prefix that it still holds.

    That is the placeholder of the package for what came out of conda's package cache, which was never installed, and
    the prefix of the packed environment for text that pip installed, or for all text when the cache had been cleaned.
    `bin/python*` is never listed, although it holds its placeholder, which PrefixRecords knows.
    """

    text: Mapping[bytes, bytes] = field(default_factory=dict)
    binary: Mapping[bytes, bytes] = field(default_factory=dict)


def prefix_records(read: Read, names: Names) -> PrefixRecords:
    """What the environment's own `conda-meta/*.json` say; a record that is missing, damaged or older says nothing.

    read: a file of the tree by its relative path, whatever its size, None when there is none
    names: the names in a folder of the tree, none when there is no such folder
    A file that several packages claim has the room of the smallest placeholder, since nothing tells whose it is.
    """
    binary: dict[bytes, int] = {}
    placeholders: set[bytes] = set()
    pythons = tuple(name for name in names(b"lib") if PYTHON_FOLDER.fullmatch(name))
    for name in names(CONDA_META):
        for entry in _entries(read(CONDA_META + b"/" + name)) if name.endswith(b".json") else ():
            path, mode, placeholder = (entry.get(key) for key in ("_path", "file_mode", "prefix_placeholder"))
            if not isinstance(path, str) or not isinstance(placeholder, str) or not placeholder:
                continue
            placeholders.add(_bytes(placeholder))
            room = len(_bytes(placeholder))
            for place in _places(_bytes(path), pythons) if mode == "binary" else ():
                binary[place] = min(room, binary.get(place, room))
    return PrefixRecords(binary, frozenset(placeholders))


def _entries(record: bytes | None) -> tuple[dict[str, object], ...]:
    """The paths_data.paths of a record, those that are objects."""
    try:
        data = json.loads(record or b"")
    except (ValueError, RecursionError):
        return ()
    for key in ("paths_data", "paths"):
        data = data.get(key) if isinstance(data, dict) else None
    return tuple(entry for entry in data if isinstance(entry, dict)) if isinstance(data, list) else ()


def _places(path: bytes, pythons: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Where a file is that a record names: packages for any python are recorded as they were before installation."""
    top, _, rest = path.partition(b"/")
    if top == b"site-packages":
        return tuple(b"lib/" + python + b"/" + path for python in pythons)
    return (b"bin/" + rest,) if top == b"python-scripts" else (path,)


def _bytes(text: str) -> bytes:
    """The path that a Python program wrote as text; one that no file can have when it makes no sense."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b"\0"


def replace_binary(
    data: bytes, moves: tuple[tuple[bytes, bytes], ...], *, path: bytes = b"a file", room: int | None = None
) -> tuple[bytes, int]:
    """Compiled code with each old prefix replaced in every string, as long as before; and how many were replaced.

    A string ends at a NUL. One that gets shorter is filled with NULs, as conda does when it installs a file; one that
    gets longer takes NULs that follow it, and leaves one. `room` is the longest prefix that the file was made for: the
    NULs are free for that, and no more are known to be. Raises PrefixTooLong, which names `path`, where it cannot be.

    >>> replace_binary(b"\\x01/p/env/lib:/p/env2\\0\\0\\0", ((b"/p/env", b"/tmp/e2"),))
    (b'\\x01/tmp/e2/lib:/p/env2\\x00\\x00', 1)
    """
    new_of = {old.rstrip(b"/"): new.rstrip(b"/") for old, new in moves}
    olds = sorted((old for old, new in new_of.items() if old not in (b"", new)), key=len, reverse=True)
    if not any(old in data for old in olds):
        return data, 0
    pattern = re.compile(b"(?:" + b"|".join(map(re.escape, olds)) + b")" + AFTER)
    pieces: list[bytes] = []
    copied = count = missing = 0
    for matches in _by_string(data, pattern):
        start, end = matches[0].start(), _string_end(data, matches[0].start())
        new = _replaced(data, matches, end, new_of)
        grown = len(new) - (end - start)
        if grown > 0:
            longest = max(len(new_of[match.group()]) for match in matches)
            lacking = -(-(grown - _free(data, end)) // len(matches))
            missing = max(missing, lacking, 0 if room is None else longest - room)
        pieces += (data[copied:start], new.ljust(end - start, b"\0"))
        copied, count = max(end, end + grown), count + len(matches)
    if missing > 0:
        raise PrefixTooLong(
            f"prefix too long by {missing:,} bytes in {printable_path(path)}", hint="use a shorter --dst"
        )
    return b"".join((*pieces, data[copied:])), count


def _by_string(data: bytes, pattern: re.Pattern[bytes]) -> list[list[re.Match[bytes]]]:
    """The whole old prefixes of each string that has any."""
    groups: list[list[re.Match[bytes]]] = []
    end = -1
    for match in pattern.finditer(data):
        if not _begins_here(data, match.start()):
            continue
        if match.start() >= end:
            end = _string_end(data, match.start())
            groups.append([])
        groups[-1].append(match)
    return groups


def _replaced(data: bytes, matches: list[re.Match[bytes]], end: int, new_of: Mapping[bytes, bytes]) -> bytes:
    """The string from its first old prefix on."""
    pieces = []
    for match, following in zip(matches, [*(each.start() for each in matches[1:]), end], strict=True):
        pieces += [new_of[match.group()], data[match.end() : following]]
    return b"".join(pieces)


def _string_end(data: bytes, start: int) -> int:
    end = data.find(b"\0", start)
    return len(data) if end < 0 else end


def _free(data: bytes, end: int) -> int:
    """How many bytes a string that ends here could grow: the NULs that follow it, without one to end it."""
    found = NULS.match(data, end)
    return len(found.group()) - 1 if found else 0


def _begins_here(data: bytes, start: int) -> bool:
    """Whether a path begins at `start`, and is not the rest of a longer one.

    Unlike in text, a word before it does not make it part of another path: where constants lie before a string, their
    last byte may be anything. Only a slash among what could be the path's earlier parts does.
    """
    for at in range(start - 1, max(-1, start - 1 - LOOK_BACK), -1):
        if data[at] == ord("/"):
            return data[at - 2 : at + 1] == b"://" and at == start - 1
        if data[at] not in IN_A_PATH:
            break
    return True


def base_folders(names: Names) -> tuple[bytes, ...]:
    """The folders of a conda base environment that are not its own: packages to install from, and other environments.

    Nothing for any other environment, where a folder of that name is content.
    """
    top = names(b"")
    if b"condabin" not in top and not any(CONDA_ITSELF.fullmatch(name) for name in names(CONDA_META)):
        return ()
    return tuple(name for name in (b"pkgs", b"envs") if name in top)


def pack_prefixes(script: bytes) -> PackRecords:
    """What the `bin/conda-unpack` of an archive made by conda-pack would replace; nothing for any other script."""
    found = UNPACK_RECORDS.search(script)
    try:
        records = ast.literal_eval(found.group(1).decode()) if found else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        records = []
    modes: dict[str, dict[bytes, bytes]] = {"text": {}, "binary": {}}
    for record in records:
        match record:
            case (str(path), str(placeholder), "text" | "binary" as mode) if placeholder:
                modes[mode][_bytes(path)] = _bytes(placeholder)
    return PackRecords(**modes)
