"""Progress of runs that another process started, found by querying the nodes again and again."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ezpz.errors import EzpzError
from ezpz.remote.query import NodeQuery
from ezpz.runtime.signals import run_async
from ezpz.yeet.inventory.status import ANSWER_TIMEOUT, group_by_destination, report_status, survey_request
from ezpz.yeet.inventory.status_report import CopyState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.agent.common.messages.queries import StagingState
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.inventory.status import Answers
    from ezpz.yeet.inventory.status_report import Destination, NodeStatus, StatusReport

MIN_PAUSE = 1.0  # seconds between two queries
MAX_PAUSE = 10.0  # seconds between two queries, however long they take
PAUSE_FACTOR = 10  # a query takes at most one part in so many of a node's time


class _Stage(Enum):
    """Stage of a run on one node."""

    WRITING = "writing"
    PUBLISHED = "published"
    PREPARING = "preparing"
    WAITING = "waiting"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Progress of a run to one destination.

    Attributes:
        destination: the destination
        run: the identifier of the run
        user: who started it
        writing: number of nodes that have some files of it in staging
        published: number of nodes that have published it
        preparing: number of nodes where it holds the lock and has written nothing
        waiting: number of nodes without it, before it has arrived or after it has ended there
        lost: number of nodes that did not answer
        written_bytes: bytes of it on all nodes
        total_bytes: bytes when it is complete, None while no node has published it
    """

    destination: str
    run: str
    user: str
    writing: int
    published: int
    preparing: int
    waiting: int
    lost: int
    written_bytes: int
    total_bytes: int | None

    @property
    def nodes(self) -> int:
        """Number of all nodes."""
        return self.writing + self.published + self.preparing + self.waiting + self.lost


def watch_runs(
    nodes: tuple[Node, ...],
    destination: str,
    environ: Mapping[str, str],
    transport: str,
    on_progress: Callable[[tuple[RunProgress, ...]], None],
) -> StatusReport:
    """Report the progress of runs until all have ended, then return the status.

    Args:
        nodes: the nodes
        destination: the destination, "" for all
        environ: the variables of the job
        transport: the name of one
        on_progress: called with the progress of every run after each query
    """

    async def watch() -> StatusReport:
        request = survey_request(destination, environ, quick=True)
        async with NodeQuery(nodes, transport, keep=True) as query:
            while True:
                answers = await query.ask(dict.fromkeys(nodes, request), within=ANSWER_TIMEOUT)
                found = tuple(filter(None, map(run_progress, group_by_destination(answers, destination))))
                if not found:
                    return await report_status(query, destination, environ)
                on_progress(found)
                await asyncio.sleep(pause_after(answers))

    return run_async(watch())


def run_progress(destination: Destination) -> RunProgress | None:
    """Return the progress of the run that holds the locks of most nodes, None if no run holds any."""
    runs = [lock.run for lock in destination.held_locks]
    if not runs:
        return None
    run = max(set(runs), key=lambda each: (runs.count(each), each))
    user = next(lock.user for lock in destination.held_locks if lock.run == run)
    stages = Counter(_stage(status, run) for status in destination.statuses)
    published = [each.receipt for each in destination.statuses if each.receipt is not None and each.receipt.run == run]
    size = published[0].bytes if published else None
    staged = sum(max((each.bytes for each in _staging_of(s, run)), default=0) for s in destination.statuses)
    reachable = len(destination.statuses) - stages[_Stage.LOST]
    return RunProgress(
        destination.path, run, user,
        writing=stages[_Stage.WRITING], published=stages[_Stage.PUBLISHED], preparing=stages[_Stage.PREPARING],
        waiting=stages[_Stage.WAITING], lost=stages[_Stage.LOST],
        written_bytes=len(published) * (size or 0) + staged, total_bytes=None if size is None else size * reachable,
    )  # fmt: skip


def pause_after(answers: Answers) -> float:
    """Return the seconds until the next query, from how long this one took on the slowest node."""
    took = [answer.seconds for answer in answers.values() if not isinstance(answer, EzpzError)]
    return min(MAX_PAUSE, max(MIN_PAUSE, PAUSE_FACTOR * max(took, default=0.0)))


def _stage(status: NodeStatus, run: str) -> _Stage:
    if status.state is CopyState.UNREACHABLE:
        return _Stage.LOST
    if _has_published(status, run):
        return _Stage.PUBLISHED
    if status.lock is None or status.lock.run != run:
        return _Stage.WAITING
    return _Stage.WRITING if any(each.files for each in _staging_of(status, run)) else _Stage.PREPARING


def _has_published(status: NodeStatus, run: str) -> bool:
    return status.receipt is not None and status.receipt.run == run


def _staging_of(status: NodeStatus, run: str) -> list[StagingState]:
    """Return the staging directories of a run on a node, none once the run has published its copy there."""
    if _has_published(status, run):
        return []
    return [each for each in status.staging if each.run == run]
