"""Write an archive as a squashfs image, with mksquashfs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ezpz.runtime.atomic_file import publish, temporary_directory
from ezpz.runtime.streamed_process import FedProcess
from ezpz.yeet.archive.squashfs import MAKER, OLDEST, refuse_old
from ezpz.yeet.pack.archive_manifest import manifest_member
from ezpz.yeet.pack.tar_builder import TarBuilder
from ezpz.yeet.source.errors import check_exit, local_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.pack.archive_manifest import ArchiveManifest, PackedFile
    from ezpz.yeet.source.archive_formats import ArchiveFormat


def write_squashfs(
    contents: ArchiveManifest,
    path: str,
    _: ArchiveFormat,
    level: int,
    moved: Callable[[int], None],
    cancel: CancelToken,
) -> int:
    """Write the archive, and return its size in bytes; see `write.write`. Times are kept to the second, as it can.

    Raises EzpzError, Cancelled.
    """
    refuse_old(MAKER, OLDEST, cancel)
    folder = os.path.dirname(path)
    try:
        with temporary_directory(folder) as place:
            part = os.path.join(place, "archive")
            with _maker(part, level, contents.parcel.entries) as stream:
                taken: dict[int, PackedFile] = {}
                dropped: list[int] = []
                for block in TarBuilder(contents.parcel, bytes, cancel, holes=False).blocks(ended=False):
                    stream.write(block.data)
                    taken.update(block.taken)
                    dropped += block.dropped
                    moved(block.moved)
                stream.write(manifest_member(contents.text(taken, dropped, 0)) + bytes(1024))
            publish(part, path, contents.parcel.readers)
    except OSError as e:
        raise local_failure(e) from e
    return os.path.getsize(path)


@contextmanager
def _maker(part: str, level: int, entries: Sequence[Entry]) -> Iterator[FedProcess]:
    """A mksquashfs that is fed a tar; at the end it must have succeeded.

    The top of the image has the time of what is newest in it: mksquashfs 4.5 has no other way to give it one.
    """
    options = ["-noappend", "-all-root", "-no-progress", "-quiet", "-no-xattrs"]
    options += ["-root-mode", f"{entries[0].permissions:o}"]
    newest = max(0, *(entry.mtime_ns // 10**9 for entry in entries))  # later times would be made this one
    argv = [MAKER, "-", part, "-tar", *options, "-comp", "zstd", "-Xcompression-level", str(level)]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(newest)}
    with FedProcess(argv, env=environ) as maker:
        try:
            yield maker
            done = maker.finish()
        except BrokenPipeError:  # it has ended too early, which is a failure whatever its status
            done = maker.finish()
            done = replace(done, returncode=done.returncode or 1)
        check_exit(done, MAKER)
