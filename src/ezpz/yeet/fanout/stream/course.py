"""Course: who serves whom while the stream runs, and what is done when a node dies, hangs, lags or is damaged.

A pure state machine: events in, actions out; no clock, no thread, no socket. The time is an argument of every event and
chance is given, so that a run with thousands of nodes can be replayed on a laptop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from ezpz.yeet.fanout.sources import MAX_PER_SOURCE, pick_source
from ezpz.yeet.fanout.stream.shape import parent_of

if TYPE_CHECKING:
    import random

N = TypeVar("N", bound=Hashable)

WINDOW = 0.8  # seconds over which a node is compared with its parent
LAGGING = 3.0  # times slower than its parent: a node that cannot keep up
LAG = 2 << 20  # bytes that it must be behind, besides; less is noise
SPARE = 1  # children that a relay may adopt beyond the width of the tree
ATTEMPTS = 4  # sources that could not reach a node, or lost it, before it is given up


class State(Enum):
    """Of a node: being served, waiting for somebody who has time, having all of it, ended well, ended badly."""

    SERVED = "served"
    WAITING = "waiting"
    PARKED = "parked"
    WHOLE = "whole"
    DONE = "done"
    FAILED = "failed"


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
    """Nobody could serve this node."""

    node: N
    why: str


Action: TypeAlias = "Serve[N] | Release[N] | GiveUp[N]"


@dataclass(slots=True)
class Member(Generic[N]):
    """What is known of one node.

    position: chunks received without a gap; size: bytes of them; parent: who serves it, None for nobody
    samples: (time, size) of the last `WINDOW` seconds; avoid: who could not reach it; cuts: how often it was lost
    """

    state: State = State.WAITING
    position: int = 0
    size: int = 0
    parent: N | None = None
    children: list[N] = field(default_factory=list)
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    avoid: set[N] = field(default_factory=set)
    cuts: int = 0
    damaged: tuple[int, ...] = ()
    why: str = ""

    def moved(self, position: int, size: int, now: float) -> None:
        self.position, self.size = max(self.position, position), max(self.size, size)
        self.samples.append((now, self.size))
        while len(self.samples) > 2 and self.samples[1][0] <= now - WINDOW:
            self.samples.popleft()

    def rate(self, now: float) -> float | None:
        """Bytes a second over the window; None while there is no telling yet."""
        if not self.samples or now - self.samples[0][0] < WINDOW:
            return None
        return (self.size - self.samples[0][1]) / (now - self.samples[0][0])


class Course(Generic[N]):
    """Keeps account of one stream from `root` through `nodes`.

    width: children of a node at the start; wire: bytes a second that the root's network carries, 0 for unknown
    """

    def __init__(self, root: N, nodes: tuple[N, ...], width: int, rng: random.Random, wire: float = 0.0) -> None:
        self.root = root
        self.width = width
        self.wire = wire
        self.rng = rng
        self.members: dict[N, Member[N]] = {root: Member(State.WHOLE), **{node: Member() for node in nodes}}
        self.adoptions = 0

    def start(self) -> list[Action[N]]:
        """The tree that was planned."""
        nodes = [node for node in self.members if node != self.root]
        actions: list[Action[N]] = []
        for index, node in enumerate(nodes):
            above = parent_of(index, self.width)
            actions.append(self._attach(nodes[above] if above >= 0 else self.root, node))
        return actions

    def moved(self, node: N, position: int, size: int, now: float) -> list[Action[N]]:
        """A node has received so many chunks, and so many bytes in them."""
        member = self.members[node]
        if member.state in (State.DONE, State.FAILED):
            return []
        member.moved(position, size, now)
        if member.state is State.SERVED and self._lags(member, now):
            return self._park(node)
        return []

    def whole(self, node: N) -> list[Action[N]]:
        """A node has all of it, checked, and can serve any part."""
        member = self.members[node]
        if member.state in (State.DONE, State.FAILED):
            return []
        self._detach(node)
        member.state = State.WHOLE
        member.damaged = ()
        return self._serve_waiting()

    def done(self, node: N) -> list[Action[N]]:
        """A node shows the new version; it goes on serving others."""
        actions = self.whole(node)
        if self.members[node].state is State.WHOLE:
            self.members[node].state = State.DONE
        return actions

    def gone(self, node: N, why: str) -> list[Action[N]]:
        """A node is lost, or has failed for good; those that it served go on from where they are."""
        member = self.members[node]
        if member.state is State.FAILED:
            return []
        above = member.parent
        actions: list[Action[N]] = []
        if above is not None and member.state is State.SERVED:
            actions.append(Release(above, node))
        self._detach(node)
        member.state, member.why = State.FAILED, why
        return [*actions, *self._orphan(member.children, above), *self._serve_waiting()]

    def cut(self, node: N, parent: N, now: float) -> list[Action[N]]:
        """A node has lost the connection to its parent, and both are well as far as is known."""
        member = self.members[node]
        if member.state is not State.SERVED or member.parent != parent:
            return []
        member.cuts += 1
        member.samples.clear()
        self._detach(node)
        member.state = State.WAITING
        if parent != self.root:
            member.avoid.add(parent)
        if member.cuts >= ATTEMPTS:
            return self._give_up(node, f"it lost its connection {member.cuts} times")
        return [Release(parent, node), *self._serve_waiting()]

    def refused(self, node: N, parent: N, why: str) -> list[Action[N]]:
        """`parent` could not connect to a node."""
        member = self.members[node]
        if member.state is not State.SERVED or member.parent != parent:
            return []
        member.cuts += 1
        self._detach(node)
        member.state = State.WAITING
        member.avoid.add(parent)
        if parent == self.root or member.cuts >= ATTEMPTS:
            return self._give_up(node, why)
        if member.cuts == ATTEMPTS - 1:  # the last one to try is the one who started it
            return [self._attach(self.root, node)]
        return self._serve_waiting()

    def damaged(self, node: N, chunks: tuple[int, ...]) -> list[Action[N]]:
        """What a node landed of these chunks is not what was sent."""
        member = self.members[node]
        if member.state in (State.DONE, State.FAILED):
            return []
        member.cuts += 1
        if member.cuts >= ATTEMPTS:
            return self._give_up(node, f"what landed was damaged {member.cuts} times")
        self._detach(node)
        member.state, member.damaged = State.WAITING, chunks
        return self._serve_waiting()

    @property
    def is_over(self) -> bool:
        """Whether every node has ended, well or badly."""
        return all(node == self.root or member.state in (State.DONE, State.FAILED) for node, member in self._all())

    def depth_of(self, node: N) -> int:
        """How many hops a node is from the root."""
        return sum(1 for _ in self._above(node))

    @property
    def depth(self) -> int:
        """The most hops from the root to a node that is served now."""
        return max((self.depth_of(node) for node, member in self._all() if member.state is State.SERVED), default=0)

    def _all(self) -> Iterator[tuple[N, Member[N]]]:
        return iter(self.members.items())

    def _above(self, node: N) -> Iterator[N]:
        parent = self.members[node].parent
        while parent is not None:
            yield parent
            parent = self.members[parent].parent

    def _attach(self, parent: N, node: N) -> Serve[N]:
        member = self.members[node]
        member.state, member.parent = State.SERVED, parent
        member.samples.clear()
        self.members[parent].children.append(node)
        return Serve(parent, node, member.damaged)

    def _detach(self, node: N) -> None:
        member = self.members[node]
        if member.parent is not None:
            above = self.members[member.parent].children
            if node in above:
                above.remove(node)
            member.parent = None

    def _lags(self, member: Member[N], now: float) -> bool:
        """Whether a node receives much less than its parent has to give."""
        assert member.parent is not None
        above = self.members[member.parent]
        if above.size - member.size < LAG or member.damaged:
            return False
        rate, given = member.rate(now), above.rate(now)
        if member.parent == self.root or above.state is not State.SERVED:
            given = self.wire / max(1, len(above.children))
        return rate is not None and given is not None and rate * LAGGING < given

    def _park(self, node: N) -> list[Action[N]]:
        """Leave a node that cannot keep up for the end; what it served moves to its parent."""
        member = self.members[node]
        above = member.parent
        assert above is not None
        self._detach(node)
        member.state = State.PARKED
        orphans = list(member.children)
        released = [Release(node, child) for child in orphans]
        return [Release(above, node), *released, *self._orphan(member.children, above), *self._serve_waiting()]

    def _orphan(self, children: list[N], above: N | None) -> list[Action[N]]:
        """Hand those that a node served to whoever served it, and to others when that is too many."""
        actions: list[Action[N]] = []
        for child in list(children):
            member = self.members[child]
            self._detach(child)
            member.state = State.WAITING
            if above is not None and self._can_serve(above, child) and self._has_room(above):
                self.adoptions += 1
                actions.append(self._attach(above, child))
        return actions

    def _give_up(self, node: N, why: str) -> list[Action[N]]:
        return [GiveUp(node, why), *self.gone(node, why)]

    def _serve_waiting(self) -> list[Action[N]]:
        """Find somebody for every node that waits; the lagging ones only when nobody else is served any more."""
        actions: list[Action[N]] = []
        for node, member in self._all():
            if member.state is State.WAITING or (member.state is State.PARKED and self._has_time(member)):
                source = pick_source(self._candidates(node), self._most(), rng=self.rng)
                if source is not None:
                    self.adoptions += 1
                    actions.append(self._attach(source, node))
        return actions

    def _has_time(self, parked: Member[N]) -> bool:
        """Whether a lagging node may be served now: somebody has all of it, or nobody else is left to wait for."""
        if any(member.state in (State.WHOLE, State.DONE) for node, member in self._all() if node != self.root):
            return True
        return not any(member.state is State.SERVED for _, member in self._all() if member is not parked)

    def _candidates(self, node: N) -> Mapping[N, int]:
        """Who could serve a node, with what each serves already."""
        member = self.members[node]
        able = [other for other in self.members if self._can_serve(other, node) and self._has_room(other)]
        if member.state is State.PARKED or member.damaged:
            able = [other for other in able if self.members[other].state is not State.SERVED]
        willing = [other for other in able if other not in member.avoid] or able
        others = [other for other in willing if other != self.root] or willing
        return {other: len(self.members[other].children) for other in others}

    def _can_serve(self, other: N, node: N) -> bool:
        if other == node:
            return False
        member = self.members[other]
        if member.state in (State.WHOLE, State.DONE):
            return True
        ahead = member.state is State.SERVED and member.position >= self.members[node].position
        return ahead and not member.damaged and node not in self._above(other)

    def _has_room(self, other: N) -> bool:
        member = self.members[other]
        most = self.width + SPARE if member.state is State.SERVED else self._most()
        return len(member.children) < most

    @staticmethod
    def _most() -> int:
        return MAX_PER_SOURCE
