"""cp: one `cp -a` from the source to staging."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ezpz.runtime import process
from ezpz.yeet.copy.base import demand
from ezpz.yeet.copy.settle import settle

if TYPE_CHECKING:
    from ezpz.yeet.copy.base import Job


class Cp:
    """What everybody has; what the scan left out is removed again afterwards."""

    name: ClassVar[str] = "cp"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = False
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
        done = process.run(argv, cancel=job.cancel)
        if any(left.why == "unreadable" for left in job.scan.left_out):
            done = _without_refusals(done)
        demand(done, "cp")
        job.moved(job.scan.size)
        settle(job)


def _without_refusals(done: process.Completed) -> process.Completed:
    """What cp said besides what could not be read, which is to be left out; what else is missing is counted later."""
    said = [line for line in done.stderr.splitlines(keepends=True) if b"Permission denied" not in line]
    return replace(done, returncode=done.returncode if said else 0, stderr=b"".join(said))
