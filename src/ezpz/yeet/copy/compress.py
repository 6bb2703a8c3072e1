"""compress: one sequential tar and gzip stream off the source, unpacked on the local disk as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ezpz.runtime import process
from ezpz.yeet.copy.base import demand, name_list
from ezpz.yeet.copy.settle import settle

if TYPE_CHECKING:
    from ezpz.yeet.copy.base import Job


class Compress:
    """One reader and one stream: kind to a filesystem that dislikes many readers; nothing is written there."""

    name: ClassVar[str] = "compress"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ("tar", "gzip")

    def fill(self, job: Job) -> None:
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
        demand(unpacked, "tar")  # first, since the other ends badly as well when nobody reads from it
        demand(packed, "tar")
        job.moved(job.scan.size)
        settle(job)
