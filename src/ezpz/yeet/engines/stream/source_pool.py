"""The nodes of a stream that can serve others, and the choice of one for a node. Pure: chance is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from ezpz.yeet.engines.copy_tree import MAX_PER_SOURCE
from ezpz.yeet.engines.stream.node_state import N, NodePhase, NodeState, RandomSet

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping

MAX_FAILURES = 4  # connections of a node that failed, after which it is given up
MAX_SILENT_CHILDREN = 2  # silent children in a row after which a node is considered the cause and serves no others
SPARE_CHILDREN = 1  # children that a node may take over beyond the width of the tree
MAX_REPORT_AGE = 0.5  # seconds; a node that is behind by no more than that may in fact be ahead


class SourcePool(Generic[N]):
    """Idle nodes, by how many others they serve.

    Args:
        root: Node that has everything from the start. It is asked last.
        states: All nodes; changed by the scheduler that owns them.
        width: Children of a node in the planned tree.
        wire: Bytes per second that the root's network carries, 0 for unknown.
        rng: Breaks ties.
    """

    def __init__(self, root: N, states: Mapping[N, NodeState[N]], width: int, wire: float, rng: random.Random) -> None:
        self.root = root
        self.states = states
        self.width = width
        self.wire = wire
        self.rng = rng
        self._idle = tuple(RandomSet[N]() for _ in range(MAX_PER_SOURCE))

    def update(self, node: N) -> None:
        """Put a node where `choose` finds it, unless it cannot serve others."""
        for idle in self._idle:
            idle.discard(node)
        state = self.states[node]
        is_able = state.has_all or (state.phase is NodePhase.SERVED and not state.damaged and not state.is_slow)
        if is_able and node != self.root and self._has_room(node):
            self._idle[len(state.children)].add(node)

    def choose(self, node: N, preferred: N | None = None) -> N | None:
        """Return the source for a node, None if there is none now.

        That is `preferred` if it has room in the planned tree, otherwise the least busy node that can serve this one.
        The root serves it if no other node can, and makes the last attempt.
        """
        if self.states[node].failures < MAX_FAILURES - 1:
            descendants = frozenset(self._subtree(node))
            for excluded in (descendants | self.states[node].avoid, descendants):
                source = self._pick(node, preferred, excluded)
                if source is not None:
                    return source
        return self.root if self._has_room(self.root) else None

    def _pick(self, node: N, preferred: N | None, excluded: frozenset[N]) -> N | None:
        def fits(other: N) -> bool:
            return other not in excluded and self._can_serve(other, node)

        drawn = (idle.draw(fits, self.rng) for idle in self._idle)
        source = next((other for other in drawn if other is not None), None)
        if preferred is None or not fits(preferred) or not self._has_room(preferred):
            return source
        busy = len(self.states[preferred].children)
        is_planned = busy < self.width or source is None or busy <= len(self.states[source].children)
        return preferred if is_planned else source

    def _can_serve(self, other: N, node: N) -> bool:
        """Return whether `other`, which is not below `node`, has what the node needs, or will have it soon."""
        source, state = self.states[other], self.states[node]
        if source.silent_children >= MAX_SILENT_CHILDREN:
            return False
        if source.has_all or source.phase is not NodePhase.SERVED:
            return source.has_all
        is_near = source.size + MAX_REPORT_AGE * self.wire >= state.size
        return is_near and not (source.damaged or source.is_slow or state.damaged or state.is_slow)

    def _has_room(self, node: N) -> bool:
        state = self.states[node]
        return len(state.children) < (MAX_PER_SOURCE if state.has_all else self.width + SPARE_CHILDREN)

    def _subtree(self, node: N) -> Iterator[N]:
        """Yield a node and all nodes below it."""
        found = [node]
        while found:
            node = found.pop()
            found += self.states[node].children
            yield node
