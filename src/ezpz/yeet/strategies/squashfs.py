"""Strategy `squashfs`: unsquashfs unpacks a squashfs image whose list of entries was checked."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, ClassVar

from ezpz.agent.common import layout, tree_version
from ezpz.agent.common.text import format_bytes, printable_path
from ezpz.agent.destination.remove_tree import remove_tree
from ezpz.agent.destination.swap import writable
from ezpz.errors import ArchiveCorrupt, ArchiveUnsafe, NoSpace, SourceEmpty
from ezpz.runtime import process
from ezpz.runtime.streamed_process import StreamedProcess
from ezpz.runtime.text import pluralize
from ezpz.yeet.archive.decompress import split_lines
from ezpz.yeet.archive.squashfs import MIN_READER_VERSION, READER, require_version
from ezpz.yeet.archive.zstd import Damaged
from ezpz.yeet.source.archive_formats import SQUASHFS
from ezpz.yeet.source.errors import check_exit, local_failure
from ezpz.yeet.source.io import open_source

if TYPE_CHECKING:
    from ezpz.yeet.strategies.base import CopyJob

LISTED = re.compile(rb"([-bcdlps])[-rwxsStT]{9} \d+/\d+ +([\d, ]+) \d{4}-")
MAX_LINE = 1 << 20  # bytes of a line of the list
SPECIAL = b"bcps"
SET_ID = stat.S_ISUID | stat.S_ISGID
DISK_ERRORS = ("No space left on device", "Disk quota exceeded", "Read-only file system")


class Squashfs:
    """Unpacks a squashfs image with unsquashfs(1)."""

    name: ClassVar[str] = "squashfs"
    reads_archives: ClassVar[bool] = True
    feeds: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = (READER,)

    def fill(self, job: CopyJob) -> None:
        """Unpack the image to `job.staging`. Raise EzpzError or `Cancelled`."""
        require_version(READER, MIN_READER_VERSION, job.cancel)
        os.close(open_source(job.root, identity=job.scan.archive)[0])
        job.cancel.raise_if_cancelled()
        self._check_list(job)
        argv: list[str | bytes] = [READER, "-force", "-no-progress", "-no-xattrs", "-dest", job.staging, job.root]
        done = process.run(argv, cancel=job.cancel)
        if done.returncode and any(sign in done.err for sign in DISK_ERRORS):
            check_exit(done, READER)
        if done.returncode:
            raise _corrupt(job, done)
        try:
            size = self._normalize(job)
        except OSError as e:
            raise local_failure(e) from e
        job.moved(size)

    def _check_list(self, job: CopyJob) -> None:
        """Check the list of the entries before anything is unpacked. Raise EzpzError."""
        declared = entries = 0
        with StreamedProcess([READER, "-lln", job.root], cancel=job.cancel) as listing:
            try:
                for found in filter(None, map(LISTED.match, split_lines(listing, MAX_LINE))):
                    kind, size = found.groups()
                    if kind in SPECIAL:
                        raise ArchiveUnsafe(
                            f"the archive '{printable_path(job.root)}' holds a device, FIFO or socket",
                            hint=f"look at it: {READER} -lln FILE",
                        )
                    entries += 1
                    declared += int(size) if kind == b"-" else 0
            except Damaged as e:
                raise ArchiveUnsafe(
                    f"the archive '{printable_path(job.root)}' has a path of over {MAX_LINE:,} bytes"
                ) from e
        if listing.done is None or listing.done.returncode:
            raise _corrupt(job, listing.done)
        _refuse_full(job, declared, entries)

    @staticmethod
    def _normalize(job: CopyJob) -> int:
        """Remove what is never copied, own every entry, and return the bytes of all files. Raise OSError."""
        top = os.stat(job.staging)
        with writable(job.staging):
            for name in layout.OWN_FILES:
                remove_tree(os.path.join(job.staging, name))
        os.utime(job.staging, ns=(top.st_mtime_ns, top.st_mtime_ns))
        size = entries = 0
        counted: set[int] = set()  # inodes with hard links
        for path, status in tree_version.walk(job.staging):
            entries += 1
            full = os.path.join(job.staging, path)
            if status.st_uid != os.geteuid():
                os.chown(full, os.geteuid(), os.getegid(), follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                size += 0 if status.st_ino in counted else status.st_size
                if status.st_nlink > 1:
                    counted.add(status.st_ino)
                if status.st_mode & SET_ID:
                    job.recorder.notices.add("setuid", path)
                    os.chmod(full, status.st_mode & 0o777)
        if not entries:
            raise SourceEmpty(f"the archive '{printable_path(job.root)}' is empty")
        return size


def _refuse_full(job: CopyJob, size: int, entries: int) -> None:
    """Raise NoSpace if the free space is too small for these bytes and entries."""
    room = os.statvfs(job.staging)
    free = room.f_bavail * room.f_frsize
    if size > free:
        what = f"holds {format_bytes(size)}, and {format_bytes(free)} are free here"
    elif room.f_files and entries > room.f_favail:
        what = f"holds {pluralize(entries, 'entry')}, and {pluralize(room.f_favail, 'inode')} are free here"
    else:
        return
    raise NoSpace(
        f"the archive '{printable_path(job.root)}' {what}", hint="free some space, or choose another place with --dst"
    )


def _corrupt(job: CopyJob, done: process.Completed | None) -> ArchiveCorrupt:
    """Return the error for an image that could not be read. `done` is None if the list of entries is incomplete."""
    if done is None:
        why = "the list of its entries is incomplete"
    else:
        why = done.err.strip().rpartition("\n")[2] or f"{READER} ended with {done.returncode}"
    hint = f"copy or make the archive again; `{SQUASHFS.check_command} FILE` tells the same"
    return ArchiveCorrupt(f"the archive '{printable_path(job.root)}' is damaged or cut short: {why}", hint=hint)
