"""Formats: what an archive may be, by the end of its name."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ezpz.errors import UsageError


@dataclass(frozen=True, slots=True)
class Format:
    """One form of an archive.

    suffixes: how its name may end, the usual way first; levels: those of its compression, none for what has none
    level: the one that is taken when nobody says; strategy: what reads it
    checks: a command that tells whether a file of it is sound
    """

    name: str
    suffixes: tuple[str, ...]
    levels: range
    level: int
    strategy: str
    checks: str


ZSTD = Format("tar.zst", (".tar.zst", ".tzst"), range(1, 20), 1, "tarball", "zstd -t")
GZIP = Format("tar.gz", (".tar.gz", ".tgz"), range(1, 10), 6, "tarball", "gzip -t")
TAR = Format("tar", (".tar",), range(0), 0, "tarball", "tar -tf")
SQUASHFS = Format("squashfs", (".squashfs", ".sqfs"), range(1, 20), 1, "squashfs", "unsquashfs -s")
FORMATS = {each.name: each for each in (ZSTD, GZIP, TAR, SQUASHFS)}
DEFAULT = ZSTD
MAGIC_BYTES = 4
MAGICS = {b"\x28\xb5\x2f\xfd": ZSTD, b"\x1f\x8b": GZIP, b"hsqs": SQUASHFS}
ARCHIVE_SUFFIXES = tuple(suffix for each in FORMATS.values() for suffix in each.suffixes)


def split_name(path: str) -> tuple[str, Format] | None:
    """The name of a file without its suffix, and the format that the suffix stands for; None for any other file."""
    name = path.rpartition("/")[2]
    for each in FORMATS.values():
        for suffix in each.suffixes:
            if name.lower().endswith(suffix) and len(name) > len(suffix):
                return name[: -len(suffix)], each
    return None


def format_at(path: str | bytes) -> Format:
    """The format of a file by how it begins, or else by its name; a tar that is not compressed begins with a name.

    Raises OSError.
    """
    with open(path, "rb") as file:
        return format_by(file.read(MAGIC_BYTES), path)


def format_by(head: bytes, path: str | bytes) -> Format:
    """The same, given how it begins."""
    for magic, kind in MAGICS.items():
        if head.startswith(magic):
            return kind
    found = split_name(os.fsdecode(path))
    return TAR if found is None else found[1]


def choose_format(wanted: str | None, output: str | None) -> Format:
    """The format of an archive to be made: by its name, or by `wanted`; both must agree. Raises UsageError."""
    found = split_name(output) if output is not None else None
    if output is not None and found is None:
        suffixes = ", ".join(each.suffixes[0] for each in FORMATS.values())
        raise UsageError(f"--output '{output}' does not end in one of {suffixes}")
    if wanted is None:
        return DEFAULT if found is None else found[1]
    if found is not None and found[1].name != wanted:
        raise UsageError(f"--output '{output}' is the name of a {found[1].name}, and --format says {wanted}")
    return FORMATS[wanted]


def level_of(kind: Format, wanted: int | None) -> int:
    """The level of compression. Raises UsageError for one that the format does not have."""
    if wanted is None:
        return kind.level
    if wanted not in kind.levels:
        what = f"has the levels {kind.levels.start} to {kind.levels.stop - 1}" if kind.levels else "is not compressed"
        raise UsageError(f"--level {wanted} cannot be used: {kind.name} {what}")
    return wanted
