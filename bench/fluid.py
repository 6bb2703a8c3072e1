"""A simulation of data that flows through a tree of hosts: how much each has at each moment.

The children of a host that are alive and incomplete share its uplink equally. A child never has more than its parent.
The latency of the last byte is added at the end. Switches have no limit.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = -1
NEAR = 1.0  # bytes: positions that are closer than that are equal


@dataclass(frozen=True)
class World:
    """Parameters of a simulation, in bytes, seconds, and bytes per second.

    Attributes:
        nodes: Number of nodes.
        size: Bytes of the stream.
        rate: Network of a node, in each direction.
        start: Duration of the start of one session.
        dying: Fraction of nodes that die at random moments, half of them silently.
        hung: Fraction of nodes whose disk hangs from the start.
        room: Bytes that a node with a hanging disk receives and forwards.
        hop: Latency of one hop.
        chunk: Bytes of a chunk.
        stall: Until a silent death is noticed.
        land: Disk of a node.
        fan: Sessions that a host starts at once.
        seed: Seed of all chances.
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
    """Simulated time, and the events to come."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []
        self._number = itertools.count()

    def after(self, seconds: float, act: Callable[..., object], *of: object) -> None:
        """Schedule a call."""
        heapq.heappush(self._events, (self.now + seconds, next(self._number), act, of))

    def step(self) -> bool:
        """Process the next event and return whether there was one."""
        if not self._events:
            return False
        self.now, _, act, of = heapq.heappop(self._events)
        act(*of)
        return True


@dataclass(slots=True)
class Host:
    """A host with `position` bytes at `since`, and `rate` from then on; `stamp` invalidates older predictions."""

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
    """The hosts and the flows between them; `full` is called once for each node that has everything."""

    def __init__(self, world: World, clock: Clock, full: Callable[[int], object]) -> None:
        self.world = world
        self.clock = clock
        self.full = full
        self.hosts = {node: Host() for node in range(world.nodes)}
        self.hosts[ROOT] = Host(position=world.size, filled=True)

    def link(self, parent: int, child: int) -> None:
        """Let `parent` send to `child` what the child lacks."""
        self.unlink(child)
        self.hosts[child].parent = parent
        self.hosts[parent].children.add(child)
        self._retune(self.hosts[parent].children)

    def unlink(self, child: int) -> None:
        """Let no host send to `child`."""
        host = self.hosts[child]
        if host.parent is not None:
            parent, host.parent = self.hosts[host.parent], None
            parent.children.discard(child)
            self._retune([child, *parent.children])

    def die(self, node: int) -> None:
        """Stop all flows to and from a node."""
        host = self.hosts[node]
        host.dead = True
        siblings = self.hosts[host.parent].children if host.parent is not None else ()
        self._retune([node, *host.children, *siblings])

    def position(self, node: int) -> float:
        """Return the bytes that a node has now."""
        self._advance(self.hosts[node])
        return self.hosts[node].position

    def _advance(self, host: Host) -> None:
        now = self.clock.now
        host.position, host.since = min(self.world.size, host.position + host.rate * (now - host.since)), now

    def _retune(self, nodes: Iterable[int]) -> None:
        """Compute the rates of these nodes again, and of all nodes that depend on them."""
        stack = list(nodes)
        while stack:
            node = stack.pop()
            host, before = self.hosts[node], self.hosts[node].rate
            self._advance(host)
            host.rate, predicted = self._flow(host)
            host.stamp += 1
            if not host.filled and host.position == self.world.size:
                host.filled = True
                self.clock.after(self._latency(node), self.full, node)
                stack += self.hosts[host.parent].children if host.parent is not None else ()
            if host.rate != before:
                stack += host.children
            if predicted is not None:
                self.clock.after(predicted, self._predicted, node, host.stamp)

    def _predicted(self, node: int, stamp: int) -> None:
        if self.hosts[node].stamp == stamp:
            self._retune([node])

    def _flow(self, host: Host) -> tuple[float, float | None]:
        """Return the rate of a node, and the seconds until it changes by itself."""
        missing = self.world.size - host.position
        if missing <= NEAR:
            host.position = self.world.size
            return 0.0, None
        if host.hung and (missing := self.world.room - host.position) <= NEAR:
            return 0.0, None
        if host.dead or host.parent is None or self.hosts[host.parent].dead:
            return 0.0, None
        parent = self.hosts[host.parent]
        self._advance(parent)
        behind = parent.position - host.position
        if behind < -NEAR:  # its new parent is behind it
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
        """Return the seconds that the last byte takes from the root to a node."""
        seconds, parent = 0.0, self.hosts[node].parent
        while parent is not None:
            children = max(1, len(self.hosts[parent].children))
            seconds += self.world.hop + self.world.chunk * children / self.world.rate
            parent = self.hosts[parent].parent
        return seconds
