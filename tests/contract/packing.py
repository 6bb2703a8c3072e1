"""An archive of what a scan has found, in the format of its name, as `ezpz yeet tar` makes it of a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ezpz.yeet.agent.cancel import CancelToken
from ezpz.yeet.archive.contents import Contents
from ezpz.yeet.archive.formats import SQUASHFS, level_of, split_name
from ezpz.yeet.archive.parcel import parcel_of
from ezpz.yeet.archive.squashfs import write_squashfs
from ezpz.yeet.archive.write import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.yeet.scan import Scan


def pack(scanned: Scan, path: str, moved: Callable[[int], None]) -> int:
    """Write the archive, and return its size."""
    found = split_name(path)
    assert found is not None
    writing = write_squashfs if found[1] is SQUASHFS else write
    return writing(Contents(parcel_of(scanned)), path, found[1], level_of(found[1], None), moved, CancelToken())
