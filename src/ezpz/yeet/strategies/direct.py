"""direct: the tree is read by many threads and written to staging, relocated on the way, in one pass over the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ezpz.yeet.source.errors import local_failure
from ezpz.yeet.strategies.tree_copier import TreeCopier

if TYPE_CHECKING:
    from ezpz.yeet.strategies.base import CopyJob


class Direct:
    """Reads with as many threads as the source's filesystem deserves; see `Scan.threads`."""

    name: ClassVar[str] = "direct"
    reads_archives: ClassVar[bool] = False
    feeds: ClassVar[bool] = True
    tools: ClassVar[tuple[str, ...]] = ()

    def fill(self, job: CopyJob) -> None:
        filling = TreeCopier(job, (entry for batch in job.scan.batches() for entry in batch))
        filling.run()
        try:
            job.finish_folders(filling.directories)
        except OSError as e:
            raise local_failure(e) from e
