"""Watch: follows runs that are under way, started elsewhere, by looking again and again; pure but for `follow`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.errors import EzpzError
from ezpz.remote.query import NodeQuery
from ezpz.runtime.signals import run_async
from ezpz.yeet.inventory.status import ANSWER_WITHIN, CopyState, collect, inquire, question

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.cluster.allocation import Node
    from ezpz.yeet.inventory.status import Answers, Destination, NodeStatus, StatusReport

PAUSE = 1.0  # seconds between two looks
WHATS = ("writing", "published", "preparing", "waiting", "lost")
SHARE = 10  # looking takes at most one part in so many of a node's time
LONGEST = 10.0  # seconds between two looks, however long they take


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run to one destination is.

    writing, published, preparing, waiting, lost: nodes: something of it is there; it stands; the lock is held and no
    more; the run is not there (yet, or any more); no answer
    landed: bytes of it on all nodes; total: bytes when it is done, None while no node has published it
    """

    destination: str
    run: str
    user: str
    writing: int
    published: int
    preparing: int
    waiting: int
    lost: int
    landed: int
    total: int | None

    @property
    def nodes(self) -> int:
        return self.writing + self.published + self.preparing + self.waiting + self.lost


def progress_of(destination: Destination) -> Progress | None:
    """How far the run is that holds the most nodes' locks; None when no run holds any."""
    runs = [str(lock["run"]) for lock in destination.holders]
    if not runs:
        return None
    run = max(set(runs), key=lambda each: (runs.count(each), each))
    user = next(str(lock["user"]) for lock in destination.holders if lock["run"] == run)
    whats = [_what(standing, run) for standing in destination.standings]
    published = [each.receipt for each in destination.standings if each.receipt.get("run") == run]
    size = int(published[0]["bytes"]) if published else None
    written = sum(max((each["bytes"] for each in _own(s, run)), default=0) for s in destination.standings)
    writing, done, preparing, waiting, lost = (whats.count(what) for what in WHATS)
    landed, total = len(published) * (size or 0) + written, None if size is None else size * (len(whats) - lost)
    return Progress(destination.path, run, user, writing, done, preparing, waiting, lost, landed, total)


def _what(standing: NodeStatus, run: str) -> str:
    if standing.state is CopyState.UNREACHABLE:
        return "lost"
    if standing.receipt.get("run") == run:
        return "published"
    lock = standing.found.get("lock") or {}
    if lock.get("run") != run:
        return "waiting"
    return "writing" if any(each["files"] for each in _own(standing, run)) else "preparing"


def _own(standing: NodeStatus, run: str) -> list[Mapping[str, Any]]:
    """The staging of a run that has not published there."""
    if standing.receipt.get("run") == run:
        return []
    return [each for each in standing.found.get("staging", ()) if each["run"] == run]


def watch_runs(
    nodes: tuple[Node, ...],
    destination: str,
    environ: Mapping[str, str],
    transport: str,
    show: Callable[[tuple[Progress, ...]], None],
) -> StatusReport:
    """Show how far runs are until none is under way any more; what stands there then.

    destination: "" for all; show: is given every run that is under way. Ctrl-C ends it, and no run.
    """
    return run_async(_follow(nodes, question(destination, environ), transport, show))


def pause_after(answers: Answers) -> float:
    """Seconds until the next look, from how long this one took on the slowest node. Pure."""
    took = [float(answer["seconds"]) for answer in answers.values() if not isinstance(answer, EzpzError)]
    return min(LONGEST, max(PAUSE, SHARE * max(took, default=0.0)))


async def _follow(
    nodes: tuple[Node, ...], asked: dict[str, Any], transport: str, show: Callable[[tuple[Progress, ...]], None]
) -> StatusReport:
    async with NodeQuery(nodes, transport, keep=True) as asking:
        while True:
            answers = await asking.ask({node: {**asked, "quick": True} for node in nodes}, within=ANSWER_WITHIN)
            found = tuple(filter(None, map(progress_of, collect(answers, "".join(asked["wanted"])))))
            if not found:
                break
            show(found)
            await asyncio.sleep(pause_after(answers))
        return await inquire(asking, asked)
