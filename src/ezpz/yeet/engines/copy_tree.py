"""Who copies from whom: `pick_source`, and the Tree that keeps count. Pure: no clock, no process, chance is given."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)

MAX_PER_SOURCE = 8  # copies from one source at a time: below the MaxStartups (10) of an untouched sshd
STRIKES = 2  # failures in a row after which a source is not used again


def pick_source(source_active: Mapping[S, int], max_per_source: int, *, rng: random.Random | None = None) -> S | None:
    """A least-loaded source under the cap, ties broken by `rng`; None when all are at the cap.

    source_active: the copies that each source is serving
    rng: a fresh `random.Random()` by default, never the global one
    """
    if not source_active:
        return None
    least = min(source_active.values())
    if least >= max_per_source:
        return None
    idle = [source for source, active in source_active.items() if active == least]
    return (rng or random.Random()).choice(idle)  # noqa: S311 - it spreads load and keeps no secret


class CopyTree(Generic[S]):
    """A greedy fan-out: every node that has the data becomes a source at once.

    Ask `next()` for copies to start until it says None, and tell it how each one ended.
    """

    def __init__(
        self,
        origin: S,
        waiting: tuple[S, ...],
        *,
        retries: int,
        rng: random.Random,
        max_per_source: int = MAX_PER_SOURCE,
    ) -> None:
        self.active: dict[S, int] = {origin: 0}
        self.attempts: dict[S, int] = dict.fromkeys(waiting, 0)
        self._waiting = deque(waiting)
        self._retries = retries
        self._rng = rng
        self.max_per_source = max_per_source
        self._strikes: dict[S, int] = {}
        self._avoid: dict[S, set[S]] = {}
        self._origin = origin
        self._origin_only: set[S] = set()

    @property
    def is_waiting(self) -> bool:
        """Whether some node is still to be served."""
        return bool(self._waiting)

    def next(self) -> tuple[S, S] | None:
        """The next (node, source) to copy, now under way; None when nothing waits or every source is at the cap."""
        for _ in range(len(self._waiting)):
            node = self._waiting.popleft()
            source = pick_source(self._candidates(node), self.max_per_source, rng=self._rng)
            if source is not None:
                self.active[source] += 1
                self.attempts[node] += 1
                return node, source
            self._waiting.append(node)
            if node not in self._avoid and node not in self._origin_only:
                break  # the sources are full for everybody else as well
        return None

    def done(self, node: S, source: S) -> None:
        """A copy has succeeded: the node is a source from now on."""
        self._release(source)
        self._strikes.pop(source, None)
        self.active[node] = 0

    def failed(self, node: S, source: S, *, blame_source: bool, again: bool = True) -> bool:
        """A copy has failed; whether it will be tried again, if possible from another source.

        blame_source: the node itself is well; again: a further attempt could help
        """
        self._release(source)
        if blame_source:
            self._strike(node, source)
        retry = again and self.attempts[node] <= self._retries
        if retry:
            self._waiting.append(node)
        return retry

    def unreachable(self, node: S, source: S) -> bool:
        """The node could not log in to the source; whether it is tried again, by the origin, for once at no cost."""
        if node in self._origin_only or source == self._origin:
            return self.failed(node, source, blame_source=True)
        self._release(source)
        self._strike(node, source)
        self.attempts[node] -= 1
        self._origin_only.add(node)
        self._waiting.append(node)
        return True

    def has(self, node: S) -> None:
        """A node turns out to have the data already."""
        self._waiting.remove(node)
        self.active[node] = 0

    def _candidates(self, node: S) -> Mapping[S, int]:
        if node in self._origin_only and self._origin in self.active:
            return {self._origin: self.active[self._origin]}
        avoid = self._avoid.get(node)
        if not avoid:
            return self.active
        return {source: active for source, active in self.active.items() if source not in avoid} or self.active

    def _strike(self, node: S, source: S) -> None:
        self._avoid.setdefault(node, set()).add(source)
        self._strikes[source] = self._strikes.get(source, 0) + 1
        if self._strikes[source] >= STRIKES and len(self.active) > 1:
            self.active.pop(source, None)

    def _release(self, source: S) -> None:
        if source in self.active:
            self.active[source] -= 1
