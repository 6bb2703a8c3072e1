"""Timeline: what happened on every node and when, for the page of a report. Pure: the time is an argument."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.yeet.model.events import Event, NodeConnected, NodeProgress, NodeRetrying, NodeStarted, PhaseStarted, Read
from ezpz.yeet.reporting.progress_state import DisplayState, node_of, state_after

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = 60  # of the bytes that a node has received; so 4,096 nodes take a few megabytes
SPACING = 0.05  # seconds between a node's samples at first; doubled whenever there are too many
MOMENTS = 48  # of one node; of one that is served again and again, the first and the latest are kept
BINS = 240  # of a flow
BIN = 0.05  # seconds in a bin of a flow at first; doubled whenever the run outgrows them
SPREAD = 1.0  # seconds; over no more than that lies what a node says it has received since it last said so


@dataclass(frozen=True, slots=True)
class Moment:
    """At `at`, in seconds since the run began, a node came into a state.

    via: who serves it from then on; depth: hops from this host, 0 for unknown; adopted: it was given another source
    why: what went wrong, for one that is tried again
    """

    at: float
    state: DisplayState
    via: str = ""
    depth: int = 0
    adopted: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of the run began; total is its bytes, 0 for unknown."""

    at: float
    name: str
    total: int


class Track:
    """What happened to one node: its moments, and samples of the bytes that it had received."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self._times = array("d")
        self._bytes = array("Q")
        self._spacing = SPACING

    def add(self, moment: Moment) -> None:
        if len(self.moments) == MOMENTS:
            del self.moments[1]
        self.moments.append(moment)

    def sample(self, at: float, received: int) -> None:
        """Note what has been received by now. The first and the latest sample are always kept."""
        times, amounts = self._times, self._bytes
        if len(times) > 1 and at - times[-2] < self._spacing:
            times[-1], amounts[-1] = at, received
            return
        if len(times) == SAMPLES:
            del times[1:-1:2], amounts[1:-1:2]
            self._spacing *= 2
        times.append(at)
        amounts.append(received)

    @property
    def samples(self) -> tuple[tuple[float, int], ...]:
        """Pairs of a time, in seconds since the run began, and bytes; at most SAMPLES of them."""
        return tuple(zip(self._times, self._bytes, strict=True))


@dataclass(slots=True)
class Flow:
    """How many bytes moved in each of equal parts of the run, `width` seconds each."""

    width: float = BIN
    bins: list[int] = field(default_factory=list)

    def add(self, since: float, at: float, size: int) -> None:
        """Note bytes that moved evenly between two times, of which the later one is when it was told."""
        while at >= self.width * BINS:
            self.bins = [sum(self.bins[i : i + 2]) for i in range(0, len(self.bins), 2)]
            self.width *= 2
        since = max(since, at - SPREAD)
        last, put = int(at / self.width), 0
        self.bins += [0] * (last + 1 - len(self.bins))
        for index in range(int(since / self.width), last):
            by_then = int(size * ((index + 1) * self.width - since) / (at - since))
            self.bins[index] += by_then - put
            put = by_then
        self.bins[last] += size - put

    def rates(self) -> Iterator[tuple[float, float]]:
        """When each part began, and its bytes a second."""
        return ((index * self.width, size / self.width) for index, size in enumerate(self.bins))


class Timeline:
    """Records a run as it hears it. A node that it never heard of has no track.

    tracks: by the canonical names of the nodes; received: what all nodes received; read: what was read on this host
    """

    def __init__(self) -> None:
        self.tracks: dict[str, Track] = {}
        self.phases: list[Phase] = []
        self.received = Flow()
        self.read = Flow()
        self._began: float | None = None
        self._latest: dict[str, tuple[float, int]] = {}
        self._latest_read = 0.0

    def hear(self, event: Event, now: float) -> None:
        """Take an event that happened at `now`, in seconds; the first one begins the run."""
        if self._began is None:
            self._began = now
        at = max(0.0, now - self._began)
        if isinstance(event, PhaseStarted):
            self.phases.append(Phase(at, event.name, event.total))
        elif isinstance(event, Read):
            self.read.add(min(self._latest_read, at), at, event.bytes)
            self._latest_read = at
        elif isinstance(event, NodeProgress):
            self._receive(event, at)
        else:
            self._change(event, at)

    def _receive(self, event: NodeProgress, at: float) -> None:
        name = event.node.name
        since, before = self._latest.get(name, (at, 0))
        self._latest[name] = at, event.bytes
        self.received.add(min(since, at), at, event.bytes - before if event.bytes >= before else event.bytes)
        self._track(name).sample(at, event.bytes)

    def _change(self, event: Event, at: float) -> None:
        node, state = node_of(event), state_after(event)
        if node is None or state is None:
            return
        via, depth, adopted, why = "", 0, False, ""
        if isinstance(event, NodeStarted):
            self._latest[node.name] = at, 0
            via, adopted = event.via, event.attempt > 1
        elif isinstance(event, NodeConnected):
            self._latest[node.name] = at, self._latest.get(node.name, (at, 0))[1]
            via, depth, adopted = event.via, event.depth, event.adopted
        elif isinstance(event, NodeRetrying):
            why = event.reason
        self._track(node.name).add(Moment(at, state, via, depth, adopted, why))

    def _track(self, name: str) -> Track:
        track = self.tracks.get(name)
        if track is None:
            track = self.tracks[name] = Track()
        return track
