"""The progress of a run, computed from its events. Pure: the time is an argument."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from ezpz.yeet.model.events import (
    Event,
    NodeConnected,
    NodeDeferred,
    NodeDone,
    NodeProgress,
    NodeReceived,
    NodeRetrying,
    NodeStarted,
    PhaseStarted,
    Read,
    RunStarted,
)
from ezpz.yeet.model.results import Outcome

if TYPE_CHECKING:
    from ezpz.cluster.allocation import Node

WINDOW = 5.0  # seconds over which the rate is measured
SPACING = 0.1  # seconds between the samples of the rate; thousands of nodes report four times per second each
MIN_FRACTION = 0.02  # of a phase must be done before the rest can be estimated
TO_NODES = ("send", "stream")
"""The phases whose progress is what the nodes receive."""


class DisplayState(Enum):
    """State of a node. CHECKING: it has received everything; the smoke test and publishing follow."""

    WAITING = "waiting"
    RECEIVING = "receiving"
    DEFERRED = "parked"
    CHECKING = "checking"
    DONE = "done"
    FAILED = "failed"


FINAL_STATES = (DisplayState.DONE, DisplayState.FAILED)


def node_of(event: Event) -> Node | None:
    """Return the node that an event is about, None if it is about no single one."""
    return event.result.node if isinstance(event, NodeDone) else getattr(event, "node", None)


def state_after(event: Event) -> DisplayState | None:
    """Return the state that an event puts its node into, None if it does not change it."""
    if isinstance(event, (NodeStarted, NodeConnected)):
        return DisplayState.RECEIVING
    if isinstance(event, NodeRetrying):
        return DisplayState.WAITING
    if isinstance(event, NodeDeferred):
        return DisplayState.DEFERRED
    if isinstance(event, NodeReceived):
        return DisplayState.CHECKING
    if isinstance(event, NodeDone):
        return DisplayState.DONE if event.result.outcome is Outcome.OK else DisplayState.FAILED
    return None


@dataclass(slots=True)
class _NodeProgress:
    """Progress of one node: its state, bytes received, and hops between this host and it when it was connected."""

    node: Node
    state: DisplayState = DisplayState.WAITING
    bytes: int = 0
    depth: int = 0


@dataclass(slots=True)
class ProgressState:
    """Counts of the current phase.

    Attributes:
        nodes: Nodes of the run.
        phase: Name of the phase.
        size: Bytes of the phase; of one copy while sending.
        read: Bytes read on this host.
        reassigned: How often a node got another source in the stream.
    """

    nodes: int = 0
    phase: str = ""
    size: int = 0
    read: int = 0
    reassigned: int = 0
    _nodes: dict[str, _NodeProgress] = field(default_factory=dict)
    _counts: Counter[DisplayState] = field(default_factory=Counter)
    _phase_start: float = 0.0
    _read_before: int = 0
    _moved: int = 0
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def add_event(self, event: Event, now: float) -> None:
        """Update the counts by an event that happened at `now`, in seconds."""
        if isinstance(event, RunStarted):
            self.nodes = event.nodes
        elif isinstance(event, PhaseStarted):
            self.phase, self.size = event.name, event.total
            self._samples = deque([(now, 0)])
            self._phase_start, self._moved, self._read_before = now, 0, self.read
        elif isinstance(event, Read):
            self.read += event.bytes
            if self.phase not in TO_NODES:
                self._add_bytes(event.bytes, now)
        elif isinstance(event, NodeProgress):
            found = self._progress_of(event.node, DisplayState.RECEIVING)
            is_restarted = event.bytes < found.bytes  # the node, or its agent
            self._add_bytes(event.bytes - (0 if is_restarted else found.bytes), now)
            found.bytes = event.bytes
        else:
            self._change(event)

    def _change(self, event: Event) -> None:
        node, state = node_of(event), state_after(event)
        if node is None or state is None:
            return
        found = self._progress_of(node)
        self._counts[found.state] -= 1
        self._counts[state] += 1
        found.state = state
        if isinstance(event, NodeStarted):
            found.bytes = 0
        elif isinstance(event, NodeConnected):
            found.depth = event.depth
            self.reassigned += event.reassigned

    def _progress_of(self, node: Node, state: DisplayState = DisplayState.WAITING) -> _NodeProgress:
        """Return the progress of a node; a node without an event so far is in `state`."""
        found = self._nodes.get(node.name)
        if found is None:
            found = self._nodes[node.name] = _NodeProgress(node, state)
            self._counts[state] += 1
        return found

    def _add_bytes(self, size: int, now: float) -> None:
        self._moved += size
        samples = self._samples
        if len(samples) > 1 and now - samples[-2][0] < SPACING:
            samples.pop()
        samples.append((now, self._moved))
        while len(samples) > 2 and samples[1][0] < now - WINDOW:
            samples.popleft()

    def _all(self) -> list[_NodeProgress]:
        """Return the nodes that had an event, as a copy: another thread reads them."""
        return list(self._nodes.values())

    @property
    def states(self) -> Counter[DisplayState]:
        """How many nodes are in each state. This host has no event while it reads, and counts as receiving."""
        reading = self._reading
        unknown = max(0, self.nodes - len(self._nodes) - reading)
        return self._counts + Counter({DisplayState.WAITING: unknown, DisplayState.RECEIVING: reading})

    @property
    def _reading(self) -> bool:
        """Whether the only node without an event is this host, which reads what it sends."""
        return self.phase == "stream" and self.nodes - len(self._nodes) == 1 and self.read > self._read_before

    @property
    def done(self) -> int:
        """Nodes that have the copy."""
        return self._counts[DisplayState.DONE]

    @property
    def failed(self) -> int:
        """Nodes that will not get it in this run."""
        return self._counts[DisplayState.FAILED]

    @property
    def moving(self) -> dict[Node, int]:
        """The nodes that are receiving, and the bytes that each has."""
        return {each.node: each.bytes for each in self._all() if each.state is DisplayState.RECEIVING}

    @property
    def depth(self) -> int:
        """The most hops between this host and a node that is receiving; 0 without a tree."""
        return max((each.depth for each in self._all() if each.state is DisplayState.RECEIVING), default=0)

    @property
    def moved(self) -> int:
        """Bytes that were copied in this phase, over all nodes."""
        return self._moved

    def rate(self, now: float) -> float:
        """Return the recent bytes per second, over all nodes."""
        since, before = self._samples[0] if self._samples else (now, 0)
        return (self._moved - before) / max(now - since, 1e-3)

    @property
    def fraction(self) -> float:
        """The fraction of the phase that is done: of the bytes read, or of the bytes on all nodes while sending."""
        if self.phase not in TO_NODES:
            return min(1.0, self._moved / self.size) if self.size else 0.0
        parts = sum(map(self._part, self._all()))
        if self._reading and self.size:
            parts += min(1.0, (self.read - self._read_before) / self.size)
        return min(1.0, parts / max(1, self.nodes - self.failed))

    def _part(self, progress: _NodeProgress) -> float:
        """Return the fraction of a copy that a node has."""
        if progress.state in (DisplayState.DONE, DisplayState.CHECKING):
            return 1.0
        if progress.state in (DisplayState.RECEIVING, DisplayState.DEFERRED) and self.size:
            return min(1.0, progress.bytes / self.size)
        return 0.0

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds to the end of the phase, None if unknown.

        The estimate uses the average rate while reading. While sending it uses the recent rate, since only a few slow
        nodes may be left.
        """
        fraction = self.fraction
        if fraction < MIN_FRACTION:
            return None
        if self.phase in TO_NODES and self._moved:
            rate = self.rate(now)
            return self._missing() / rate if rate else None
        return (now - self._phase_start) * (1 - fraction) / fraction

    def _missing(self) -> float:
        """Return the bytes that the nodes have yet to receive."""
        nodes = self._all()
        copies = sum(1 - self._part(each) for each in nodes if each.state is not DisplayState.FAILED)
        return self.size * (copies + max(0, self.nodes - len(nodes) - self._reading))

    @property
    def slowest(self) -> tuple[Node, int] | None:
        """The receiving node that has received least, and its bytes."""
        return min(self.moving.items(), key=lambda item: item[1], default=None)
