"""Formats of archives, recognized by their content or their name."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ezpz.errors import UsageError


@dataclass(frozen=True, slots=True)
class ArchiveFormat:
    """One format of an archive.

    Attributes:
        name: Name of the format.
        suffixes: Suffixes of file names, the usual one first.
        levels: Compression levels. Empty for a format without compression.
        default_level: Level if the user named none.
        strategy: Name of the strategy that reads it.
        check_command: Command that checks whether a file is valid.
    """

    name: str
    suffixes: tuple[str, ...]
    levels: range
    default_level: int
    strategy: str
    check_command: str


ZSTD = ArchiveFormat("tar.zst", (".tar.zst", ".tzst"), range(1, 20), 1, "tarball", "zstd -t")
GZIP = ArchiveFormat("tar.gz", (".tar.gz", ".tgz"), range(1, 10), 6, "tarball", "gzip -t")
TAR = ArchiveFormat("tar", (".tar",), range(0), 0, "tarball", "tar -tf")
SQUASHFS = ArchiveFormat("squashfs", (".squashfs", ".sqfs"), range(1, 20), 1, "squashfs", "unsquashfs -s")
FORMATS = {each.name: each for each in (ZSTD, GZIP, TAR, SQUASHFS)}
DEFAULT_FORMAT = ZSTD
MAGIC_BYTES = 4
MAGICS = {b"\x28\xb5\x2f\xfd": ZSTD, b"\x1f\x8b": GZIP, b"hsqs": SQUASHFS}
ARCHIVE_SUFFIXES = tuple(suffix for each in FORMATS.values() for suffix in each.suffixes)


def split_name(path: str) -> tuple[str, ArchiveFormat] | None:
    """Return the name of a file without its suffix and the format of the suffix, or None for other files."""
    name = path.rpartition("/")[2]
    for each in FORMATS.values():
        for suffix in each.suffixes:
            if name.lower().endswith(suffix) and len(name) > len(suffix):
                return name[: -len(suffix)], each
    return None


def detect_format(path: str | bytes) -> ArchiveFormat:
    """Return the format of a file, by its content or else its name. Raises OSError.

    An uncompressed tar begins with the name of its first member, so it is recognized by the file name only.
    """
    with open(path, "rb") as file:
        return format_of(file.read(MAGIC_BYTES), path)


def format_of(head: bytes, path: str | bytes) -> ArchiveFormat:
    """Return the format of a file from its first bytes, or else its name."""
    for magic, kind in MAGICS.items():
        if head.startswith(magic):
            return kind
    found = split_name(os.fsdecode(path))
    return TAR if found is None else found[1]


def choose_format(wanted: str | None, output: str | None) -> ArchiveFormat:
    """Return the format of an archive to create.

    Args:
        wanted: Name of a format, or None.
        output: Path of the archive, or None.

    Raises:
        UsageError: The name has no known suffix, or contradicts `wanted`.
    """
    found = split_name(output) if output is not None else None
    if output is not None and found is None:
        suffixes = ", ".join(each.suffixes[0] for each in FORMATS.values())
        raise UsageError(f"--output '{output}' does not end in one of {suffixes}")
    if wanted is None:
        return DEFAULT_FORMAT if found is None else found[1]
    if found is not None and found[1].name != wanted:
        raise UsageError(f"--output '{output}' is the name of a {found[1].name}, and --format says {wanted}")
    return FORMATS[wanted]


def choose_level(kind: ArchiveFormat, wanted: int | None) -> int:
    """Return the compression level. Raises UsageError for a level that the format does not have."""
    if wanted is None:
        return kind.default_level
    if wanted not in kind.levels:
        what = f"has the levels {kind.levels.start} to {kind.levels.stop - 1}" if kind.levels else "is not compressed"
        raise UsageError(f"--level {wanted} cannot be used: {kind.name} {what}")
    return wanted
