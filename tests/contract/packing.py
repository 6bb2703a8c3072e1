"""An archive of what a scan has found, in the format of its name, as `ezpz yeet tar` makes it of a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ezpz.agent.common.cancel import CancelToken
from ezpz.yeet.pack.archive_manifest import ArchiveManifest
from ezpz.yeet.pack.archive_plan import plan_archive
from ezpz.yeet.pack.squashfs_writer import write_squashfs
from ezpz.yeet.pack.tar_writer import write_tar
from ezpz.yeet.source.archive_formats import SQUASHFS, choose_level, split_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.yeet.source.scan import Scan


def pack(scanned: Scan, path: str, moved: Callable[[int], None]) -> int:
    """Write the archive, and return its size."""
    found = split_name(path)
    assert found is not None
    writing = write_squashfs if found[1] is SQUASHFS else write_tar
    return writing(
        ArchiveManifest(plan_archive(scanned)), path, found[1], choose_level(found[1], None), moved, CancelToken()
    )
