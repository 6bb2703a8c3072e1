"""The state of a run: what every step uses, what has happened so far, and the report of it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.errors import StaleList
from ezpz.runtime.signals import Received
from ezpz.yeet.model.events import NodeDone, PhaseStarted
from ezpz.yeet.model.report import RelocationSummary, RunReport, RunStatus, run_status
from ezpz.yeet.model.results import NodeResult, Outcome
from ezpz.yeet.pipeline.leak_count import FirstCopy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.engines.base import Engine, Payload
    from ezpz.yeet.model.events import Emit, Event, WarningRaised
    from ezpz.yeet.model.plan import Plan, Request
    from ezpz.yeet.model.results import Failure
    from ezpz.yeet.pipeline.local_node import LocalNode
    from ezpz.yeet.pipeline.make_plan import Decision
    from ezpz.yeet.pipeline.preflight import Preflight
    from ezpz.yeet.pipeline.read_source import SourceReader
    from ezpz.yeet.transfer.entry_tee import EntryTee

REFUSALS = ("destination-refused", "destination-not-ours", "destination-busy")
"""Failures that concern the request, and thereby the whole run. Any other failure concerns only its node."""


class RunRecord:
    """Everything that happened, as events, results and phases.

    Args:
        emit: Is called with every event.
    """

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self.started = time.monotonic()
        self.phases: dict[str, float] = {}
        self.results: dict[Node, NodeResult] = {}
        self.first_copy = FirstCopy()
        self._warned: set[WarningRaised] = set()

    @property
    def elapsed(self) -> float:
        """The seconds since the run started."""
        return time.monotonic() - self.started

    def on_event(self, event: Event) -> None:
        """Record the result in an event, if it has one, and emit the event."""
        if isinstance(event, NodeDone):
            self.results[event.result.node] = event.result
            if event.result.outcome is Outcome.OK:
                self.first_copy.record(event.result.node)
        self.emit(event)

    def warn(self, warnings: tuple[WarningRaised, ...]) -> None:
        """Emit every warning once, with everything that is known by then."""
        for warning in warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self.on_event(warning)

    def record_failures(self, failures: Mapping[Node, Failure]) -> None:
        """Record nodes that failed. Raise StaleList if an old list of failed nodes could not be removed.

        Such a list would be taken for the list of this run, whatever the threshold is.
        """
        for node, failure in failures.items():
            if failure.code == StaleList.code:
                raise StaleList(failure.message, hint=failure.hint)
            self.on_event(NodeDone(NodeResult(node, failure.outcome, failure=failure, seconds=self.elapsed)))

    @contextmanager
    def phase(self, name: str, total: int = 0) -> Iterator[None]:
        """Measure a phase. `total` is its number of bytes, or 0."""
        began = time.monotonic()
        self.on_event(PhaseStarted(name, total))
        try:
            yield
        finally:
            self.phases[name] = time.monotonic() - began

    def waiting_nodes(self, plan: Plan) -> tuple[Node, ...]:
        """Return the remote nodes that have no result yet."""
        return tuple(node for node in plan.remote_nodes if node not in self.results)

    def is_local_done(self, plan: Plan) -> bool:
        """Return whether this host has its result, or is no node of the job."""
        return plan.allocation.local is None or plan.allocation.local in self.results

    def can_succeed(self, plan: Plan) -> bool:
        """Return whether copying is worthwhile: the destination was not refused, or enough nodes for the threshold."""
        nodes = plan.allocation.nodes
        failures = [result.failure for result in self.results.values() if result.failure is not None]
        left = len(nodes) - len(failures)
        if plan.threshold is not None:
            return run_status(left, len(nodes), plan.threshold) is not RunStatus.FAILURE
        return left > 0 and not any(failure.code in REFUSALS for failure in failures)


@dataclass(slots=True)
class PartialRun:
    """What the steps of a run have made so far. A run can end before any of them."""

    decision: Decision | None = None
    reader: SourceReader | None = None
    here: LocalNode | None = None
    tee: EntryTee | None = None
    payload: Payload | None = None
    leaks: int | None = None
    failed_list: str = ""
    received: Received = field(default_factory=Received)


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every step of a run uses.

    Attributes:
        id: The identifier of the run.
        request: What the user wants.
        preflight: The source and the nodes.
        environ: The variables of the run.
        engine: How the copy reaches the other nodes.
        cancel: Is canceled when the run is interrupted, and at its end.
        record: What has happened.
        progress: What the steps have made.
    """

    id: str
    request: Request
    preflight: Preflight
    environ: Mapping[str, str]
    engine: Engine
    cancel: CancelToken
    record: RunRecord
    progress: PartialRun

    def record_local(self) -> None:
        """Record the result of this host once it has the copy, if it is a node of the job."""
        here, local = self.progress.here, self.preflight.allocation.local
        if here is not None and local is not None and here.is_deployed and local not in self.record.results:
            seconds = self.record.elapsed
            done = NodeResult(local, Outcome.OK, unchanged=here.is_unchanged, seconds=seconds, **here.published)
            self.record.on_event(NodeDone(done))

    def report(self, plan: Plan) -> RunReport:
        """Return the report of what has happened so far. Nodes without a result are skipped nodes."""
        record, progress = self.record, self.progress
        reader, sent = progress.reader, progress.payload
        return RunReport(
            plan,
            tuple(record.results.get(node) or NodeResult(node, Outcome.SKIPPED) for node in plan.allocation.nodes),
            version=sent.version if sent else "",
            files=sent.files if sent else 0,
            bytes=sent.bytes if sent else 0,
            kind=reader.kind.value if reader else "",
            phases=record.phases,
            seconds=record.elapsed,
            failed_list=progress.failed_list,
            interrupted=progress.received.first,
            relocation=reader.carried if reader and progress.tee and sent else RelocationSummary(),
            leaks=progress.leaks,
        )
