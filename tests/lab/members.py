"""An archive of very many members, made faster than their files could be."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from ezpz.yeet.archive import tar_header
from ezpz.yeet.archive.compress import compressor_for
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.source.archive_formats import ZSTD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PER_FOLDER = 1000
WHEN = 1_700_000_000 * 10**9


def write_members(path: Path, count: int) -> None:
    """Write a .tar.zst of so many empty files."""
    packing = compressor_for(ZSTD, 1)
    with path.open("wb") as file:
        file.writelines(map(packing.compress, _folders(count)))


def _folders(count: int) -> Iterator[bytes]:
    for begin in range(0, count, PER_FOLDER):
        folder = b"part-%06d" % (begin // PER_FOLDER)
        parts = [tar_header.member(Entry(folder, stat.S_IFDIR | 0o755, WHEN, 0))]
        for number in range(begin, min(begin + PER_FOLDER, count)):
            name = b"%b/a-name-of-some-length-%d.py" % (folder, number)
            parts.append(tar_header.member(Entry(name, stat.S_IFREG | 0o644, WHEN, 0)))
        yield b"".join(parts)
    yield tar_header.END
