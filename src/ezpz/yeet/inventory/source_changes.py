"""Since: whether a source has changed since a version was made of it, by the times of its files and folders."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.layout import OWN_FILES
from ezpz.yeet.model.entry import BYTECODE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

QUARTER = 900  # seconds; the offsets of time zones are multiples of it
WITHIN = 2.0  # seconds in which a source is looked at unless all of it has to be
CAUSED = 5.0  # seconds after a folder for bytecode was made in which its first file is


class SourceChange(Enum):
    """What has become of a source. UNKNOWN: it is not to be seen from here, or not within the time that there was."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SourceState:
    """change: what has become of a source; path: in it, the first that has changed, b"" for none or itself."""

    change: SourceChange
    path: bytes = b""


def run_start_time(receipt: Mapping[str, Any]) -> float | None:
    """When the run of a receipt began, in seconds since 1970; None when its name does not tell.

    The name has the local time of a host that may be in another time zone, so only the minutes in it are believed.
    """
    try:
        told = time.mktime(time.strptime(str(receipt.get("run", ""))[:15], "%Y%m%d-%H%M%S"))
    except (ValueError, OverflowError):
        return None
    created = float(receipt.get("created", 0))
    return created - (created - told) % QUARTER


def check_source(
    receipt: Mapping[str, Any], destination: str, going_on: Callable[[], None], *, within: float | None = WITHIN
) -> SourceState:
    """Look at the source of a receipt. What changed in the second in which the run began is not seen.

    within: seconds, None for as long as it takes; going_on: called for each entry, may raise
    """
    source, start = str(receipt.get("source", "")), run_start_time(receipt)
    if not os.path.isabs(source) or "\0" in source or start is None:
        return SourceState(SourceChange.UNKNOWN)
    if os.path.realpath(source) == os.path.realpath(destination):
        return SourceState(SourceChange.UNKNOWN)
    root = os.fsencode(source)
    deadline = None if within is None else time.monotonic() + within
    try:
        status = os.lstat(root)
        for path, time_of in _times(root, status):
            going_on()
            if start + 1 <= time_of <= time.time() + 1:
                return SourceState(SourceChange.CHANGED, path)
            if deadline is not None and time.monotonic() > deadline:
                return SourceState(SourceChange.UNKNOWN)
    except (FileNotFoundError, NotADirectoryError):
        return SourceState(SourceChange.CHANGED if os.path.lexists(root) else SourceChange.GONE)
    except (OSError, ValueError):
        return SourceState(SourceChange.UNKNOWN)
    return SourceState(SourceChange.UNCHANGED)


def _times(root: bytes, status: os.stat_result) -> Iterator[tuple[bytes, float]]:
    """The entries of a source with the time of their last change, its folders after what they hold.

    Bytecode, which comes from running what is there, does not count; nor does a folder in which that came up last.
    """
    if not stat.S_ISDIR(status.st_mode):
        yield b"", status.st_mtime
        return
    pending = [(b"", status)]
    while pending:
        folder, status = pending.pop()
        caches: list[bytes] = []
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                now = entry.stat(follow_symlinks=False)
                if entry.name == BYTECODE_DIRECTORY:
                    caches.append(entry.path)
                elif stat.S_ISDIR(now.st_mode):
                    pending.append((path, now))
                elif path not in OWN_FILES:
                    yield path, now.st_mtime
        if not any(_made_at(cache, status.st_mtime) for cache in caches):
            yield folder, status.st_mtime


def _made_at(cache: bytes, then: float) -> bool:
    """Whether a folder for bytecode came up at that time."""
    with os.scandir(cache) as entries:
        return any(-1 <= entry.stat(follow_symlinks=False).st_mtime - then <= CAUSED for entry in entries)
