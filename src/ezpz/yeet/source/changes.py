"""Guard: what is read is the very source that was counted, whichever strategy reads it, or nothing comes of it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from ezpz.errors import SourceChanged
from ezpz.runtime.threads import WorkerPool
from ezpz.yeet.source.io import changed, refuse_other, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.source.identity import Listing, Listings
    from ezpz.yeet.source.scan import Scan

QUEUED = 64  # batches that may wait for a thread
TOGETHER = 64  # directories in a batch


def refuse_changed(scanned: Scan, cancel: CancelToken) -> None:
    """Raise SourceChanged when something in a directory was added, removed or replaced since it was counted."""
    refuse_changed_listings(
        scanned.root, scanned.listings, (e for batch in scanned.batches() for e in batch), scanned.threads, cancel
    )


def refuse_changed_listings(
    root: bytes, listings: Listings, entries: Iterable[Entry], threads: int, cancel: CancelToken
) -> None:
    """Do the same; entries: what was counted below `root`, to name what is another now."""
    different: list[Listing] = []

    def look(batch: list[Listing]) -> None:
        different.extend(listing for listing in batch if not _is_unchanged(listing))

    pool = WorkerPool(threads, QUEUED, look, cancel)
    try:
        found = listings.all()
        for start in range(0, len(found), TOGETHER):
            pool.submit(found[start : start + TOGETHER])
    finally:
        pool.join()
    if different:
        raise changed(_what_changed(min(different, key=lambda listing: listing.where), root, entries))


def refuse_changed_files(scanned: Scan, cancel: CancelToken) -> None:
    """Raise SourceChanged when a file or link of a scan is not the one that was counted, wherever it stands."""

    def look(batch: list[Entry]) -> None:
        for entry in batch:
            if entry.identity:
                refuse_other(entry.path, lstat_or_none(_place(scanned.root, entry)), entry.identity)

    pool = WorkerPool(scanned.threads, QUEUED, look, cancel)
    try:
        for batch in scanned.batches():
            pool.submit(batch)
    finally:
        pool.join()


def _is_unchanged(listing: Listing) -> bool:
    try:
        return listing.is_unchanged(os.stat(listing.where))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as e:
        raise unreadable(listing.where, e) from e


def _what_changed(listing: Listing, root: bytes, entries: Iterable[Entry]) -> bytes:
    """Return the first path in a directory that is not what was counted, else the directory."""
    counted = {}
    for entry in entries:
        folder, name = os.path.split(_place(root, entry))
        if folder == listing.where.rstrip(b"/"):
            counted[name] = entry
    for name, entry in sorted(counted.items()):
        status = lstat_or_none(os.path.join(listing.where, name))
        if status is None or (entry.identity and not _is_same(status, entry)):
            return entry.path
    with suppress(OSError):
        for new in sorted(set(os.listdir(listing.where)) - set(counted)):
            status = lstat_or_none(os.path.join(listing.where, new))
            followed = status is None or stat.S_ISLNK(status.st_mode)  # a link may be counted by what it leads to
            if status is not None and not followed and listing.counts(new, status):
                return os.path.join(listing.folder, new)
    return listing.folder or listing.where


def _is_same(status: os.stat_result, entry: Entry) -> bool:
    try:
        refuse_other(entry.path, status, entry.identity)
    except SourceChanged:
        return False
    return True


def lstat_or_none(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise unreadable(path, e) from e


def _place(root: bytes, entry: Entry) -> bytes:
    return entry.origin or os.path.join(root, entry.path)
