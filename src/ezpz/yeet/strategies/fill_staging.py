"""Run a strategy, and check that it read the source that was counted."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ezpz.errors import EzpzError, SourceChanged, SourceUnreadable
from ezpz.yeet.source.changes import check_directories, check_files, check_same_file, lstat_or_none
from ezpz.yeet.strategies.base import STRATEGIES

if TYPE_CHECKING:
    from ezpz.yeet.strategies.base import CopyJob


def fill_staging(name: str, job: CopyJob) -> None:
    """Run a strategy. Raise SourceChanged if the source is not what was counted, else what the strategy raises.

    Args:
        name: The name of the strategy.
        job: The job for the strategy.
    """
    strategy = STRATEGIES.load(name)()
    try:
        strategy.fill(job)
    except (SourceChanged, SourceUnreadable):
        raise
    except EzpzError:
        with suppress(SourceUnreadable):
            _refuse_changed_job(job, by_others=not strategy.feeds)  # the cause of the failure
        raise
    _refuse_changed_job(job, by_others=not strategy.feeds)


def _refuse_changed_job(job: CopyJob, *, by_others: bool) -> None:
    """Raise SourceChanged if the source of a job changed.

    Args:
        job: The job that a strategy finished, or failed to finish.
        by_others: Whether another program read the files.
    """
    if job.scan.archive:
        check_same_file(job.root, lstat_or_none(job.root), job.scan.archive)
    if by_others:
        check_files(job.scan, job.cancel)
    check_directories(job.scan, job.cancel)
