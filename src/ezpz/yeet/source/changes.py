"""Compare a source with what was scanned: every strategy reads the tree that was counted, or the run fails."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from ezpz.runtime.threads import WorkerPool
from ezpz.yeet.source.errors import source_changed, source_unreadable
from ezpz.yeet.source.identity import identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.source.identity import Listing, Listings
    from ezpz.yeet.source.scan import Scan

MAX_QUEUED = 64  # batches that wait for a thread
BATCH_SIZE = 64  # directories


def check_same_file(path: bytes, status: os.stat_result | None, identity: int) -> None:
    """Raise SourceChanged for a file that is not the one that was scanned.

    Args:
        path: Path that the error names.
        status: Status of the file now, before or after it was read. None if it is gone.
        identity: Identity at the time of the scan, see `identity_of`. 0 for a file that was not scanned.
    """
    if status is None or not _is_same(status, identity):
        raise source_changed(path)


def check_directories(scanned: Scan, cancel: CancelToken) -> None:
    """Raise SourceChanged if an entry of a scanned directory was added, removed, or replaced."""
    entries = (entry for batch in scanned.batches() for entry in batch)
    check_listings(scanned.root, scanned.listings, entries, scanned.threads, cancel)


def check_listings(
    root: bytes, listings: Listings, entries: Iterable[Entry], threads: int, cancel: CancelToken
) -> None:
    """Raise SourceChanged if an entry of a listed directory was added, removed, or replaced.

    Args:
        root: Path of the scanned tree.
        listings: The directories as they were listed.
        entries: The scanned entries, to find the name of the changed one.
        threads: Number of threads.
        cancel: Stops the check when it is set.
    """
    different: list[Listing] = []

    def check(batch: list[Listing]) -> None:
        different.extend(listing for listing in batch if not _is_unchanged(listing))

    pool = WorkerPool(threads, MAX_QUEUED, check, cancel)
    try:
        found = listings.all()
        for start in range(0, len(found), BATCH_SIZE):
            pool.submit(found[start : start + BATCH_SIZE])
    finally:
        pool.join()
    if different:
        raise source_changed(_find_change(min(different, key=lambda listing: listing.location), root, entries))


def check_files(scanned: Scan, cancel: CancelToken) -> None:
    """Raise SourceChanged if a file or link, inside or outside of the tree, is not the one that was scanned."""

    def check(batch: list[Entry]) -> None:
        for entry in batch:
            if entry.identity:
                check_same_file(entry.path, lstat_or_none(_location(scanned.root, entry)), entry.identity)

    pool = WorkerPool(scanned.threads, MAX_QUEUED, check, cancel)
    try:
        for batch in scanned.batches():
            pool.submit(batch)
    finally:
        pool.join()


def lstat_or_none(path: bytes) -> os.stat_result | None:
    """Return the status of a path, or None if it does not exist. Raises SourceUnreadable."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise source_unreadable(path, e) from e


def _is_same(status: os.stat_result, identity: int) -> bool:
    return not identity or identity_of(status) == identity


def _is_unchanged(listing: Listing) -> bool:
    try:
        return listing.is_unchanged(os.stat(listing.location))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as e:
        raise source_unreadable(listing.location, e) from e


def _find_change(listing: Listing, root: bytes, entries: Iterable[Entry]) -> bytes:
    """Return the first path in a directory that differs from the scan, else the directory."""
    counted = {}
    for entry in entries:
        directory, name = os.path.split(_location(root, entry))
        if directory == listing.location.rstrip(b"/"):
            counted[name] = entry
    for name, entry in sorted(counted.items()):
        status = lstat_or_none(os.path.join(listing.location, name))
        if status is None or not _is_same(status, entry.identity):
            return entry.path
    with suppress(OSError):
        for new in sorted(set(os.listdir(listing.location)) - set(counted)):
            status = lstat_or_none(os.path.join(listing.location, new))
            is_link = status is None or stat.S_ISLNK(status.st_mode)  # a followed link has the location of its target
            if status is not None and not is_link and listing.is_relevant(new, status):
                return os.path.join(listing.path, new)
    return listing.path or listing.location


def _location(root: bytes, entry: Entry) -> bytes:
    """Return where an entry is on disk."""
    return entry.origin or os.path.join(root, entry.path)
