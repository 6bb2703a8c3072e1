"""Strategy `direct`: many threads read the tree and pass it on, relocated, in one pass over the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ezpz.yeet.source.errors import local_failure
from ezpz.yeet.strategies.tree_copier import TreeCopier

if TYPE_CHECKING:
    from ezpz.yeet.strategies.base import CopyJob


class Direct:
    """Reads with a number of threads that depends on the filesystem of the source, see `Scan.threads`."""

    name: ClassVar[str] = "direct"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = True
    tools: ClassVar[tuple[str, ...]] = ()

    def fill(self, job: CopyJob) -> None:
        """Pass every entry of the scan to the sinks of the job. Raise EzpzError or `Cancelled`."""
        copier = TreeCopier(job, (entry for batch in job.scan.batches() for entry in batch))
        copier.run()
        try:
            copier.finish_with_top()
        except OSError as e:
            raise local_failure(e) from e
