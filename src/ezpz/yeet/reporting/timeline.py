"""What happened on every node and when, for the page of a report. Pure: the time is an argument."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.yeet.model.events import Event, NodeConnected, NodeProgress, NodeRetrying, NodeStarted, PhaseStarted, Read
from ezpz.yeet.reporting.progress_state import DisplayState, node_of, state_after

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SAMPLES = 60  # of the bytes that a node has received; 4,096 nodes take a few megabytes
SPACING = 0.05  # seconds between a node's samples at first; doubled when there are too many
MAX_MOMENTS = 48  # of one node; if there are more, the first one and the latest ones are kept
MAX_BINS = 240  # of a flow
BIN_WIDTH = 0.05  # seconds in a bin of a flow at first; doubled when there are too many bins
MAX_SPREAD = 1.0  # seconds over which bytes are distributed that a node reports since its last report


@dataclass(frozen=True, slots=True)
class Moment:
    """A node entered a state.

    Attributes:
        at: Seconds since the start of the run.
        state: The new state.
        via: Name of the host that serves it from then on.
        depth: Hops between this host and the node, 0 if unknown.
        reassigned: Whether it got another source.
        why: What failed, for a node that is tried again; without the name of the node.
    """

    at: float
    state: DisplayState
    via: str = ""
    depth: int = 0
    reassigned: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of the run started `at` seconds after the run; `total` is its bytes, 0 if unknown."""

    at: float
    name: str
    total: int


class Track:
    """Moments of one node, and samples of the bytes that it had received."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self._times = array("d")
        self._bytes = array("Q")
        self._spacing = SPACING

    def add(self, moment: Moment) -> None:
        if len(self.moments) == MAX_MOMENTS:
            del self.moments[1]
        self.moments.append(moment)

    def sample(self, at: float, received: int) -> None:
        """Record the bytes received by now. The first and the latest sample are always kept."""
        times, amounts = self._times, self._bytes
        if len(times) > 1 and at - times[-2] < self._spacing:
            times[-1], amounts[-1] = at, received
            return
        if len(times) == MAX_SAMPLES:
            del times[1:-1:2], amounts[1:-1:2]
            self._spacing *= 2
        times.append(at)
        amounts.append(received)

    @property
    def samples(self) -> tuple[tuple[float, int], ...]:
        """Pairs of a time, in seconds since the start of the run, and bytes; at most `MAX_SAMPLES`."""
        return tuple(zip(self._times, self._bytes, strict=True))


@dataclass(slots=True)
class Flow:
    """Bytes that were copied in consecutive intervals of `width` seconds."""

    width: float = BIN_WIDTH
    bins: list[int] = field(default_factory=list)

    def add(self, since: float, at: float, size: int) -> None:
        """Distribute bytes evenly between two times; the later one is the time of the report."""
        while at >= self.width * MAX_BINS:
            self.bins = [sum(self.bins[i : i + 2]) for i in range(0, len(self.bins), 2)]
            self.width *= 2
        since = max(since, at - MAX_SPREAD)
        last, put = int(at / self.width), 0
        self.bins += [0] * (last + 1 - len(self.bins))
        for index in range(int(since / self.width), last):
            by_then = int(size * ((index + 1) * self.width - since) / (at - since))
            self.bins[index] += by_then - put
            put = by_then
        self.bins[last] += size - put

    def rates(self) -> Iterator[tuple[float, float]]:
        """Return the start of each interval, and its bytes per second."""
        return ((index * self.width, size / self.width) for index, size in enumerate(self.bins))


class Timeline:
    """Record of a run, made of its events. A node without an event has no track.

    Attributes:
        tracks: By the canonical names of the nodes.
        phases: Phases in their order.
        received: Bytes that all nodes received.
        read: Bytes that were read on this host.
    """

    def __init__(self) -> None:
        self.tracks: dict[str, Track] = {}
        self.phases: list[Phase] = []
        self.received = Flow()
        self.read = Flow()
        self._start: float | None = None
        self._latest: dict[str, tuple[float, int]] = {}
        self._latest_read = 0.0

    def add_event(self, event: Event, now: float) -> None:
        """Record an event that happened at `now`, in seconds; the first one starts the run."""
        if self._start is None:
            self._start = now
        at = max(0.0, now - self._start)
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
        via, depth, reassigned, why = "", 0, False, ""
        if isinstance(event, NodeStarted):
            self._latest[node.name] = at, 0
            via, reassigned = event.via, event.attempt > 1
        elif isinstance(event, NodeConnected):
            self._latest[node.name] = at, self._latest.get(node.name, (at, 0))[1]
            via, depth, reassigned = event.via, event.depth, event.reassigned
        elif isinstance(event, NodeRetrying):
            why = event.failure.text_next_to(node.given)
        self._track(node.name).add(Moment(at, state, via, depth, reassigned, why))

    def _track(self, name: str) -> Track:
        track = self.tracks.get(name)
        if track is None:
            track = self.tracks[name] = Track()
        return track
