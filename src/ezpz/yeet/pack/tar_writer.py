"""Write an archive as a tar file, compressed or not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.agent.stream.codec import keep_memory
from ezpz.runtime.atomic_file import atomic_file
from ezpz.yeet.archive.compress import compressor_for
from ezpz.yeet.pack.archive_manifest import manifest_member
from ezpz.yeet.pack.tar_builder import TarBuilder
from ezpz.yeet.source.errors import local_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.pack.archive_manifest import ArchiveManifest, PackedFile
    from ezpz.yeet.source.archive_formats import ArchiveFormat


def write_tar(
    contents: ArchiveManifest,
    path: str,
    kind: ArchiveFormat,
    level: int,
    on_progress: Callable[[int], None],
    cancel: CancelToken,
) -> int:
    """Write the archive and return its size in bytes.

    Args:
        contents: the manifest of the archive
        path: where to write it; whatever is at this path is replaced
        kind: the format
        level: the compression level
        on_progress: called with the number of bytes of content that were read since the last call
        cancel: ends the work early

    Raises:
        EzpzError: the source cannot be read, or the archive not written.
        `Cancelled`: `cancel` was used.
    """
    keep_memory()
    compressor = compressor_for(kind, level)
    reserved = len(compressor.store(manifest_member(bytes(contents.length))))
    try:
        with atomic_file(path, contents.plan.readers) as file:
            file.seek(reserved)
            files: dict[int, PackedFile] = {}
            dropped: list[int] = []
            size = reserved
            for block in TarBuilder(contents.plan, compressor.compress, cancel).blocks():
                size += file.write(block.data)
                files.update(block.files)
                dropped += block.dropped
                on_progress(block.content_bytes)
            text = contents.render(files, dropped, size)
            file.seek(0)
            file.write(compressor.store(manifest_member(text)))
    except OSError as e:
        raise local_failure(e) from e
    return os.path.getsize(path)
