"""Squashfs: an archive that the kernel can mount, made by mksquashfs of the very stream that a tar would be."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ezpz.errors import CopyFailed, ToolMissing
from ezpz.runtime import process
from ezpz.runtime.streamed_process import FedProcess, StreamedProcess
from ezpz.yeet.agent import tree
from ezpz.yeet.archive.contents import manifest_member
from ezpz.yeet.archive.pack import Pack
from ezpz.yeet.archive.part_file import part_folder, settle
from ezpz.yeet.copy.base import demand, local_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ezpz.yeet.agent.cancel import CancelToken
    from ezpz.yeet.archive.contents import Contents, Taken
    from ezpz.yeet.archive.formats import Format
    from ezpz.yeet.entry import Entry

MAKER, READER = "mksquashfs", "unsquashfs"
OLDEST = (4, 5)  # that reads a tar from its stdin
SAFE = (4, 5, 1)  # that cannot be led out of the folder it unpacks to (CVE-2021-40153, CVE-2021-41072)
VERSION = re.compile(r"version (\d+)\.(\d+)(?:\.(\d+))?")
WITHIN, READ_WITHIN = 10.0, 120.0  # seconds for a tool to tell its version, and for it to find the manifest


def write_squashfs(
    contents: Contents, path: str, _: Format, level: int, moved: Callable[[int], None], cancel: CancelToken
) -> int:
    """Write the archive, and return its size in bytes; see `write.write`. Times are kept to the second, as it can.

    Raises EzpzError, Cancelled.
    """
    refuse_old(MAKER, OLDEST, cancel)
    folder = os.path.dirname(path)
    try:
        with part_folder(folder) as place:
            part = os.path.join(place, "archive")
            with _maker(part, level, contents.parcel.entries) as stream:
                taken: dict[int, Taken] = {}
                dropped: list[int] = []
                for block in Pack(contents.parcel, bytes, cancel, holes=False).blocks(ended=False):
                    stream.write(block.data)
                    taken.update(block.taken)
                    dropped += block.dropped
                    moved(block.moved)
                stream.write(manifest_member(contents.text(taken, dropped, 0)) + bytes(1024))
            settle(part, path, contents.parcel.readers)
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
        demand(done, MAKER)


@contextmanager
def manifest_in(path: str) -> Iterator[Iterator[bytes]]:
    """Within it, the text of the manifest in a squashfs, piece by piece. Raises EzpzError."""
    refuse_old(READER, SAFE)
    with StreamedProcess([READER, "-cat", path, os.fsdecode(tree.MANIFEST)], timeout=READ_WITHIN) as hearing:
        yield _to_its_end(hearing)


def _to_its_end(hearing: StreamedProcess) -> Iterator[bytes]:
    yield from hearing
    assert hearing.done is not None
    if hearing.done.returncode:
        raise CopyFailed(f"{READER} finds no manifest: {hearing.done.err}")


def refuse_old(tool: str, oldest: tuple[int, ...], cancel: CancelToken | None = None) -> None:
    """Raise ToolMissing when a tool is not here, or is older than it may be; TimedOut when it hangs, Cancelled."""
    process.find(tool)
    found = VERSION.search(process.run([tool, "-version"], timeout=WITHIN, cancel=cancel).out)
    version = tuple(int(part or 0) for part in found.groups()) if found else (0,)
    if version < oldest:
        needed = ".".join(map(str, oldest))
        raise ToolMissing(f"'{tool}' here is older than {needed}", hint="use a .tar.zst, or install squashfs-tools")
