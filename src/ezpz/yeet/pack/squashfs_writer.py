"""Write an archive as a squashfs image, with mksquashfs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ezpz.runtime.atomic_file import publish, temporary_directory
from ezpz.runtime.streamed_process import FedProcess
from ezpz.yeet.archive.squashfs import MAKER, MIN_MAKER_VERSION, require_version
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
    on_progress: Callable[[int], None],
    cancel: CancelToken,
) -> int:
    """Write the archive and return its size in bytes, as `write_tar` does. Squashfs stores times in whole seconds.

    Raises:
        EzpzError: the source cannot be read, or the archive not written.
        `Cancelled`: `cancel` was used.
    """
    require_version(MAKER, MIN_MAKER_VERSION, cancel)
    try:
        with temporary_directory(os.path.dirname(path)) as directory:
            image = os.path.join(directory, "archive")
            with _start_maker(image, level, contents.plan.entries) as maker:
                files: dict[int, PackedFile] = {}
                dropped: list[int] = []
                for block in TarBuilder(contents.plan, bytes, cancel, sparse=False).blocks(ended=False):
                    maker.write(block.data)
                    files.update(block.files)
                    dropped += block.dropped
                    on_progress(block.content_bytes)
                maker.write(manifest_member(contents.render(files, dropped, 0)) + bytes(1024))
            publish(image, path, contents.plan.readers)
    except OSError as e:
        raise local_failure(e) from e
    return os.path.getsize(path)


@contextmanager
def _start_maker(image: str, level: int, entries: Sequence[Entry]) -> Iterator[FedProcess]:
    """Run a mksquashfs that reads a tar archive, and raise EzpzError if it fails.

    The top directory of the image gets the time of the newest entry: mksquashfs 4.5 offers no other way to set it.
    """
    options = ["-noappend", "-all-root", "-no-progress", "-quiet", "-no-xattrs"]
    options += ["-root-mode", f"{entries[0].permissions:o}"]
    newest = max(0, *(entry.mtime_ns // 10**9 for entry in entries))  # mksquashfs reduces later times to this one
    argv = [MAKER, "-", image, "-tar", *options, "-comp", "zstd", "-Xcompression-level", str(level)]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(newest)}
    with FedProcess(argv, env=environ) as maker:
        try:
            yield maker
            done = maker.finish()
        except BrokenPipeError:  # it ended too early: a failure whatever its exit status
            done = maker.finish()
            done = replace(done, returncode=done.returncode or 1)
        check_exit(done, MAKER)
