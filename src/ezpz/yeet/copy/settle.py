"""Settle: make what another tool has copied the same as what `direct` makes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ezpz.yeet.agent import tree
from ezpz.yeet.agent.landing import writable
from ezpz.yeet.copy.base import local_failure
from ezpz.yeet.copy.fill import Fill
from ezpz.yeet.relocate.folder import relocate_folder

if TYPE_CHECKING:
    from ezpz.yeet.copy.base import Job


def settle(job: Job) -> None:
    """Finish a copy of the scan's own entries: what is left out goes, what stands elsewhere comes, all is relocated.

    Raises EzpzError, or Cancelled.
    """
    folders = []
    try:
        for left in job.scan.left_out:
            _remove(job, left.path)
        for batch in job.scan.batches():
            for entry in batch:
                if entry.is_foreign:
                    _remove(job, entry.path)  # the link that leads to it
                elif entry.is_regular:
                    _set_mode(os.path.join(job.staging, entry.path), entry.permissions)
                if entry.is_directory:
                    folders.append(entry)
        relocate_folder(job.staging, job.ledger, job.cancel)
        for entry in folders:
            if not entry.is_foreign:
                os.chmod(os.path.join(job.staging, entry.path), entry.permissions | 0o700)
        Fill(job, (entry for batch in job.scan.batches() for entry in batch if entry.is_foreign)).run()
        job.finish_folders(folders)
    except OSError as e:
        raise local_failure(e) from e


def _remove(job: Job, path: bytes) -> None:
    full = os.path.join(job.staging, path)
    if os.path.lexists(full):
        with writable(os.path.dirname(full)):
            tree.remove(full)


def _set_mode(path: bytes, permissions: int) -> None:
    """Drop the bits that are not carried."""
    mode = os.lstat(path).st_mode
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) != permissions:
        os.chmod(path, permissions)
