"""Squashfs: an archive that the kernel can mount, made by mksquashfs of the very stream that a tar would be."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ezpz.agent.common import layout
from ezpz.errors import CopyFailed, ToolMissing
from ezpz.runtime import process
from ezpz.runtime.streamed_process import StreamedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.agent.common.cancel import CancelToken

MAKER, READER = "mksquashfs", "unsquashfs"
OLDEST = (4, 5)  # that reads a tar from its stdin
SAFE = (4, 5, 1)  # that cannot be led out of the folder it unpacks to (CVE-2021-40153, CVE-2021-41072)
VERSION = re.compile(r"version (\d+)\.(\d+)(?:\.(\d+))?")
WITHIN, READ_WITHIN = 10.0, 120.0  # seconds for a tool to tell its version, and for it to find the manifest


@contextmanager
def manifest_in(path: str) -> Iterator[Iterator[bytes]]:
    """Within it, the text of the manifest in a squashfs, piece by piece. Raises EzpzError."""
    refuse_old(READER, SAFE)
    with StreamedProcess([READER, "-cat", path, os.fsdecode(layout.MANIFEST)], timeout=READ_WITHIN) as hearing:
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
