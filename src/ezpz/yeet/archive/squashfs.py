"""Squashfs: an archive that the kernel can mount, made by mksquashfs of the very stream that a tar would be."""

from __future__ import annotations

import os
import re
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ezpz import process
from ezpz.errors import CopyFailed, ToolMissing
from ezpz.hearing import Hearing
from ezpz.yeet.agent import tree
from ezpz.yeet.archive.contents import manifest_member
from ezpz.yeet.archive.pack import Pack
from ezpz.yeet.archive.part_file import part_folder, settle
from ezpz.yeet.copy.base import demand, local_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ezpz.yeet.archive.contents import Contents, Taken
    from ezpz.yeet.archive.formats import Format
    from ezpz.yeet.entry import Entry

MAKER, READER = "mksquashfs", "unsquashfs"
OLDEST = (4, 5)  # that reads a tar from its stdin
SAFE = (4, 5, 1)  # that cannot be led out of the folder it unpacks to (CVE-2021-40153, CVE-2021-41072)
VERSION = re.compile(r"version (\d+)\.(\d+)(?:\.(\d+))?")
WITHIN, READ_WITHIN = 10.0, 120.0  # seconds for a tool to tell its version, and for it to find the manifest


def write_squashfs(
    contents: Contents, path: str, _: Format, level: int, moved: Callable[[int], None], stop: threading.Event
) -> int:
    """Write the archive, and return its size in bytes; see `write.write`. Times are kept to the second, as it can.

    Raises EzpzError, Stopped.
    """
    refuse_old(MAKER, OLDEST, stop)
    folder = os.path.dirname(path)
    try:
        with part_folder(folder) as place:
            part = os.path.join(place, "archive")
            with _maker(part, level, contents.parcel.entries) as stream:
                taken: dict[int, Taken] = {}
                dropped: list[int] = []
                for block in Pack(contents.parcel, bytes, stop, holes=False).blocks(ended=False):
                    _send(stream, block.data)
                    taken.update(block.taken)
                    dropped += block.dropped
                    moved(block.moved)
                _send(stream, manifest_member(contents.text(taken, dropped, 0)) + bytes(1024))
            settle(part, path, contents.parcel.readers)
    except OSError as e:
        raise local_failure(e) from e
    return os.path.getsize(path)


@contextmanager
def _maker(part: str, level: int, entries: Sequence[Entry]) -> Iterator[process.Running]:
    """A mksquashfs that is fed a tar; at the end it must have succeeded.

    The top of the image has the time of what is newest in it: mksquashfs 4.5 has no other way to give it one.
    """
    options = ["-noappend", "-all-root", "-no-progress", "-quiet", "-no-xattrs"]
    options += ["-root-mode", f"{entries[0].permissions:o}"]
    newest = max(0, *(entry.mtime_ns // 10**9 for entry in entries))  # later times would be made this one
    argv = [MAKER, "-", part, "-tar", *options, "-comp", "zstd", "-Xcompression-level", str(level)]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(newest)}
    running = process.start(argv, stdin=process.PIPE, stdout=process.DEVNULL, stderr=process.PIPE, env=environ)
    assert running.stdin is not None
    errors = running.stderr
    assert errors is not None
    said: list[bytes] = []
    listening = threading.Thread(target=lambda: said.append(errors.read()), daemon=True)
    listening.start()
    try:
        yield running
        running.stdin.close()
        running.wait()
        listening.join()
        demand(process.Completed(tuple(argv), running.returncode, b"", b"".join(said)), MAKER)
    except BrokenPipeError:
        running.wait()
        listening.join()
        demand(process.Completed(tuple(argv), running.returncode or 1, b"", b"".join(said)), MAKER)
    finally:
        process.end_tree(running)
        with suppress(BrokenPipeError):
            running.stdin.close()
        listening.join()
        errors.close()


def _send(running: process.Running, data: bytes) -> None:
    assert running.stdin is not None
    running.stdin.write(data)


@contextmanager
def manifest_in(path: str) -> Iterator[Iterator[bytes]]:
    """Within it, the text of the manifest in a squashfs, piece by piece. Raises EzpzError."""
    refuse_old(READER, SAFE)
    with Hearing([READER, "-cat", path, os.fsdecode(tree.MANIFEST)], timeout=READ_WITHIN) as hearing:
        yield _to_its_end(hearing)


def _to_its_end(hearing: Hearing) -> Iterator[bytes]:
    yield from hearing
    assert hearing.done is not None
    if hearing.done.returncode:
        raise CopyFailed(f"{READER} finds no manifest: {hearing.done.err}")


def refuse_old(tool: str, oldest: tuple[int, ...], stop: threading.Event | None = None) -> None:
    """Raise ToolMissing when a tool is not here, or is older than it may be; TimedOut when it hangs, Stopped."""
    process.find(tool)
    found = VERSION.search(process.run([tool, "-version"], timeout=WITHIN, stop=stop).out)
    version = tuple(int(part or 0) for part in found.groups()) if found else (0,)
    if version < oldest:
        needed = ".".join(map(str, oldest))
        raise ToolMissing(f"'{tool}' here is older than {needed}", hint="use a .tar.zst, or install squashfs-tools")
