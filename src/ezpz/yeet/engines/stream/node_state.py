"""What is known of each node of a stream, sets to draw nodes from, and what to do next. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    import random

N = TypeVar("N", bound=Hashable)

WINDOW = 2.0  # seconds over which a node is compared with its parent
MAX_DRAWS = 16  # random draws from a set before every item in it is checked


class NodePhase(Enum):
    """Phase of a node in a stream.

    SERVED: it receives the stream; WAITING: it needs a source; DEFERRED: it is slow and served at the end;
    RECEIVED: it has everything, checked; DONE: it has published; FAILED: it is out of the stream;
    LOST: its agent is gone and may come back with nothing.
    """

    SERVED = "served"
    WAITING = "waiting"
    DEFERRED = "deferred"
    RECEIVED = "received"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"


@dataclass(slots=True)
class NodeState(Generic[N]):
    """Progress and position of one node in the tree.

    Attributes:
        phase: Phase of the node.
        position: Chunks received without a gap.
        size: Bytes of these chunks.
        parent: Node that sends to this one, or None.
        children: Nodes that this one sends to.
        samples: (time, size) of the last `WINDOW` seconds by the node's own clock, since a report may arrive late.
        avoid: Nodes that could not connect to this one, or lost it.
        failures: How often its connection broke, was refused, or its data was damaged.
        damaged: Chunks that have to be sent again.
        is_slow: Whether it has been deferred. It is not compared with its parent again.
        last_report: Time of its last report, by the clock of the launch host.
        reporting_since: Time since which its reports have had no gap.
        report_due_since: Time since which a report is due because much data is ready for it; inf if none is due.
        idle_since: Time since which it has made no progress, from any parent; inf while it cannot make any.
        silent_children: How many of its children have fallen silent since one of them made progress.
        reason: Why it failed or was lost.
    """

    phase: NodePhase = NodePhase.WAITING
    position: int = 0
    size: int = 0
    parent: N | None = None
    children: list[N] = field(default_factory=list)
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    avoid: set[N] = field(default_factory=set)
    failures: int = 0
    damaged: tuple[int, ...] = ()
    is_slow: bool = False
    last_report: float = -math.inf
    reporting_since: float = 0.0
    report_due_since: float = math.inf
    idle_since: float = math.inf
    silent_children: int = 0
    reason: str = ""

    @property
    def has_all(self) -> bool:
        return self.phase in (NodePhase.RECEIVED, NodePhase.DONE)

    @property
    def has_ended(self) -> bool:
        return self.phase in (NodePhase.DONE, NodePhase.FAILED)

    def record_report(self, position: int, size: int, now: float, reported_at: float) -> None:
        """Record a report of progress.

        Args:
            position: Chunks received without a gap.
            size: Bytes of these chunks.
            now: Time at which the report arrived.
            reported_at: Time at which the node sent it, by its own clock.
        """
        if now - self.last_report > WINDOW:
            self.reporting_since = now
        self.last_report = now
        self.record_activity(now)
        self.position, self.size = max(self.position, position), max(self.size, size)
        self._drop_samples(reported_at)
        self.samples.append((reported_at, self.size))

    def record_activity(self, now: float) -> None:
        """Record that the node made progress of any kind."""
        self.report_due_since = self.idle_since = now

    def rate(self, now: float) -> float | None:
        """Return bytes per second in the window that ends with the last report, None if unknown.

        What the first report after a silence adds counts as received within the window. Otherwise the nodes below one
        that was cut off would seem slow when it continues, each until its own second report.
        """
        if len(self.samples) < 2 or now - self.last_report > WINDOW / 2:
            return None
        self._drop_samples(self.samples[-1][0])
        if self.samples[0][0] > self.samples[-1][0] - WINDOW:
            return None
        return (self.size - self.samples[0][1]) / WINDOW

    def _drop_samples(self, end: float) -> None:
        """Remove the samples that are older than a window that ends at `end`."""
        while len(self.samples) > 1 and self.samples[1][0] <= end - WINDOW:
            self.samples.popleft()


class RandomSet(Generic[N]):
    """A set with random draws at a constant cost."""

    def __init__(self) -> None:
        self._items: list[N] = []
        self._indexes: dict[N, int] = {}

    def __contains__(self, item: N) -> bool:
        return item in self._indexes

    def add(self, item: N) -> None:
        if item not in self._indexes:
            self._indexes[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: N) -> None:
        index = self._indexes.pop(item, None)
        if index is not None:
            last = self._items.pop()
            if index < len(self._items):
                self._items[index], self._indexes[last] = last, index

    def draw(self, fits: Callable[[N], bool], rng: random.Random) -> N | None:
        """Return one of the items that fit, each with the same probability, or None if none fits."""
        for _ in range(min(MAX_DRAWS, len(self._items))):
            item = rng.choice(self._items)
            if fits(item):
                return item
        fitting = [item for item in self._items if fits(item)]
        return rng.choice(fitting) if fitting else None


@dataclass(frozen=True, slots=True)
class Connect(Generic[N]):
    """Order to `parent` to send to `child`: from the child's position on, or only these chunks."""

    parent: N
    child: N
    chunks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Disconnect(Generic[N]):
    """Order to `parent` to stop sending to `child`."""

    parent: N
    child: N


@dataclass(frozen=True, slots=True)
class Abandon(Generic[N]):
    """Order to give up a node. `hangs`: it was connected and made no progress."""

    node: N
    reason: str
    hangs: bool = False


Action: TypeAlias = "Connect[N] | Disconnect[N] | Abandon[N]"
