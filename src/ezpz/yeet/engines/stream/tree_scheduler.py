"""Course: who serves whom while the stream runs, and what is done when a node dies, hangs, lags or is damaged.

A pure state machine: events in, actions out; no clock, no thread, no socket. The time is an argument of every event and
chance is given, so that a run with thousands of nodes can be replayed on a laptop.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Generic

from ezpz.yeet.engines.copy_tree import MAX_PER_SOURCE
from ezpz.yeet.engines.stream.node_state import Action, GiveUp, N, NodePhase, NodeState, RandomSet, Release, Serve
from ezpz.yeet.engines.stream.topology import parent_of

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["Action", "GiveUp", "NodePhase", "NodeState", "Release", "Serve", "TreeScheduler"]

LAGGING = 3.0  # times slower than its parent: a node that cannot keep up
LAG = 2 << 20  # bytes that it must be behind, besides; less is noise
SILENCE = 3.0  # seconds without a report, of four a second, after which a node is treated as one that lags
HUNG = 30.0  # seconds without progress, from whatever source, after which a node is given up
UNPUBLISHED = 300.0  # the same for a node that has all of it; removing a large old version reports nothing
STRIKES = 2  # children in a row that fell silent, after which a node is taken for the cause and serves no others
SPARE = 1  # children that a relay may adopt beyond the width of the tree
ATTEMPTS = 4  # sources that could not reach a node, or lost it, before it is given up
STALE = 0.5  # seconds that a report may be old: who is behind by no more than that can be ahead
AGAIN = 0.25  # seconds after which those who wait for a source look for one again


class TreeScheduler(Generic[N]):
    """Keeps account of one stream from `root` through `nodes`.

    width: children of a node at the start; wire: bytes a second that the root's network carries, 0 for unknown
    An event costs the same however many nodes there are, but for those that are below a node that lost its parent.
    """

    def __init__(self, root: N, nodes: tuple[N, ...], width: int, rng: random.Random, wire: float = 0.0) -> None:
        self.root = root
        self.width = width
        self.wire = wire
        self.rng = rng
        self.members: dict[N, NodeState[N]] = {
            root: NodeState(NodePhase.WHOLE),
            **{node: NodeState() for node in nodes},
        }
        self.adoptions = 0
        self._in = Counter({NodePhase.WHOLE: 1, NodePhase.WAITING: len(nodes)})
        self._waiting: dict[N, None] = {}  # in the order in which they came
        self._parked: dict[N, None] = {}
        self._idle = tuple(
            RandomSet[N]() for _ in range(MAX_PER_SOURCE)
        )  # who can serve another, by how many it serves
        self._next_try = -math.inf
        self._is_complete = False

    def start(self) -> list[Action[N]]:
        """The tree that was planned, of the nodes that are left."""
        nodes = [node for node, member in self.members.items() if member.state is NodePhase.WAITING]
        actions: list[Action[N]] = []
        for index, node in enumerate(nodes):
            above = parent_of(index, self.width)
            actions.append(self._attach(nodes[above] if above >= 0 else self.root, node))
        return actions

    def moved(self, node: N, position: int, size: int, now: float, at: float | None = None) -> list[Action[N]]:
        """A node has received so many chunks, and so many bytes in them; `at`: when, by its own clock."""
        member = self.members[node]
        if member.has_ended:
            return []
        member.moved(position, size, now, now if at is None else at)
        if member.parent is not None:
            self.members[member.parent].strikes = 0
        if member.state is NodePhase.SERVED and self._lags(member, now):
            return self._park(node)
        if self._waiting and now >= self._next_try:
            self._next_try = now + AGAIN
            return self._serve_waiting()
        return []

    def reached(self, node: N, parent: N, now: float) -> None:
        """`parent` has connected to a node: from now on it is expected to make progress."""
        member = self.members[node]
        if member.state is NodePhase.SERVED and member.parent == parent:
            member.due, member.stuck = now, min(member.stuck, now)

    def advanced(self, node: N, now: float) -> None:
        """A node makes progress that lands nothing: it takes over a large file, reads back, or tries out."""
        self.members[node].progressed(now)

    def completed(self) -> None:
        """The root has all of the stream: whoever waits does not wait for the source."""
        self._is_complete = True

    def ticked(self, now: float) -> list[Action[N]]:
        """Some time has passed: does anybody make no progress although there is something for it?"""
        silent, hung = [], []
        for node, member in self.members.items():
            if node == self.root:
                continue
            self._keep_clocks(member, now)
            if member.state is NodePhase.SERVED and self._is_silent(member, now):
                silent.append(node)
            if now - member.stuck > (UNPUBLISHED if member.has_all else HUNG):
                hung.append(node)
        actions: list[Action[N]] = []
        for node in sorted(silent, key=self.depth_of):  # a parent first: those below may be silent because of it
            member = self.members[node]
            if member.state is NodePhase.SERVED and self._is_silent(member, now):
                assert member.parent is not None
                self.members[member.parent].strikes += 1
                if member.parent != self.root:
                    member.avoid.add(member.parent)
                actions += self._park(node)
        for node in hung:
            why = f"it has made no progress for {now - self.members[node].stuck:.0f} s"
            actions += [GiveUp(node, why, hangs=True), *self.gone(node, why)]
        return actions

    def whole(self, node: N) -> list[Action[N]]:
        """A node has all of it, checked, and can serve any part."""
        member = self.members[node]
        if member.has_ended:
            return []
        self._detach(node)
        member.damaged = ()
        self._become(node, NodePhase.WHOLE)
        return self._serve_waiting()

    def done(self, node: N) -> list[Action[N]]:
        """A node shows the new version; it goes on serving others."""
        actions = self.whole(node)
        if self.members[node].state is NodePhase.WHOLE:
            self._become(node, NodePhase.DONE)
        return actions

    def gone(self, node: N, why: str) -> list[Action[N]]:
        """A node is lost, or has failed for good; those that it served go on from where they are."""
        return self._leave(node, NodePhase.FAILED, why)

    def away(self, node: N, why: str) -> list[Action[N]]:
        """The same for a node that may come back."""
        return self._leave(node, NodePhase.AWAY, why)

    def joined(self, node: N) -> list[Action[N]]:
        """A node that was away is back, and has nothing."""
        if self.members[node].state is not NodePhase.AWAY:
            return []
        self.members[node] = NodeState(NodePhase.AWAY)
        self._wait(node)
        return self._serve_waiting()

    def _leave(self, node: N, state: NodePhase, why: str) -> list[Action[N]]:
        member = self.members[node]
        if member.state is NodePhase.FAILED:
            return []
        above = member.parent
        self._detach(node)
        member.why = why
        self._become(node, state)
        released = [Release(above, node)] if above is not None else []
        return [*released, *self._orphan(node, above), *self._serve_waiting()]

    def cut(self, node: N, parent: N, now: float, why: str = "") -> list[Action[N]]:  # noqa: ARG002 - every event has its time
        """A node has lost the connection to its parent, and both are well as far as is known."""
        member = self.members[node]
        if member.state is not NodePhase.SERVED or member.parent != parent:
            return []
        member.cuts += 1
        if parent != self.root:
            member.avoid.add(parent)
        self._wait(node)
        if member.cuts >= ATTEMPTS:
            last = f", the last time because {why}" if why else ""
            return [Release(parent, node), *self._give_up(node, f"it lost its connection {member.cuts} times{last}")]
        return [Release(parent, node), *self._adopt(node, self.members[parent].parent), *self._serve_waiting()]

    def refused(self, node: N, parent: N, why: str) -> list[Action[N]]:
        """`parent` could not connect to a node."""
        member = self.members[node]
        if member.state is not NodePhase.SERVED or member.parent != parent:
            return []
        member.cuts += 1
        member.avoid.add(parent)
        self._wait(node)
        if parent == self.root or member.cuts >= ATTEMPTS:
            return self._give_up(node, why)
        return self._serve_waiting()

    def damaged(self, node: N, chunks: tuple[int, ...]) -> list[Action[N]]:
        """What a node landed of these chunks is not what was sent."""
        member = self.members[node]
        if member.has_ended:
            return []
        member.cuts += 1
        member.damaged = chunks
        self._wait(node)
        if member.cuts >= ATTEMPTS:
            return self._give_up(node, f"what landed was damaged {member.cuts} times")
        return self._serve_waiting()

    @property
    def is_over(self) -> bool:
        """Whether every node has ended, well or badly."""
        return self._in[NodePhase.DONE] + self._in[NodePhase.FAILED] == len(self.members) - 1

    def depth_of(self, node: N) -> int:
        """How many hops a node is from the root."""
        return sum(1 for _ in self._above(node))

    @property
    def depth(self) -> int:
        """The most hops from the root to a node that is served now."""
        served = (node for node, member in self.members.items() if member.state is NodePhase.SERVED)
        return max(map(self.depth_of, served), default=0)

    def _above(self, node: N) -> Iterator[N]:
        parent = self.members[node].parent
        while parent is not None:
            yield parent
            parent = self.members[parent].parent

    def _below(self, node: N) -> Iterator[N]:
        """A node itself, and all that it serves through others."""
        found = [node]
        while found:
            node = found.pop()
            found += self.members[node].children
            yield node

    def _attach(self, parent: N, node: N) -> Serve[N]:
        member = self.members[node]
        member.parent = parent
        member.samples.clear()
        member.due = math.inf
        self.members[parent].children.append(node)
        self._become(node, NodePhase.SERVED)
        self._shelve(parent)
        return Serve(parent, node, member.damaged)

    def _detach(self, node: N) -> None:
        member = self.members[node]
        if member.parent is not None:
            self.members[member.parent].children.remove(node)
            self._shelve(member.parent)
            member.parent = None

    def _become(self, node: N, state: NodePhase) -> None:
        member = self.members[node]
        self._in[member.state] -= 1
        self._in[state] += 1
        member.state = state
        for those, what in ((self._waiting, NodePhase.WAITING), (self._parked, NodePhase.PARKED)):
            those.pop(node, None)
            if state is what:
                those[node] = None
        self._shelve(node)

    def _shelve(self, node: N) -> None:
        """Put a node where it is found when somebody has to be served, unless it cannot; the root is asked last."""
        for bag in self._idle:
            bag.discard(node)
        member = self.members[node]
        able = member.has_all or (member.state is NodePhase.SERVED and not member.damaged and not member.slow)
        if able and node != self.root and self._has_room(node):
            self._idle[len(member.children)].add(node)

    def _lags(self, member: NodeState[N], now: float) -> bool:
        """Whether a node receives much less than its parent has to give."""
        assert member.parent is not None
        above = self.members[member.parent]
        if above.size - member.size < LAG or member.damaged or member.slow:
            return False
        rate, given, share = member.rate(now), above.rate(now), self.wire / len(above.children)
        if above.has_all:
            given = min(given or share, share)
        elif given is not None and share:
            given = min(given, share)
        return rate is not None and given is not None and rate * LAGGING < given

    def _is_silent(self, member: NodeState[N], now: float) -> bool:
        """Whether a node has said nothing for long although its parent has much for it: it hangs, or is cut off."""
        if member.parent is None or member.damaged or member.slow:
            return False
        above = self.members[member.parent]
        since = max(member.due, above.steady)
        return above.size - member.size >= LAG and now - since > SILENCE

    def _keep_clocks(self, member: NodeState[N], now: float) -> None:
        """Start the clocks of a node anew while it can make no progress: there is nothing for it, or nobody."""
        if member.has_all:
            if member.state is NodePhase.DONE or not self._is_complete:
                member.stuck = math.inf
            return
        if member.parent is None:
            member.stuck = math.inf
            return
        ahead = self.members[member.parent].size - member.size
        if ahead < LAG and not math.isinf(member.due):
            member.due = now
        if ahead <= 0 and not (self._is_complete or member.damaged) and not math.isinf(member.stuck):
            member.stuck = now

    def _park(self, node: N) -> list[Action[N]]:
        """Leave a node that cannot keep up for the end; what it served moves to its parent."""
        member = self.members[node]
        above = member.parent
        assert above is not None
        member.slow = True
        member.stuck = math.inf
        self._wait(node)
        released = [Release(node, child) for child in member.children]
        return [Release(above, node), *released, *self._orphan(node, above), *self._serve_waiting()]

    def _wait(self, node: N) -> None:
        self._detach(node)
        self._become(node, NodePhase.PARKED if self.members[node].slow else NodePhase.WAITING)

    def _orphan(self, node: N, above: N | None) -> list[Action[N]]:
        """Hand those that a node served to whoever served it, or to who is less busy."""
        children = tuple(self.members[node].children)
        for child in children:
            self._wait(child)
        return [action for child in children for action in self._adopt(child, above)]

    def _give_up(self, node: N, why: str) -> list[Action[N]]:
        return [GiveUp(node, why), *self.gone(node, why)]

    def _serve_waiting(self) -> list[Action[N]]:
        """Find somebody for every node that waits; the lagging ones only when nobody else is served any more."""
        actions = [action for node in tuple(self._waiting) for action in self._adopt(node)]
        for node in tuple(self._parked):
            if self._has_time():
                actions += self._adopt(node)
        return actions

    def _has_time(self) -> bool:
        """Whether a lagging node may be served now: somebody has all of it, or nobody else is left to wait for."""
        return self._in[NodePhase.WHOLE] + self._in[NodePhase.DONE] > 1 or not self._in[NodePhase.SERVED]

    def _adopt(self, node: N, above: N | None = None) -> list[Action[N]]:
        if self.members[node].state is NodePhase.PARKED and not self._has_time():
            return []
        source = self._source_for(node, above)
        if source is None:
            return []
        self.adoptions += 1
        return [self._attach(source, node)]

    def _source_for(self, node: N, above: N | None) -> N | None:
        """`above` if the plan has room for it there, else the least busy who could; the root when there is no other."""
        member = self.members[node]
        if member.cuts < ATTEMPTS - 1:  # the last one to try is the one who started it
            below = frozenset(self._below(node))
            for avoid in (below | member.avoid, below):
                source = self._pick(node, above, avoid)
                if source is not None:
                    return source
        return self.root if self._has_room(self.root) else None

    def _pick(self, node: N, above: N | None, avoid: frozenset[N]) -> N | None:
        def fits(other: N) -> bool:
            return other not in avoid and self._can_serve(other, node)

        drawn = (bag.draw(fits, self.rng) for bag in self._idle)
        source = next((other for other in drawn if other is not None), None)
        if above is None or not fits(above) or not self._has_room(above):
            return source
        busy = len(self.members[above].children)
        as_planned = busy < self.width or source is None or busy <= len(self.members[source].children)
        return above if as_planned else source

    def _can_serve(self, other: N, node: N) -> bool:
        """Whether `other`, which is not below `node`, has what it wants, or will soon."""
        source, member = self.members[other], self.members[node]
        if source.strikes >= STRIKES:
            return False
        if source.has_all or source.state is not NodePhase.SERVED:
            return source.has_all
        near = source.size + STALE * self.wire >= member.size
        return near and not (source.damaged or source.slow or member.damaged or member.slow)

    def _has_room(self, other: N) -> bool:
        member = self.members[other]
        return len(member.children) < (MAX_PER_SOURCE if member.has_all else self.width + SPARE)
