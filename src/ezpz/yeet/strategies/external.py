"""Strategies that copy with another program: rsync, cp, tar."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ezpz.agent.destination.remove_tree import remove_tree
from ezpz.agent.destination.swap import writable
from ezpz.runtime import process
from ezpz.yeet.relocate.in_place import relocate_tree
from ezpz.yeet.source.errors import check_exit, local_failure
from ezpz.yeet.source.scan import entries_of
from ezpz.yeet.strategies.base import name_list
from ezpz.yeet.strategies.tree_copier import TreeCopier
from ezpz.yeet.transfer.copy_sinks import StagingSink, finish_directories

if TYPE_CHECKING:
    from ezpz.yeet.strategies.base import CopyJob


def normalize_copy(job: CopyJob) -> None:
    """Make `job.staging`, a copy of the scan's own entries, what the strategy `direct` makes.

    Remove what the scan left out, add the entries from elsewhere, relocate, and set modes and times.
    Raise EzpzError or `Cancelled`.
    """
    directories: dict[bytes, tuple[int, int]] = {}
    try:
        for left in job.scan.left_out:
            _remove(job, left.path)
        for entry in entries_of(job.scan):
            if entry.is_foreign:
                _remove(job, entry.path)  # the link that is replaced by its target
            elif entry.is_regular:
                _set_mode(os.path.join(job.staging, entry.path), entry.permissions)
            if entry.is_directory:
                directories[entry.path] = (entry.mode, entry.mtime_ns)
        relocate_tree(job.staging, job.recorder, job.cancel)
        for entry in entries_of(job.scan):
            if entry.is_directory and not entry.is_foreign:
                os.chmod(os.path.join(job.staging, entry.path), entry.permissions | 0o700)
        staging = StagingSink(job.staging, job.previous)
        TreeCopier(replace(job, sinks=(staging,)), (entry for entry in entries_of(job.scan) if entry.is_foreign)).run()
        top = os.stat(job.root)
        finish_directories(job.staging, {**directories, b"": (top.st_mode, top.st_mtime_ns)})
    except OSError as e:
        raise local_failure(e) from e


def _remove(job: CopyJob, path: bytes) -> None:
    full = os.path.join(job.staging, path)
    if os.path.lexists(full):
        with writable(os.path.dirname(full)):
            remove_tree(full)


def _set_mode(path: bytes, permissions: int) -> None:
    """Remove the mode bits that are not copied."""
    mode = os.lstat(path).st_mode
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) != permissions:
        os.chmod(path, permissions)


class Compress:
    """Strategy `compress`: one reader and one stream, for a filesystem on which many readers are slow."""

    name: ClassVar[str] = "compress"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ("tar", "gzip")

    def fill(self, job: CopyJob) -> None:
        """Copy through `tar | tar`, then normalize. Raise EzpzError or `Cancelled`."""
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
        check_exit(unpacked, "tar")  # first, since tar that packs fails as well if nothing reads its output
        check_exit(packed, "tar")
        job.moved(job.scan.size)
        normalize_copy(job)


class Cp:
    """Strategy `cp`: available everywhere. What the scan left out is removed afterwards."""

    name: ClassVar[str] = "cp"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ("cp",)

    def fill(self, job: CopyJob) -> None:
        """Copy with cp(1), then normalize. Raise EzpzError or `Cancelled`."""
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
    """Return the result of cp without its complaints about unreadable files, which are left out.

    Other missing files are detected later.
    """
    said = [line for line in done.stderr.splitlines(keepends=True) if b"Permission denied" not in line]
    return replace(done, returncode=done.returncode if said else 0, stderr=b"".join(said))


class Rsync:
    """Strategy `rsync`: for sources that only rsync reads fast, and for comparison."""

    name: ClassVar[str] = "rsync"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ("rsync",)

    def fill(self, job: CopyJob) -> None:
        """Copy with rsync(1), then normalize. Raise EzpzError or `Cancelled`."""
        argv: list[process.Argument] = ["rsync", "-lptHS", "--modify-window=-1", "--files-from=-", "--from0"]
        argv += ["--", job.root + b"/", job.staging + b"/"]
        check_exit(process.run(argv, feed=name_list(job.scan), cancel=job.cancel), "rsync")
        job.moved(job.scan.size)
        normalize_copy(job)
