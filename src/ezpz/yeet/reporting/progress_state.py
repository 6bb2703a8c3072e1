"""Tally: what a run's events add up to, for whoever shows its progress. Pure: the time is an argument."""

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

WINDOW = 5.0  # seconds over which the rate is taken
SPACING = 0.1  # seconds between the samples it is taken from; thousands of nodes report four times a second each
MEANINGFUL = 0.02  # of a phase must be done before it tells how long the rest takes
TO_NODES = ("send", "stream")
"""The phases in which what counts is what the nodes receive."""


class DisplayState(Enum):
    """What a node is doing. CHECKING: it has received all, and is tried out and published."""

    WAITING = "waiting"
    RECEIVING = "receiving"
    PARKED = "parked"
    CHECKING = "checking"
    DONE = "done"
    FAILED = "failed"


ENDED = (DisplayState.DONE, DisplayState.FAILED)


def node_of(event: Event) -> Node | None:
    """The node that an event is about."""
    return event.result.node if isinstance(event, NodeDone) else getattr(event, "node", None)


def state_after(event: Event) -> DisplayState | None:
    """The state that an event puts its node into, None for an event that leaves it as it is."""
    if isinstance(event, (NodeStarted, NodeConnected)):
        return DisplayState.RECEIVING
    if isinstance(event, NodeRetrying):
        return DisplayState.WAITING
    if isinstance(event, NodeDeferred):
        return DisplayState.PARKED
    if isinstance(event, NodeReceived):
        return DisplayState.CHECKING
    if isinstance(event, NodeDone):
        return DisplayState.DONE if event.result.outcome is Outcome.OK else DisplayState.FAILED
    return None


@dataclass(slots=True)
class _Share:
    """One node's part: its state, the bytes it has received, and how many hops it was from this host when served."""

    node: Node
    state: DisplayState = DisplayState.WAITING
    bytes: int = 0
    depth: int = 0


