"""Settle: make what another tool has copied the same as what `direct` makes."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ezpz.agent.common import tree
from ezpz.agent.destination.swap import writable
from ezpz.runtime import process
from ezpz.yeet.relocate.in_place import relocate_folder
from ezpz.yeet.source.io import check_exit, local_failure
from ezpz.yeet.strategies.base import name_list
from ezpz.yeet.strategies.tree_copier import TreeCopier

if TYPE_CHECKING:
    from ezpz.yeet.strategies.base import CopyJob


def normalize_copy(job: CopyJob) -> None:
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
        TreeCopier(job, (entry for batch in job.scan.batches() for entry in batch if entry.is_foreign)).run()
        job.finish_folders(folders)
    except OSError as e:
        raise local_failure(e) from e


def _remove(job: CopyJob, path: bytes) -> None:
    full = os.path.join(job.staging, path)
    if os.path.lexists(full):
        with writable(os.path.dirname(full)):
            tree.remove(full)


def _set_mode(path: bytes, permissions: int) -> None:
    """Drop the bits that are not carried."""
    mode = os.lstat(path).st_mode
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) != permissions:
        os.chmod(path, permissions)


class Compress:
    """One reader and one stream: kind to a filesystem that dislikes many readers; nothing is written there."""

    name: ClassVar[str] = "compress"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ("tar", "gzip")

    def fill(self, job: CopyJob) -> None:
        pack: list[process.Argument] = [
            "tar",
            "--create",
            "--gzip",
            "--format=posix",
            "--sparse",
            "--no-recursion",
            "--null",
            "--verbatim-files-from",
        ]
        pack += ["--directory", job.root, "--files-from=-", "--file=-"]
        unpack: list[process.Argument] = [
            "tar",
            "--extract",
            "--gzip",
            "--preserve-permissions",
            "--no-same-owner",
            "--delay-directory-restore",
        ]
        unpack += ["--directory", job.staging, "--file=-"]
        packed, unpacked = process.pipeline(pack, unpack, feed=b"./\0" + name_list(job.scan), cancel=job.cancel)
        check_exit(unpacked, "tar")  # first, since the other ends badly as well when nobody reads from it
        check_exit(packed, "tar")
        job.moved(job.scan.size)
        normalize_copy(job)


class Cp:
    """What everybody has; what the scan left out is removed again afterwards."""

    name: ClassVar[str] = "cp"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ("cp",)

    def fill(self, job: CopyJob) -> None:
        argv: list[process.Argument] = [
            "cp",
            "--recursive",
            "--no-dereference",
            "--preserve=mode,timestamps,links",
            "--",
            job.root + b"/.",
            job.staging + b"/",
        ]
        done = process.run(argv, cancel=job.cancel)
        if any(left.why == "unreadable" for left in job.scan.left_out):
            done = _without_refusals(done)
        check_exit(done, "cp")
        job.moved(job.scan.size)
        normalize_copy(job)


def _without_refusals(done: process.Completed) -> process.Completed:
    """What cp said besides what could not be read, which is to be left out; what else is missing is counted later."""
    said = [line for line in done.stderr.splitlines(keepends=True) if b"Permission denied" not in line]
    return replace(done, returncode=done.returncode if said else 0, stderr=b"".join(said))


class Rsync:
    """For sources that only rsync may read fast, and to compare with."""

    name: ClassVar[str] = "rsync"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ("rsync",)

    def fill(self, job: CopyJob) -> None:
        argv: list[process.Argument] = ["rsync", "-lptHS", "--modify-window=-1", "--files-from=-", "--from0"]
        argv += ["--", job.root + b"/", job.staging + b"/"]
        check_exit(process.run(argv, feed=name_list(job.scan), cancel=job.cancel), "rsync")
        job.moved(job.scan.size)
        normalize_copy(job)
