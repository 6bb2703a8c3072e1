"""Write: a parcel becomes a tar archive at its place, compressed or not; never half there.

Room is left for the manifest, whose length is known from the beginning, and which is written there in the end.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.yeet.agent.codec import keep_memory
from ezpz.yeet.archive.compress import packing_of
from ezpz.yeet.archive.contents import manifest_member
from ezpz.yeet.archive.pack import Pack
from ezpz.yeet.archive.part_file import part_file
from ezpz.yeet.copy.base import local_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.yeet.agent.cancel import CancelToken
    from ezpz.yeet.archive.contents import Contents, Taken
    from ezpz.yeet.archive.formats import Format


def write(
    contents: Contents, path: str, kind: Format, level: int, moved: Callable[[int], None], cancel: CancelToken
) -> int:
    """Write the archive, and return its size in bytes; `moved` is told the content bytes as they go.

    Raises EzpzError, Cancelled.
    """
    keep_memory()
    packing = packing_of(kind, level)
    room = len(packing.stored(manifest_member(bytes(contents.length))))
    try:
        with part_file(path, contents.parcel.readers) as file:
            file.seek(room)
            taken: dict[int, Taken] = {}
            dropped: list[int] = []
            size = room
            for block in Pack(contents.parcel, packing.pack, cancel).blocks():
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
