"""Member: what is known of one node of a stream; Bag: nodes to draw from. Pure, as the course that keeps them."""

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
DRAWS = 16  # from a bag, before everything in it is looked at


class NodePhase(Enum):
    """Of a node: being served, waiting for a source, left for the end, having all of it, ended well, ended badly.

    AWAY: lost, and perhaps coming back with nothing.
    """

    SERVED = "served"
    WAITING = "waiting"
    PARKED = "parked"
    WHOLE = "whole"
    DONE = "done"
    FAILED = "failed"
    AWAY = "away"


@dataclass(slots=True)
class NodeState(Generic[N]):
    """What is known of one node.

    position: chunks received without a gap; size: bytes of them; parent: who serves it, None for nobody
    samples: (time, size) of the last `WINDOW` seconds, by its own clock: what it says may come late
    heard, steady: when it last reported, and since when without a gap, by the clock of whoever asks
    due: since when a report is due, because there is much for it; inf for not now
    stuck: since when it has made no progress, however often it was reached; inf for not now
    strikes: how many of those that it served have fallen silent since one of them made progress
    avoid: who could not reach it; cuts: how often it was lost; slow: it has been parked, and is not judged again
    """

    state: NodePhase = NodePhase.WAITING
    position: int = 0
    size: int = 0
    parent: N | None = None
    children: list[N] = field(default_factory=list)
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    avoid: set[N] = field(default_factory=set)
    cuts: int = 0
    damaged: tuple[int, ...] = ()
    slow: bool = False
    heard: float = -math.inf
    steady: float = 0.0
    due: float = math.inf
    stuck: float = math.inf
    strikes: int = 0
    why: str = ""

    @property
    def has_all(self) -> bool:
        return self.state in (NodePhase.WHOLE, NodePhase.DONE)

    @property
    def has_ended(self) -> bool:
        return self.state in (NodePhase.DONE, NodePhase.FAILED)

    def moved(self, position: int, size: int, now: float, at: float) -> None:
        if now - self.heard > WINDOW:
            self.steady = now
        self.heard = now
        self.progressed(now)
        self.position, self.size = max(self.position, position), max(self.size, size)
        self._forget(at)
        self.samples.append((at, self.size))

    def progressed(self, now: float) -> None:
        self.due = self.stuck = now

    def rate(self, now: float) -> float | None:
        """Bytes a second in the window that ends with its last report; None when there is no telling.

        What a report after a silence brings counts as come within the window: or else those behind a node that was cut
        off would seem slow when it goes on, each until its own second report.
        """
        if len(self.samples) < 2 or now - self.heard > WINDOW / 2:
            return None
        self._forget(self.samples[-1][0])
        if self.samples[0][0] > self.samples[-1][0] - WINDOW:
            return None
        return (self.size - self.samples[0][1]) / WINDOW

    def _forget(self, at: float) -> None:
        while len(self.samples) > 1 and self.samples[1][0] <= at - WINDOW:
            self.samples.popleft()


class RandomSet(Generic[N]):
    """A set from which one is drawn at random, at the same cost whatever its size."""

    def __init__(self) -> None:
        self._items: list[N] = []
        self._at: dict[N, int] = {}

    def __contains__(self, item: N) -> bool:
        return item in self._at

    def add(self, item: N) -> None:
        if item not in self._at:
            self._at[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: N) -> None:
        at = self._at.pop(item, None)
        if at is not None:
            last = self._items.pop()
            if at < len(self._items):
                self._items[at], self._at[last] = last, at

    def draw(self, fits: Callable[[N], bool], rng: random.Random) -> N | None:
        """One of those that fit, each as likely as any other; None if none does."""
        for _ in range(min(DRAWS, len(self._items))):
            item = rng.choice(self._items)
            if fits(item):
                return item
        fitting = [item for item in self._items if fits(item)]
        return rng.choice(fitting) if fitting else None


@dataclass(frozen=True, slots=True)
class Serve(Generic[N]):
    """`parent` is to send to `child`: from its position on, or only these chunks."""

    parent: N
    child: N
    chunks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Release(Generic[N]):
    """`parent` is to stop sending to `child`."""

    parent: N
    child: N


@dataclass(frozen=True, slots=True)
class GiveUp(Generic[N]):
    """Nobody could serve this node; `hangs`: it was reached and made no progress."""

    node: N
    why: str
    hangs: bool = False


Action: TypeAlias = "Serve[N] | Release[N] | GiveUp[N]"
