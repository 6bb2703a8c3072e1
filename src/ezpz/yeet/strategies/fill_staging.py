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
    """Let a strategy fill `job.staging`.

    Raises SourceChanged when the source is not what was counted, else what the strategy raises.
    """
    strategy = STRATEGIES.load(name)()
    try:
        strategy.fill(job)
    except (SourceChanged, SourceUnreadable):
        raise
    except EzpzError:
        with suppress(SourceUnreadable):
            _refuse_changed_job(job, by_others=not strategy.feeds)  # which explains it
        raise
    _refuse_changed_job(job, by_others=not strategy.feeds)


def _refuse_changed_job(job: CopyJob, *, by_others: bool) -> None:
    """Raise SourceChanged when a job's source changed; by_others: files were read by another program."""
    if job.scan.archive:
        check_same_file(job.root, lstat_or_none(job.root), job.scan.archive)
    if by_others:
        check_files(job.scan, job.cancel)
    check_directories(job.scan, job.cancel)
