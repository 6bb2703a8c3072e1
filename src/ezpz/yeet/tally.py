"""Tally: what a run's events add up to, for whoever shows its progress. Pure: the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.yeet.events import Event, NodeDone, NodeMoved, NodeRetrying, NodeStarted, PhaseStarted, Read, RunStarted
from ezpz.yeet.report import Outcome

if TYPE_CHECKING:
    from ezpz.cluster.model import Node

WINDOW = 5.0  # seconds over which the rate is taken
MEANINGFUL = 0.02  # of a phase must be done before it tells how long the rest takes


@dataclass(slots=True)
class Tally:
    """Counts of the phase that is under way.

    nodes: how many the run has; size: bytes of the phase (of one copy while sending); done, failed: nodes
    """

    nodes: int = 0
    phase: str = ""
    size: int = 0
    done: int = 0
    failed: int = 0
    read: int = 0
    moving: dict[Node, int] = field(default_factory=dict)
    _began: float = 0.0
    _moved: int = 0
    _samples: list[tuple[float, int]] = field(default_factory=list)

    def hear(self, event: Event, now: float) -> None:
        """Take an event that happened at `now`, in seconds."""
        if isinstance(event, RunStarted):
            self.nodes = event.nodes
        elif isinstance(event, PhaseStarted):
            self.phase, self.size = event.name, event.total
            self._samples = [(now, 0)]
            self._began, self._moved = now, 0
        elif isinstance(event, Read):
            self.read += event.bytes
            self._move(event.bytes, now)
        elif isinstance(event, NodeStarted):
            self.moving[event.node] = 0
        elif isinstance(event, NodeMoved):
            self._move(max(0, event.bytes - self.moving.get(event.node, 0)), now)
            self.moving[event.node] = event.bytes
        elif isinstance(event, NodeRetrying):
            self.moving.pop(event.node, None)
        elif isinstance(event, NodeDone):
            self._finish(event)

    def _finish(self, event: NodeDone) -> None:
        self.moving.pop(event.result.node, None)
        if event.result.outcome is Outcome.OK:
            self.done += 1
        else:
            self.failed += 1

    def _move(self, size: int, now: float) -> None:
        self._moved += size
        self._samples.append((now, self._moved))
        while len(self._samples) > 2 and self._samples[1][0] < now - WINDOW:
            self._samples.pop(0)

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
        if self.phase == "send":
            waiting = max(1, self.nodes - self.failed)
            under_way = sum(min(1.0, moved / self.size) for moved in list(self.moving.values())) if self.size else 0.0
            return min(1.0, (self.done + under_way) / waiting)
        return min(1.0, self._moved / self.size) if self.size else 0.0

    def left(self, now: float) -> float | None:
        """Seconds to the end of the phase at its pace so far, or None when there is no telling yet."""
        fraction = self.fraction
        if fraction < MEANINGFUL:
            return None
        return (now - self._began) * (1 - fraction) / fraction

    @property
    def slowest(self) -> tuple[Node, int] | None:
        """Of the nodes under way the one that has received least, and its bytes."""
        return min(list(self.moving.items()), key=lambda item: item[1]) if self.moving else None
