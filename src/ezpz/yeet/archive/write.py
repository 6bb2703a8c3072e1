"""Write: a parcel becomes a tar archive at its place, compressed or not; never half there.

Room is left for the manifest, whose length is known from the beginning, and which is written there in the end.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from ezpz.yeet.agent.codec import keep_memory
from ezpz.yeet.archive.compress import packing_of
from ezpz.yeet.archive.contents import Contents, Taken, manifest_member
from ezpz.yeet.archive.formats import SQUASHFS, Format, level_of, split_name
from ezpz.yeet.archive.pack import Pack
from ezpz.yeet.archive.parcel import parcel_of
from ezpz.yeet.archive.part_file import part_file
from ezpz.yeet.archive.squashfs import write_squashfs
from ezpz.yeet.copy.base import local_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.yeet.scan import Scan


def write_archive(scanned: Scan, path: str, moved: Callable[[int], None]) -> int:
    """Write all that a scan has found to `path`, in the format of its name; see `write`."""
    found = split_name(path)
    assert found is not None
    writing = write_squashfs if found[1] is SQUASHFS else write
    return writing(Contents(parcel_of(scanned)), path, found[1], level_of(found[1], None), moved, threading.Event())


def write(
    contents: Contents, path: str, kind: Format, level: int, moved: Callable[[int], None], stop: threading.Event
) -> int:
    """Write the archive, and return its size in bytes; `moved` is told the content bytes as they go.

    Raises EzpzError, Stopped.
    """
    keep_memory()
    packing = packing_of(kind, level)
    room = len(packing.stored(manifest_member(bytes(contents.length))))
    try:
        with part_file(path) as file:
            file.seek(room)
            taken: dict[int, Taken] = {}
            dropped: list[int] = []
            size = room
            for block in Pack(contents.parcel, packing.pack, stop).blocks():
                size += file.write(block.data)
                taken.update(block.taken)
                dropped += block.dropped
                moved(block.moved)
            text = contents.text(taken, dropped, size)
            file.seek(0)
            file.write(packing.stored(manifest_member(text)))
    except OSError as e:
        raise local_failure(e) from e
    return os.path.getsize(path)
