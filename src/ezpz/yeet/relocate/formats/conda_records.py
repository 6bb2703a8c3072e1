"""Read the records of conda about files that contain the prefix, and replace a prefix inside compiled code."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ezpz.agent.common.text import printable_path
from ezpz.errors import PrefixTooLong
from ezpz.yeet.relocate.formats.prefix import MAX_PATH, PATH_END
from ezpz.yeet.relocate.layout import CONDA_META

PYTHON_LIBRARY = re.compile(rb"python\d+\.\d+t?")
CONDA_ITSELF = re.compile(rb"conda-\d[^/]*\.json")  # not conda-build-*, not conda-env-*
PATH_BYTES = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.~+@%-" + bytes(range(128, 256))
)
NULS = re.compile(rb"\0+")
UNPACK_RECORDS = re.compile(rb"^_prefix_records = (\[.*?^\])", re.MULTILINE | re.DOTALL)

ReadFile: TypeAlias = Callable[[bytes], bytes | None]
ListNames: TypeAlias = Callable[[bytes], tuple[bytes, ...]]


@dataclass(frozen=True)
class PrefixRecords:
    """The files into which conda wrote the prefix when it installed them.

    Attributes:
        binary: Path of each compiled file, and the longest prefix in bytes that it has room for.
        placeholders: Prefixes that the packages were built with. Files that were never installed contain them.
    """

    binary: Mapping[bytes, int] = field(default_factory=dict)
    placeholders: frozenset[bytes] = frozenset()


@dataclass(frozen=True)
class PackRecords:
    """The files that conda-pack left for `conda-unpack`: the path of each, and the prefix that it still contains.

    The prefix is the package's placeholder for a file from conda's package cache, which was never installed. It is the
    prefix of the packed environment for text that pip installed, or for all text when the cache had been cleaned.
    `bin/python*` is never listed, although it contains its placeholder, which PrefixRecords knows.
    """

    text: Mapping[bytes, bytes] = field(default_factory=dict)
    binary: Mapping[bytes, bytes] = field(default_factory=dict)


def read_prefix_records(read: ReadFile, names: ListNames) -> PrefixRecords:
    """Return what the environment's `conda-meta/*.json` record. Missing, damaged, and older records are skipped.

    If several packages claim a file, the smallest placeholder counts, since the owner is unknown.

    Args:
        read: Returns a file of the tree of any size by its relative path, or None if there is none.
        names: Returns the names in a directory of the tree. Empty if there is no such directory.
    """
    binary: dict[bytes, int] = {}
    placeholders: set[bytes] = set()
    pythons = tuple(name for name in names(b"lib") if PYTHON_LIBRARY.fullmatch(name))
    for name in names(CONDA_META):
        for entry in _record_entries(read(CONDA_META + b"/" + name)) if name.endswith(b".json") else ():
            path, mode, placeholder = (entry.get(key) for key in ("_path", "file_mode", "prefix_placeholder"))
            if not isinstance(path, str) or not isinstance(placeholder, str) or not placeholder:
                continue
            placeholders.add(_encode_path(placeholder))
            room = len(_encode_path(placeholder))
            for installed in _installed_paths(_encode_path(path), pythons) if mode == "binary" else ():
                binary[installed] = min(room, binary.get(installed, room))
    return PrefixRecords(binary, frozenset(placeholders))


def _record_entries(record: bytes | None) -> tuple[dict[str, object], ...]:
    """Return the objects in paths_data.paths of a record."""
    try:
        data = json.loads(record or b"")
    except (ValueError, RecursionError):
        return ()
    for key in ("paths_data", "paths"):
        data = data.get(key) if isinstance(data, dict) else None
    return tuple(entry for entry in data if isinstance(entry, dict)) if isinstance(data, list) else ()


def _installed_paths(path: bytes, pythons: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return where the file of a record is. Packages for any python record the paths from before installation."""
    top, _, rest = path.partition(b"/")
    if top == b"site-packages":
        return tuple(b"lib/" + python + b"/" + path for python in pythons)
    return (b"bin/" + rest,) if top == b"python-scripts" else (path,)


