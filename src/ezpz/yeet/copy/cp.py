"""cp: one `cp -a` from the source to staging."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ezpz import process
from ezpz.yeet.copy.base import demand
from ezpz.yeet.copy.settle import settle

if TYPE_CHECKING:
    from ezpz.yeet.copy.base import Job


class Cp:
    """What everybody has; what the scan left out is removed again afterwards."""

    name: ClassVar[str] = "cp"
    reads_archives: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ("cp",)

    def fill(self, job: Job) -> None:
        argv: list[process.Argument] = [
            "cp",
            "--recursive",
            "--no-dereference",
            "--preserve=mode,timestamps,links",
            "--",
            job.root + b"/.",
            job.staging + b"/",
        ]
        demand(process.run(argv, stop=job.stop), "cp")
        job.moved(job.scan.size)
        settle(job)
