"""rsync: one `rsync -a` from the source to staging, of exactly what the scan found."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ezpz.runtime import process
from ezpz.yeet.copy.base import demand, name_list
from ezpz.yeet.copy.settle import settle

if TYPE_CHECKING:
    from ezpz.yeet.copy.base import Job


class Rsync:
    """For sources that only rsync may read fast, and to compare with."""

    name: ClassVar[str] = "rsync"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ("rsync",)

    def fill(self, job: Job) -> None:
        argv: list[process.Argument] = ["rsync", "-lptHS", "--modify-window=-1", "--files-from=-", "--from0"]
        argv += ["--", job.root + b"/", job.staging + b"/"]
        demand(process.run(argv, feed=name_list(job.scan), cancel=job.cancel), "rsync")
        job.moved(job.scan.size)
        settle(job)