def _encode_path(text: str) -> bytes:
    """Return a path that a Python program wrote as text. Invalid text becomes a path that no file has."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b"\0"


def replace_binary(
    data: bytes, moves: tuple[tuple[bytes, bytes], ...], *, path: bytes = b"a file", room: int | None = None
) -> tuple[bytes, int]:
    r"""Replace each old prefix in the strings of compiled code, keeping the length, and count the replacements.

    A string ends at a NUL. A string that gets shorter is filled with NULs, as conda does when it installs a file. A
    string that gets longer takes NULs that follow it, and leaves one.

    >>> replace_binary(b"\x01/p/env/lib:/p/env2\0\0\0", ((b"/p/env", b"/tmp/e2"),))
    (b'\x01/tmp/e2/lib:/p/env2\x00\x00', 1)

    Args:
        data: The file.
        moves: Pairs of old and new prefix.
        path: Path of the file, for the error.
        room: The longest prefix that the file was made for. The NULs after it are free, and no others are known to be.

    Raises:
        PrefixTooLong: The file has no room for a new prefix.
    """
    new_of = {old.rstrip(b"/"): new.rstrip(b"/") for old, new in moves}
    olds = sorted((old for old, new in new_of.items() if old not in (b"", new)), key=len, reverse=True)
    if not any(old in data for old in olds):
        return data, 0
    pattern = re.compile(b"(?:" + b"|".join(map(re.escape, olds)) + b")" + PATH_END)
    pieces: list[bytes] = []
    copied = count = missing = 0
    for matches in _group_by_string(data, pattern):
        start, end = matches[0].start(), _string_end(data, matches[0].start())
        new = _rewrite_string(data, matches, end, new_of)
        grown = len(new) - (end - start)
        if grown > 0:
            longest = max(len(new_of[match.group()]) for match in matches)
            lacking = -(-(grown - _free_bytes(data, end)) // len(matches))
            missing = max(missing, lacking, 0 if room is None else longest - room)
        pieces += (data[copied:start], new.ljust(end - start, b"\0"))
        copied, count = max(end, end + grown), count + len(matches)
    if missing > 0:
        raise PrefixTooLong(
            f"prefix too long by {missing:,} bytes in {printable_path(path)}", hint="use a shorter --dst"
        )
    return b"".join((*pieces, data[copied:])), count


def _group_by_string(data: bytes, pattern: re.Pattern[bytes]) -> list[list[re.Match[bytes]]]:
    """Return the whole old prefixes in each string that has any."""
    groups: list[list[re.Match[bytes]]] = []
    end = -1
    for match in pattern.finditer(data):
        if not _starts_path(data, match.start()):
            continue
        if match.start() >= end:
            end = _string_end(data, match.start())
            groups.append([])
        groups[-1].append(match)
    return groups


def _rewrite_string(data: bytes, matches: list[re.Match[bytes]], end: int, new_of: Mapping[bytes, bytes]) -> bytes:
    """Return a string, from its first old prefix on, with its prefixes replaced."""
    pieces = []
    for match, following in zip(matches, [*(each.start() for each in matches[1:]), end], strict=True):
        pieces += [new_of[match.group()], data[match.end() : following]]
    return b"".join(pieces)


def _string_end(data: bytes, start: int) -> int:
    end = data.find(b"\0", start)
    return len(data) if end < 0 else end


def _free_bytes(data: bytes, end: int) -> int:
    """Return by how many bytes a string that ends here can grow: the NULs that follow it, without the last one."""
    found = NULS.match(data, end)
    return len(found.group()) - 1 if found else 0


def _starts_path(data: bytes, start: int) -> bool:
    """Return whether a path begins at `start`, and is not the rest of a longer one.

    Unlike in text, a word before it does not make it part of another path: if constants precede a string, their last
    byte can be anything. Only a slash among what could be earlier parts of the path does.
    """
    for at in range(start - 1, max(-1, start - 1 - MAX_PATH), -1):
        if data[at] == ord("/"):
            return data[at - 2 : at + 1] == b"://" and at == start - 1
        if data[at] not in PATH_BYTES:
            break
    return True


def nested_directories(names: ListNames) -> tuple[bytes, ...]:
    """Return the directories of a conda base environment that hold packages to install, and other environments.

    Empty for other environments, where directories of these names are content.
    """
    top = names(b"")
    if b"condabin" not in top and not any(CONDA_ITSELF.fullmatch(name) for name in names(CONDA_META)):
        return ()
    return tuple(name for name in (b"pkgs", b"envs") if name in top)


def read_pack_records(script: bytes) -> PackRecords:
    """Return what the `bin/conda-unpack` of an archive made by conda-pack would replace. Empty for other scripts."""
    found = UNPACK_RECORDS.search(script)
    try:
        records = ast.literal_eval(found.group(1).decode()) if found else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        records = []
    modes: dict[str, dict[bytes, bytes]] = {"text": {}, "binary": {}}
    for record in records:
        match record:
            case (str(path), str(placeholder), "text" | "binary" as mode) if placeholder:
                modes[mode][_encode_path(path)] = _encode_path(placeholder)
    return PackRecords(**modes)
