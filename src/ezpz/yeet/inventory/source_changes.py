"""Detect whether a source changed since a copy was made, by the times of its files and directories."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ezpz.agent.common.layout import OWN_FILES
from ezpz.yeet.model.entry import BYTECODE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ezpz.agent.common.messages.receipt import Receipt

TIME_ZONE_STEP = 900  # seconds; the offsets of time zones are multiples of it
CHECK_TIMEOUT = 2.0  # seconds to check a source, unless all of it has to be checked
CACHE_DELAY = 5.0  # seconds from the creation of a bytecode directory to that of its first file


class SourceChange(Enum):
    """Whether a source changed. UNKNOWN: it cannot be seen from this host, or not within the timeout."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SourceState:
    """State of a source.

    Attributes:
        change: whether it changed
        path: the first path in it that changed, b"" if there is none or if it is the source itself
    """

    change: SourceChange
    path: bytes = b""


UNKNOWN_SOURCE = SourceState(SourceChange.UNKNOWN)


def run_start_time(receipt: Receipt) -> float | None:
    """Return when the run of a receipt started, in seconds since 1970, None if its identifier is not a time.

    The identifier contains the local time of a host that may be in another time zone. So only its position within a
    quarter of an hour counts.
    """
    try:
        named = time.mktime(time.strptime(receipt.run[:15], "%Y%m%d-%H%M%S"))
    except (ValueError, OverflowError):
        return None
    return receipt.created - (receipt.created - named) % TIME_ZONE_STEP


def check_source(
    receipt: Receipt | None,
    destination: str,
    check_cancel: Callable[[], None],
    *,
    timeout: float | None = CHECK_TIMEOUT,
) -> SourceState:
    """Check the source of a receipt. Changes in the second in which the run started are not detected.

    Args:
        receipt: the receipt of the copy, None without a copy
        destination: the path of the copy
        check_cancel: called for each entry; what it raises ends the check
        timeout: seconds, None for no limit
    """
    if receipt is None:
        return UNKNOWN_SOURCE
    source, start = receipt.source, run_start_time(receipt)
    if not os.path.isabs(source) or "\0" in source or start is None:
        return UNKNOWN_SOURCE
    if os.path.realpath(source) == os.path.realpath(destination):
        return UNKNOWN_SOURCE
    root = os.fsencode(source)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        for path, changed in _change_times(root, os.lstat(root)):
            check_cancel()
            if start + 1 <= changed <= time.time() + 1:
                return SourceState(SourceChange.CHANGED, path)
            if deadline is not None and time.monotonic() > deadline:
                return UNKNOWN_SOURCE
    except (FileNotFoundError, NotADirectoryError):
        return SourceState(SourceChange.CHANGED if os.path.lexists(root) else SourceChange.GONE)
    except (OSError, ValueError):
        return UNKNOWN_SOURCE
    return SourceState(SourceChange.UNCHANGED)


def _change_times(root: bytes, status: os.stat_result) -> Iterator[tuple[bytes, float]]:
    """Yield the entries of a source with the times of their last change, each directory after its content.

    Bytecode is skipped, since running the source creates it. So is a directory whose last change was the creation of
    a bytecode directory in it.
    """
    if not stat.S_ISDIR(status.st_mode):
        yield b"", status.st_mtime
        return
    pending = [(b"", status)]
    while pending:
        directory, status = pending.pop()
        caches: list[bytes] = []
        with os.scandir(os.path.join(root, directory)) as entries:
            for entry in entries:
                path = os.path.join(directory, entry.name)
                now = entry.stat(follow_symlinks=False)
                if entry.name == BYTECODE_DIRECTORY:
                    caches.append(entry.path)
                elif stat.S_ISDIR(now.st_mode):
                    pending.append((path, now))
                elif path not in OWN_FILES:
                    yield path, now.st_mtime
        if not any(_was_created_at(cache, status.st_mtime) for cache in caches):
            yield directory, status.st_mtime


def _was_created_at(cache: bytes, then: float) -> bool:
    """Return whether a bytecode directory was created at a time, by the times of its files."""
    with os.scandir(cache) as entries:
        return any(-1 <= entry.stat(follow_symlinks=False).st_mtime - then <= CACHE_DELAY for entry in entries)
