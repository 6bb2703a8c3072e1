"""Squashfs images: the programs that handle them, and reading the manifest of one."""

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
MIN_MAKER_VERSION = (4, 5)  # the first that reads a tar archive from its stdin
MIN_READER_VERSION = (4, 5, 1)  # the first that stays inside the target directory (CVE-2021-40153, CVE-2021-41072)
VERSION = re.compile(r"version (\d+)\.(\d+)(?:\.(\d+))?")
VERSION_TIMEOUT = 10.0  # seconds
MANIFEST_TIMEOUT = 120.0  # seconds


@contextmanager
def open_manifest(path: str) -> Iterator[Iterator[bytes]]:
    """Open the text of the manifest in an image, in pieces. Raises EzpzError."""
    require_version(READER, MIN_READER_VERSION)
    argv = [READER, "-cat", path, os.fsdecode(layout.MANIFEST)]
    with StreamedProcess(argv, timeout=MANIFEST_TIMEOUT) as reader:
        yield _read_all(reader)


def require_version(tool: str, oldest: tuple[int, ...], cancel: CancelToken | None = None) -> None:
    """Check that a program is installed and recent enough.

    Args:
        tool: the program
        oldest: the oldest version that will do
        cancel: ends the check early

    Raises:
        ToolMissing: it is not installed, or too old.
        TimedOut: it does not answer.
        `Cancelled`: `cancel` was used.
    """
    process.find(tool)
    found = VERSION.search(process.run([tool, "-version"], timeout=VERSION_TIMEOUT, cancel=cancel).out)
    version = tuple(int(part or 0) for part in found.groups()) if found else (0,)
    if version < oldest:
        needed = ".".join(map(str, oldest))
        raise ToolMissing(f"'{tool}' here is older than {needed}", hint="use a .tar.zst, or install squashfs-tools")


def _read_all(reader: StreamedProcess) -> Iterator[bytes]:
    yield from reader
    assert reader.done is not None
    if reader.done.returncode:
        raise CopyFailed(f"{READER} finds no manifest: {reader.done.err}")
