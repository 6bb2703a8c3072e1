"""Data that flows through a tree of made-up hosts in made-up time: how far each is at each moment.

A host's uplink is shared equally by its children that are alive and still want something, a child has never more than
its parent, and the latency of the way that the last byte takes is added at its end. No switch is ever full.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = -1
NEAR = 1.0  # bytes: closer than that is the same place


@dataclass(frozen=True)
class World:
    """What is made up, in bytes, seconds and bytes a second.

    dying: the share of nodes that die at random moments, every second of them silently; stall: until that is noticed
    hung: the share of nodes whose disk hangs from the start: each takes `room` bytes, passes them on and lands nothing
    land: what one node can put on its disk; start: for one session; fan: sessions that a host starts at once
    """

    nodes: int = 4096
    size: float = 8e9
    rate: float = 1e9
    start: float = 0.3
    dying: float = 0.01
    hung: float = 0.0
    room: int = 24 << 20
    hop: float = 0.002
    chunk: int = 1 << 20
    stall: float = 10.0
    land: float = 2e9
    fan: int = 64
    seed: int = 1


class Clock:
    """Made-up time, and what is to happen when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []
        self._number = itertools.count()

    def after(self, seconds: float, act: Callable[..., object], *of: object) -> None:
        """Have something happen."""
        heapq.heappush(self._events, (self.now + seconds, next(self._number), act, of))

    def step(self) -> bool:
        """Let the next thing happen; whether there was one."""
        if not self._events:
            return False
        self.now, _, act, of = heapq.heappop(self._events)
        act(*of)
        return True


@dataclass(slots=True)
class Host:
    """`position` bytes at `since`, and `rate` from then on; `stamp` outdates what was foreseen."""

    position: float = 0.0
    rate: float = 0.0
    since: float = 0.0
    parent: int | None = None
    children: set[int] = field(default_factory=set)
    stamp: int = 0
    filled: bool = False
    dead: bool = False
    hung: bool = False


class Fluid:
    """The hosts and what flows between them; `full` is told of each node that has everything, once it has."""

    def __init__(self, world: World, clock: Clock, full: Callable[[int], object]) -> None:
        self.world = world
        self.clock = clock
        self.full = full
        self.hosts = {node: Host() for node in range(world.nodes)}
        self.hosts[ROOT] = Host(position=world.size, filled=True)

    def link(self, parent: int, child: int) -> None:
        """From now on `parent` sends to `child` what that is missing."""
        self.unlink(child)
        self.hosts[child].parent = parent
        self.hosts[parent].children.add(child)
        self._retune(self.hosts[parent].children)

    def unlink(self, child: int) -> None:
        """Nobody sends to `child` any more."""
        host = self.hosts[child]
        if host.parent is not None:
            parent, host.parent = self.hosts[host.parent], None
            parent.children.discard(child)
            self._retune([child, *parent.children])

    def die(self, node: int) -> None:
        """Nothing flows to this node or from it any more."""
        host = self.hosts[node]
        host.dead = True
        beside = self.hosts[host.parent].children if host.parent is not None else ()
        self._retune([node, *host.children, *beside])

    def position(self, node: int) -> float:
        """How many bytes a node has now."""
        self._settle(self.hosts[node])
        return self.hosts[node].position

    def _settle(self, host: Host) -> None:
        now = self.clock.now
        host.position, host.since = min(self.world.size, host.position + host.rate * (now - host.since)), now

    def _retune(self, nodes: Iterable[int]) -> None:
        """The rates of these nodes anew, and of all whom that concerns."""
        stack = list(nodes)
        while stack:
            node = stack.pop()
            host, before = self.hosts[node], self.hosts[node].rate
            self._settle(host)
            host.rate, foreseen = self._flow(host)
            host.stamp += 1
            if not host.filled and host.position == self.world.size:
                host.filled = True
                self.clock.after(self._latency(node), self.full, node)
                stack += self.hosts[host.parent].children if host.parent is not None else ()
            if host.rate != before:
                stack += host.children
            if foreseen is not None:
                self.clock.after(foreseen, self._foreseen, node, host.stamp)

    def _foreseen(self, node: int, stamp: int) -> None:
        if self.hosts[node].stamp == stamp:
            self._retune([node])

    def _flow(self, host: Host) -> tuple[float, float | None]:
        """A node's rate now, and the seconds until that changes by itself."""
        missing = self.world.size - host.position
        if missing <= NEAR:
            host.position = self.world.size
            return 0.0, None
        if host.hung and (missing := self.world.room - host.position) <= NEAR:
            return 0.0, None
        if host.dead or host.parent is None or self.hosts[host.parent].dead:
            return 0.0, None
        parent = self.hosts[host.parent]
        self._settle(parent)
        behind = parent.position - host.position
        if behind < -NEAR:  # adopted by one that is behind it
            return 0.0, (-behind / parent.rate if parent.rate else None)
        most = self._share(parent)
        rate = most if behind > NEAR else min(most, parent.rate)
        if not rate:
            return 0.0, None
        level_in = behind / (rate - parent.rate) if behind > NEAR and rate > parent.rate else missing / rate
        return rate, min(missing / rate, level_in)

    def _share(self, parent: Host) -> float:
        children = (self.hosts[child] for child in parent.children)
        taking = sum(not child.filled and not child.dead for child in children)
        return min(self.world.rate / max(1, taking), self.world.land)

    def _latency(self, node: int) -> float:
        """Seconds that the last byte is on its way to a node, from whoever has had it for long."""
        seconds, parent = 0.0, self.hosts[node].parent
        while parent is not None:
            children = max(1, len(self.hosts[parent].children))
            seconds += self.world.hop + self.world.chunk * children / self.world.rate
            parent = self.hosts[parent].parent
        return seconds
