"""Which node copies from which. Pure: no clock, no process, chance is given."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)

MAX_PER_SOURCE = 8  # copies at once: below the default MaxStartups (10) of sshd_config(5)
MAX_FAILURES = 2  # in a row, after which a source is not used again


def pick_source(source_active: Mapping[S, int], max_per_source: int, *, rng: random.Random | None = None) -> S | None:
    """Return a least-loaded source below the limit, or None if all are at the limit.

    Args:
        source_active: Copies that each source is serving.
        max_per_source: The limit.
        rng: Breaks ties; a new `random.Random()` by default, never the global one.
    """
    if not source_active:
        return None
    least = min(source_active.values())
    if least >= max_per_source:
        return None
    idle = [source for source, active in source_active.items() if active == least]
    return (rng or random.Random()).choice(idle)  # noqa: S311 - distributes load, protects no secret


class CopyTree(Generic[S]):
    """A greedy tree of copies: every node that has the data becomes a source at once.

    Call `next` for copies to start until it returns None, and report how each one ended.

    Args:
        origin: The first source.
        waiting: Nodes to copy to.
        retries: Attempts for a node after the first.
        rng: Breaks ties.
        max_per_source: Copies that one source serves at once.
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
        self._failures: dict[S, int] = {}
        self._avoid: dict[S, set[S]] = {}
        self._origin = origin
        self._origin_only: set[S] = set()

    @property
    def is_waiting(self) -> bool:
        """Whether a node waits for a copy."""
        return bool(self._waiting)

    def next(self) -> tuple[S, S] | None:
        """Return the next (node, source) and count it as running; None if no node waits or all sources are busy."""
        for _ in range(len(self._waiting)):
            node = self._waiting.popleft()
            source = pick_source(self._candidates(node), self.max_per_source, rng=self._rng)
            if source is not None:
                self.active[source] += 1
                self.attempts[node] += 1
                return node, source
            self._waiting.append(node)
            if node not in self._avoid and node not in self._origin_only:
                break  # the sources are at the limit for all other nodes as well
        return None

    def done(self, node: S, source: S) -> None:
        """Record a copy that has succeeded: the node is a source from now on."""
        self._release(source)
        self._failures.pop(source, None)
        self.active[node] = 0

    def failed(self, node: S, source: S, *, blame_source: bool, again: bool = True) -> bool:
        """Record a copy that has failed, and return whether it will be tried again, if possible from another source.

        Args:
            node: Node that was copied to.
            source: Node that it was copied from.
            blame_source: Whether the node itself seems to be well.
            again: Whether another attempt may succeed.
        """
        self._release(source)
        if blame_source:
            self._count_failure(node, source)
        retry = again and self.attempts[node] <= self._retries
        if retry:
            self._waiting.append(node)
        return retry

    def unreachable(self, node: S, source: S) -> bool:
        """Record a node that could not log in to a source, and return whether it will be tried again.

        The first time, the origin serves it instead, and the attempt does not count.
        """
        if node in self._origin_only or source == self._origin:
            return self.failed(node, source, blame_source=True)
        self._release(source)
        self._count_failure(node, source)
        self.attempts[node] -= 1
        self._origin_only.add(node)
        self._waiting.append(node)
        return True

    def has(self, node: S) -> None:
        """Record a waiting node that has the data already."""
        self._waiting.remove(node)
        self.active[node] = 0

    def _candidates(self, node: S) -> Mapping[S, int]:
        if node in self._origin_only and self._origin in self.active:
            return {self._origin: self.active[self._origin]}
        avoid = self._avoid.get(node)
        if not avoid:
            return self.active
        return {source: active for source, active in self.active.items() if source not in avoid} or self.active

    def _count_failure(self, node: S, source: S) -> None:
        self._avoid.setdefault(node, set()).add(source)
        self._failures[source] = self._failures.get(source, 0) + 1
        if self._failures[source] >= MAX_FAILURES and len(self.active) > 1:
            self.active.pop(source, None)

    def _release(self, source: S) -> None:
        if source in self.active:
            self.active[source] -= 1
