"""Which node sends to which while the stream runs, and what to do when one dies, hangs, lags, or receives damaged data.

A pure state machine: events in, actions out; no clock, no thread, no socket. The time is an argument of events, and
chance is given. A run with thousands of nodes can be replayed on a laptop.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Generic

from ezpz.yeet.engines.stream.node_state import Abandon, Action, Connect, Disconnect, N, NodePhase, NodeState
from ezpz.yeet.engines.stream.progress_watch import ProgressWatch
from ezpz.yeet.engines.stream.source_pool import MAX_FAILURES, SourcePool
from ezpz.yeet.engines.stream.topology import parent_of

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

RETRY_INTERVAL = 0.25  # seconds after which a source is searched again for the nodes that wait for one


class TreeScheduler(Generic[N]):
    """The state of one stream from `root` through `nodes`.

    The cost of an event does not depend on the number of nodes, except for those below a node that lost its parent.

    Args:
        root: Node that reads the source.
        nodes: Nodes that receive it.
        width: Children of a node at the start.
        rng: Breaks ties.
        wire: Bytes per second that the root's network carries, 0 for unknown.
    """

    def __init__(self, root: N, nodes: tuple[N, ...], width: int, rng: random.Random, wire: float = 0.0) -> None:
        self.root = root
        self.width = width
        self.states: dict[N, NodeState[N]] = {
            root: NodeState(NodePhase.RECEIVED),
            **{node: NodeState() for node in nodes},
        }
        self.reassignments = 0
        self._watch = ProgressWatch(self.states, wire)
        self._sources = SourcePool(root, self.states, width, wire, rng)
        self._counts = Counter({NodePhase.RECEIVED: 1, NodePhase.WAITING: len(nodes)})
        self._waiting: dict[N, None] = {}  # in the order of their arrival
        self._deferred: dict[N, None] = {}
        self._next_try = -math.inf

    def start(self) -> list[Action[N]]:
        """Connect the planned tree of the nodes that are left."""
        nodes = [node for node, state in self.states.items() if state.phase is NodePhase.WAITING]
        actions: list[Action[N]] = []
        for index, node in enumerate(nodes):
            parent = parent_of(index, self.width)
            actions.append(self._attach(nodes[parent] if parent >= 0 else self.root, node))
        return actions

    # Progress

    def on_progress(
        self, node: N, position: int, size: int, now: float, reported_at: float | None = None
    ) -> list[Action[N]]:
        """Handle a report of progress.

        Args:
            node: Node that reports.
            position: Chunks that it has received without a gap.
            size: Bytes of these chunks.
            now: Time at which the report arrived.
            reported_at: Time of the report by the node's own clock.
        """
        state = self.states[node]
        if state.has_ended:
            return []
        state.record_report(position, size, now, now if reported_at is None else reported_at)
        if state.parent is not None:
            self.states[state.parent].silent_children = 0
            if self._watch.lags(node, now):
                return self._defer(node, state.parent)
        if self._waiting and now >= self._next_try:
            self._next_try = now + RETRY_INTERVAL
            return self._serve_waiting()
        return []

    def on_connected(self, node: N, parent: N, now: float) -> None:
        """Expect progress from now on: `parent` has connected to a node."""
        state = self.states[node]
        if state.parent == parent:
            state.report_due_since, state.idle_since = now, min(state.idle_since, now)

    def on_activity(self, node: N, now: float) -> None:
        """Record progress that receives nothing: a node reuses a large file, verifies, or runs the smoke test."""
        self.states[node].record_activity(now)

    def on_source_read(self) -> None:
        """Record that the root has the complete stream, so that no node waits for the source any more."""
        self._watch.is_source_read = True

    def on_tick(self, now: float) -> list[Action[N]]:
        """Handle nodes that make no progress although data is ready for them; call this once per second."""
        nodes = [node for node in self.states if node != self.root]
        for node in nodes:
            self._watch.reset_clocks(node, now)
        silent = [node for node in nodes if self._watch.is_silent(node, now)]
        hung = [node for node in nodes if self._watch.hangs(node, now)]
        actions: list[Action[N]] = []
        for node in sorted(silent, key=self.depth_of):  # parents first: nodes below may be silent because of them
            parent = self.states[node].parent
            if parent is not None and self._watch.is_silent(node, now):
                self.states[parent].silent_children += 1
                if parent != self.root:
                    self.states[node].avoid.add(parent)
                actions += self._defer(node, parent)
        for node in hung:
            reason = f"it has made no progress for {now - self.states[node].idle_since:.0f} s"
            actions += [Abandon(node, reason, hangs=True), *self.on_failed(node, reason)]
        return actions

    # Ends

    def on_received(self, node: N) -> list[Action[N]]:
        """Handle a node that has everything, checked: it can send any chunk to others."""
        state = self.states[node]
        if state.has_ended:
            return []
        self._detach(node)
        state.damaged = ()
        self._set_phase(node, NodePhase.RECEIVED)
        return self._serve_waiting()

    def on_published(self, node: N) -> list[Action[N]]:
        """Handle a node that has published the new version; it continues to serve others."""
        actions = self.on_received(node)
        if self.states[node].phase is NodePhase.RECEIVED:
            self._set_phase(node, NodePhase.DONE)
        return actions

    def on_failed(self, node: N, reason: str) -> list[Action[N]]:
        """Handle a node that has failed for good; its children continue from where they are."""
        return self._leave(node, NodePhase.FAILED, reason)

    def on_lost(self, node: N, reason: str) -> list[Action[N]]:
        """Handle a node that is lost but may come back; its children continue from where they are."""
        return self._leave(node, NodePhase.LOST, reason)

    def on_joined(self, node: N) -> list[Action[N]]:
        """Handle a node that was lost and is back, with nothing."""
        if self.states[node].phase is not NodePhase.LOST:
            return []
        self.states[node] = NodeState(NodePhase.LOST)
        self._wait(node)
        return self._serve_waiting()

    def _leave(self, node: N, phase: NodePhase, reason: str) -> list[Action[N]]:
        state = self.states[node]
        if state.phase is NodePhase.FAILED:
            return []
        parent = state.parent
        self._detach(node)
        state.reason = reason
        self._set_phase(node, phase)
        disconnected = [Disconnect(parent, node)] if parent is not None else []
        return [*disconnected, *self._reassign_children(node, parent), *self._serve_waiting()]

    # Connections that fail

    def on_disconnect(self, node: N, parent: N, reason: str = "") -> list[Action[N]]:
        """Handle a connection that broke while both of its ends seem to be well."""
        state = self.states[node]
        if state.parent != parent:
            return []
        state.failures += 1
        if parent != self.root:
            state.avoid.add(parent)
        self._wait(node)
        if state.failures >= MAX_FAILURES:
            last = f", the last time because {reason}" if reason else ""
            text = f"it lost its connection {state.failures} times{last}"
            return [Disconnect(parent, node), *self._give_up(node, text)]
        preferred = self.states[parent].parent
        return [Disconnect(parent, node), *self._assign(node, preferred), *self._serve_waiting()]

    def on_refused(self, node: N, parent: N, reason: str) -> list[Action[N]]:
        """Handle a parent that could not connect to a node."""
        state = self.states[node]
        if state.parent != parent:
            return []
        state.failures += 1
        state.avoid.add(parent)
        self._wait(node)
        if parent == self.root or state.failures >= MAX_FAILURES:
            return self._give_up(node, reason)
        return self._serve_waiting()

    def on_damaged(self, node: N, chunks: tuple[int, ...]) -> list[Action[N]]:
        """Handle a node whose disk does not hold what these chunks contained."""
        state = self.states[node]
        if state.has_ended:
            return []
        state.failures += 1
        state.damaged = chunks
        self._wait(node)
        if state.failures >= MAX_FAILURES:
            return self._give_up(node, f"what landed was damaged {state.failures} times")
        return self._serve_waiting()

    # State

    @property
    def is_over(self) -> bool:
        """Whether every node has ended, successfully or not."""
        return self._counts[NodePhase.DONE] + self._counts[NodePhase.FAILED] == len(self.states) - 1

    def depth_of(self, node: N) -> int:
        """Return the hops between the root and a node."""
        return sum(1 for _ in self._ancestors(node))

    @property
    def depth(self) -> int:
        """The most hops between the root and a node that is served now."""
        served = (node for node, state in self.states.items() if state.phase is NodePhase.SERVED)
        return max(map(self.depth_of, served), default=0)

    def _ancestors(self, node: N) -> Iterator[N]:
        parent = self.states[node].parent
        while parent is not None:
            yield parent
            parent = self.states[parent].parent

    # Changes of the tree

    def _attach(self, parent: N, node: N) -> Connect[N]:
        state = self.states[node]
        state.parent = parent
        state.samples.clear()
        state.report_due_since = math.inf
        self.states[parent].children.append(node)
        self._set_phase(node, NodePhase.SERVED)
        self._sources.update(parent)
        return Connect(parent, node, state.damaged)

    def _detach(self, node: N) -> None:
        state = self.states[node]
        if state.parent is not None:
            self.states[state.parent].children.remove(node)
            self._sources.update(state.parent)
            state.parent = None

    def _set_phase(self, node: N, phase: NodePhase) -> None:
        state = self.states[node]
        self._counts[state.phase] -= 1
        self._counts[phase] += 1
        state.phase = phase
        for nodes, kind in ((self._waiting, NodePhase.WAITING), (self._deferred, NodePhase.DEFERRED)):
            nodes.pop(node, None)
            if phase is kind:
                nodes[node] = None
        self._sources.update(node)

    def _wait(self, node: N) -> None:
        self._detach(node)
        self._set_phase(node, NodePhase.DEFERRED if self.states[node].is_slow else NodePhase.WAITING)

    def _defer(self, node: N, parent: N) -> list[Action[N]]:
        """Serve a node that cannot keep up at the end; its children move to its parent."""
        state = self.states[node]
        state.is_slow = True
        state.idle_since = math.inf
        self._wait(node)
        disconnected = [Disconnect(node, child) for child in state.children]
        return [
            Disconnect(parent, node), *disconnected, *self._reassign_children(node, parent), *self._serve_waiting(),
        ]  # fmt: skip

    def _give_up(self, node: N, reason: str) -> list[Action[N]]:
        return [Abandon(node, reason), *self.on_failed(node, reason)]

    def _reassign_children(self, node: N, parent: N | None) -> list[Action[N]]:
        """Move the children of a node to its parent, or to a node that is less busy."""
        children = tuple(self.states[node].children)
        for child in children:
            self._wait(child)
        return [action for child in children for action in self._assign(child, parent)]

    def _serve_waiting(self) -> list[Action[N]]:
        """Assign a source to every waiting node, and to slow nodes only when no other node is served any more."""
        actions = [action for node in tuple(self._waiting) for action in self._assign(node)]
        for node in tuple(self._deferred):
            if self._may_serve_slow():
                actions += self._assign(node)
        return actions

    def _may_serve_slow(self) -> bool:
        """Return whether another node has everything, or no other node is left to wait for."""
        complete = self._counts[NodePhase.RECEIVED] + self._counts[NodePhase.DONE]
        return complete > 1 or not self._counts[NodePhase.SERVED]

    def _assign(self, node: N, preferred: N | None = None) -> list[Action[N]]:
        if self.states[node].phase is NodePhase.DEFERRED and not self._may_serve_slow():
            return []
        source = self._sources.choose(node, preferred)
        if source is None:
            return []
        self.reassignments += 1
        return [self._attach(source, node)]
