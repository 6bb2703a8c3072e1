"""The data of the charts on a report's page: small integers, so that thousands of nodes take a megabyte."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ezpz.yeet.model.events import PHASES
from ezpz.yeet.model.results import Outcome
from ezpz.yeet.reporting.progress_state import FINAL_STATES, DisplayState
from ezpz.yeet.reporting.timeline import Moment, Track

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.yeet.model.report import RunReport
    from ezpz.yeet.model.results import NodeResult
    from ezpz.yeet.reporting.timeline import Flow, Timeline

STATES = tuple(DisplayState)
MAX_POINTS = 24  # samples of a node that are drawn
ROOT, NO_NODE = -1, -2
"""Instead of a node's number: this host, whether or not it is a node of the job, and none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One node of a chart.

    Attributes:
        result: Result of the run for the node.
        moments: When it entered which state.
        samples: Times, and the bytes that it had by then.
        parent: Number of the node that served it last, or ROOT, or NO_NODE (also for this host).
        served_by: Name of the host that served it last.
        depth: Hops between this host and the node, 0 for none.
    """

    result: NodeResult
    moments: tuple[Moment, ...]
    samples: tuple[tuple[float, int], ...]
    parent: int
    served_by: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class ChartData:
    """The data of the charts of one run.

    Attributes:
        report: Report of the run.
        timeline: Events of the run.
        rows: Nodes in the order of the job.
        numbers: Numbers of the nodes other than this host, by their canonical and their given names.
        size: Bytes of a complete copy.
        end: Seconds at which the charts end.
    """

    report: RunReport
    timeline: Timeline
    rows: tuple[Row, ...]
    numbers: Mapping[str, int]
    size: int
    end: float

    @property
    def moments(self) -> tuple[Moment, ...]:
        return tuple(moment for row in self.rows for moment in row.moments)

    @property
    def peak(self) -> float:
        """The highest bytes per second, over all nodes."""
        return max((rate for _, rate in self.timeline.received.rates()), default=0.0)

    @property
    def depth(self) -> int:
        return max((row.depth for row in self.rows), default=0)

    @property
    def reassignments(self) -> int:
        return sum(moment.reassigned for moment in self.moments)

    @property
    def deferrals(self) -> int:
        return sum(moment.state is DisplayState.DEFERRED for moment in self.moments)

    @property
    def retries(self) -> int:
        return sum(moment.state is DisplayState.WAITING for moment in self.moments)

    def to_dict(self) -> dict[str, Any]:
        """Return the data of the page: times in milliseconds, received bytes in thousandths of a complete copy."""
        return {
            "end": _ms(self.end),
            "size": self.size,
            "states": [state.value for state in STATES],
            "phases": self._phases(),
            "received": _flow(self.timeline.received),
            "read": _flow(self.timeline.read),
            "local": next((number for number, row in enumerate(self.rows) if row.result.node.is_local), NO_NODE),
            "nodes": [self._node(row) for row in self.rows],
        }

    def _phases(self) -> list[list[Any]]:
        phases = self.timeline.phases
        ends = [*(phase.at for phase in phases), self.end][1:]
        lasted = self.report.phases
        return [
            [phase.name, PHASES.get(phase.name, phase.name), _ms(phase.at),
             _ms(min(end, phase.at + lasted.get(phase.name, self.end)))]
            for phase, end in zip(phases, ends, strict=True)
        ]  # fmt: skip

    def _node(self, row: Row) -> list[Any]:
        result = row.result
        points = _thinned(row.samples)
        received = [number for at, size in points for number in (_ms(at), round(1000 * min(1, size / self.size)))]
        moments = [
            [_ms(moment.at), STATES.index(moment.state), self.numbers.get(moment.via, ROOT if moment.via else NO_NODE),
             int(moment.reassigned), *((moment.why,) if moment.why else ())]
            for moment in row.moments
        ]  # fmt: skip
        failure = result.failure
        why = [failure.code, failure.text_next_to(result.node.given)] if failure else []
        return [result.node.given, result.outcome.value, row.parent, row.depth, result.attempts, moments, received, why]


def chart_data(report: RunReport, timeline: Timeline) -> ChartData:
    """Return the report and the timeline of each node combined."""
    others = [(number, row.node) for number, row in enumerate(report.results) if not row.node.is_local]
    numbers = {node.name: number for number, node in others} | {node.given: number for number, node in others}
    tracks = [timeline.tracks.get(result.node.name) or Track() for result in report.results]
    samples = [_samples(result, track, timeline) for result, track in zip(report.results, tracks, strict=True)]
    size = report.bytes or max((each for own in samples for _, each in own), default=0) or 1
    moments = [_moments(result, track, timeline) for result, track in zip(report.results, tracks, strict=True)]
    served_by = [
        next((moment.via for moment in reversed(own) if moment.via), result.via)
        for own, result in zip(moments, report.results, strict=True)
    ]
    parents = [
        numbers.get(via, ROOT) if via and not result.node.is_local else NO_NODE
        for via, result in zip(served_by, report.results, strict=True)
    ]
    depths = _depths(parents)
    latest = max((own[-1].at for own in moments if own), default=0.0)
    rows = tuple(
        Row(*facts) for facts in zip(report.results, moments, samples, parents, served_by, depths, strict=True)
    )
    return ChartData(report, timeline, rows, numbers, size, max(report.seconds, latest, 1e-3))


def _samples(result: NodeResult, track: Track, timeline: Timeline) -> tuple[tuple[float, int], ...]:
    """Return the bytes that a node had, with times; this host has what it has read."""
    if not result.node.is_local:
        return track.samples
    flow = timeline.read
    return tuple(((number + 1) * flow.width, size) for number, size in enumerate(accumulate(flow.bins)))


def _moments(result: NodeResult, track: Track, timeline: Timeline) -> tuple[Moment, ...]:
    """Return the moments of a node, completed: this host receives by reading, and a node may end without an event."""
    moments = list(track.moments)
    reading = next((phase.at for phase in timeline.phases if phase.name in ("read", "stream")), None)
    if result.node.is_local and reading is not None and not (moments and moments[0].at <= reading):
        moments.insert(0, Moment(reading, DisplayState.RECEIVING))
    if result.outcome is not Outcome.SKIPPED and not (moments and moments[-1].state in FINAL_STATES):
        moments.append(
            Moment(result.seconds, DisplayState.DONE if result.outcome is Outcome.OK else DisplayState.FAILED)
        )
    return tuple(moments)


def _depths(parents: list[int]) -> list[int]:
    """Return the hops between this host and each node, 0 for nodes that were not served.

    `parents` is changed to be a tree: circles are cut.
    """
    depths: list[int | None] = [0 if parent == NO_NODE else None for parent in parents]
    for number in range(len(parents)):
        path: list[int] = []
        on_path: set[int] = set()
        at = number
        while at >= 0 and depths[at] is None and at not in on_path:
            path.append(at)
            on_path.add(at)
            at = parents[at]
        if at in on_path:
            parents[path[-1]] = at = ROOT
        depth = depths[at] or 0 if at >= 0 else 0
        for each in reversed(path):
            depth += 1
            depths[each] = depth
    return [depth or 0 for depth in depths]


def _thinned(samples: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    """Return at most MAX_POINTS of the samples, with the first and the last."""
    if len(samples) <= MAX_POINTS:
        return samples
    step = (len(samples) - 1) / (MAX_POINTS - 1)
    return tuple(samples[round(number * step)] for number in range(MAX_POINTS))


def _flow(flow: Flow) -> dict[str, Any]:
    return {"width": _ms(flow.width), "bins": flow.bins}


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