@dataclass(slots=True)
class ProgressState:
    """Counts of the phase that is under way.

    nodes: how many the run has; size: bytes of the phase (of one copy while sending); read: bytes read on this host
    adopted: how often a node was given another source in the stream
    """

    nodes: int = 0
    phase: str = ""
    size: int = 0
    read: int = 0
    adopted: int = 0
    _shares: dict[str, _Share] = field(default_factory=dict)
    _in: Counter[DisplayState] = field(default_factory=Counter)
    _began: float = 0.0
    _read_before: int = 0
    _moved: int = 0
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def hear(self, event: Event, now: float) -> None:
        """Take an event that happened at `now`, in seconds."""
        if isinstance(event, RunStarted):
            self.nodes = event.nodes
        elif isinstance(event, PhaseStarted):
            self.phase, self.size = event.name, event.total
            self._samples = deque([(now, 0)])
            self._began, self._moved, self._read_before = now, 0, self.read
        elif isinstance(event, Read):
            self.read += event.bytes
            if self.phase not in TO_NODES:
                self._move(event.bytes, now)
        elif isinstance(event, NodeProgress):
            share = self._share(event.node, DisplayState.RECEIVING)
            anew = event.bytes < share.bytes  # the node, or its agent, has begun again
            self._move(event.bytes - (0 if anew else share.bytes), now)
            share.bytes = event.bytes
        else:
            self._change(event)

    def _change(self, event: Event) -> None:
        node, state = node_of(event), state_after(event)
        if node is None or state is None:
            return
        share = self._share(node)
        self._in[share.state] -= 1
        self._in[state] += 1
        share.state = state
        if isinstance(event, NodeStarted):
            share.bytes = 0
        elif isinstance(event, NodeConnected):
            share.depth = event.depth
            self.adopted += event.adopted

    def _share(self, node: Node, state: DisplayState = DisplayState.WAITING) -> _Share:
        """What is known of a node; one that was never heard of is in `state`."""
        share = self._shares.get(node.name)
        if share is None:
            share = self._shares[node.name] = _Share(node, state)
            self._in[state] += 1
        return share

    def _move(self, size: int, now: float) -> None:
        self._moved += size
        samples = self._samples
        if len(samples) > 1 and now - samples[-2][0] < SPACING:
            samples.pop()
        samples.append((now, self._moved))
        while len(samples) > 2 and samples[1][0] < now - WINDOW:
            samples.popleft()

    def _all(self) -> list[_Share]:
        """The nodes that were heard of, in a list of its own: another thread draws what this one counts."""
        return list(self._shares.values())

    @property
    def states(self) -> Counter[DisplayState]:
        """How many nodes are in each state. This host, of which nothing is heard until it has it, reads meanwhile."""
        reading = self._reading
        unheard = max(0, self.nodes - len(self._shares) - reading)
        return self._in + Counter({DisplayState.WAITING: unheard, DisplayState.RECEIVING: reading})

    @property
    def _reading(self) -> bool:
        """Whether the one node that was not heard of is this host, which reads what it sends."""
        return self.phase == "stream" and self.nodes - len(self._shares) == 1 and self.read > self._read_before

    @property
    def done(self) -> int:
        """Nodes that have it."""
        return self._in[DisplayState.DONE]

    @property
    def failed(self) -> int:
        """Nodes that never will in this run."""
        return self._in[DisplayState.FAILED]

    @property
    def moving(self) -> dict[Node, int]:
        """The nodes that are receiving, and how much each has."""
        return {share.node: share.bytes for share in self._all() if share.state is DisplayState.RECEIVING}

    @property
    def depth(self) -> int:
        """The most hops between this host and a node that is receiving; 0 when none is served from a tree."""
        return max((share.depth for share in self._all() if share.state is DisplayState.RECEIVING), default=0)

    @property
    def moved(self) -> int:
        """Bytes that moved in this phase, over all nodes together."""
        return self._moved

    def rate(self, now: float) -> float:
        """Bytes a second that moved lately, over all nodes together."""
        began, before = self._samples[0] if self._samples else (now, 0)
        return (self._moved - before) / max(now - began, 1e-3)

    @property
    def fraction(self) -> float:
        """How much of the phase is done, 0 to 1: by bytes while reading, by bytes on all nodes while sending."""
        if self.phase not in TO_NODES:
            return min(1.0, self._moved / self.size) if self.size else 0.0
        shares = self._all()
        parts = sum(self._part(share) for share in shares)
        if self._reading and self.size:
            parts += min(1.0, (self.read - self._read_before) / self.size)
        return min(1.0, parts / max(1, self.nodes - self.failed))

    def _part(self, share: _Share) -> float:
        """How much of a copy a node has, 0 to 1."""
        if share.state in (DisplayState.DONE, DisplayState.CHECKING):
            return 1.0
        if share.state in (DisplayState.RECEIVING, DisplayState.PARKED) and self.size:
            return min(1.0, share.bytes / self.size)
        return 0.0

    def left(self, now: float) -> float | None:
        """Seconds to the end of the phase, or None when there is no telling.

        At the pace so far while reading. While sending at the rate of late: few slow nodes may be all that is left.
        """
        fraction = self.fraction
        if fraction < MEANINGFUL:
            return None
        if self.phase in TO_NODES and self._moved:
            rate = self.rate(now)
            return self._missing() / rate if rate else None
        return (now - self._began) * (1 - fraction) / fraction

    def _missing(self) -> float:
        """Bytes that the nodes have yet to receive."""
        shares = self._all()
        copies = sum(1 - self._part(share) for share in shares if share.state is not DisplayState.FAILED)
        return self.size * (copies + max(0, self.nodes - len(shares) - self._reading))

    @property
    def slowest(self) -> tuple[Node, int] | None:
        """Of the nodes that are receiving the one that has received least, and its bytes."""
        return min(self.moving.items(), key=lambda item: item[1], default=None)
