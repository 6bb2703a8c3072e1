"""Supervise: checks, attempts, restarts: the small loop that drives the decisions of `restarts.py`."""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ezpz import errors
from ezpz.cluster.hostnames import fold
from ezpz.errors import (
    ChecksFailed,
    CommandNotFound,
    EzpzError,
    IdleTimeout,
    Interrupted,
    NodeLost,
    NotEnoughNodes,
    ToolMissing,
    UsageError,
)
from ezpz.launch.execute import restart_policy
from ezpz.launch.execute.attempt import Attempt, Record
from ezpz.launch.execute.node_checks import Findings, judge, table
from ezpz.launch.execute.options import SupervisionOptions, asked_for, bounds
from ezpz.launch.execute.restart_policy import Action, RestartState, StartAttempt, StopLaunch
from ezpz.launch.execute.run import SPARES
from ezpz.launch.output.attempt_log import Journal
from ezpz.launch.output.pty import with_colour
from ezpz.remote.health_check import check_health
from ezpz.runtime.signals import NOTICED, collected_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.launch.plan.plan import LaunchPlan
    from ezpz.remote.health_check import ReplyOrError

LOOKING = 2.0  # seconds that a node may take, once it is reached, to say that it is there
TABLE = "the table above says what each of the others failed"
MARK = "EZPZ_LAUNCH_ID"  # in the environment of the ranks: what is left of a run can be told from everything else

_ERRORS = {
    restart_policy.NO_SPARES: errors.NoSpares,
    restart_policy.NO_PROGRESS: errors.NoProgress,
    restart_policy.EXHAUSTED: errors.RestartsExhausted,
    restart_policy.WALLTIME: errors.Walltime,
}


@dataclass(frozen=True, slots=True)
class LaunchOutcome:
    """How it all ended: one of `restarts.REASONS`, in words, the exit status, every attempt; `error` tells users."""

    reason: str
    why: str
    status: int
    attempts: tuple[Record, ...]
    left_out: tuple[str, ...] = ()
    error: EzpzError | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a part of a JSON document."""
        return {
            "outcome": {"reason": self.reason, "why": self.why},
            "exit_code": self.error.exit_code if self.error else self.status,
            "left_out": list(self.left_out),
            "attempts": [attempt.to_dict() for attempt in self.attempts],
        }


@dataclass(frozen=True)
class SupervisorDependencies:
    """The ports. `replan` plans the same command for other nodes; `tell` takes lines for the user."""

    replan: Callable[[Allocation], LaunchPlan]
    environ: Mapping[str, str]
    tell: Callable[[str], None]
    stdout: int | None = None
    consult: Callable[..., dict[str, ReplyOrError]] = check_health
    back_off: float = 1.0  # a factor


class Supervisor:
    """One run of `ezpz launch`, from the checks to its outcome."""

    def __init__(
        self, care: SupervisionOptions, allocation: Allocation, planned: LaunchPlan, world: SupervisorDependencies
    ) -> None:
        """Allocation: all nodes that may run ranks; `planned` is made for them."""
        self.care = care
        self.allocation = allocation
        self.planned = planned
        self.world = world
        self.records: list[Record] = []
        self.left_out: tuple[str, ...] = ()
        self.nodes = {node.name: node for node in allocation.nodes}

    def run(self) -> LaunchOutcome:
        """All of it, in the main thread. Raises ChecksFailed, Interrupted, and what planning and starting raise."""
        with collected_signals(NOTICED) as self.between:  # those that come while no attempt runs, and nobody is asked
            return self._run()

    def _run(self) -> LaunchOutcome:
        policy = bounds(self.care, self.planned)
        self.transport = self.planned.started_by.transport(self.world.environ)
        journal = Journal(self.care.log_dir) if self.care.log_dir is not None else None
        whatever = not asked_for(self.planned)
        fit = self._checked(1 if whatever else policy.fewest)
        policy = replace(policy, fewest=len(fit), most=len(fit)) if whatever else policy
        state, action = restart_policy.begin(fit, policy)
        done: Action = action
        while isinstance(done, StartAttempt):
            state, done = self._attempt(state, done, journal)
        outcome = self._outcome(done)
        if journal:
            journal.summarize([f"outcome: {outcome.reason}: {outcome.why}", ""])
            if journal.complaint:
                self.world.tell(journal.complaint)
        return outcome

    # Checks

    def _checked(self, enough: int) -> tuple[str, ...]:
        """The nodes that pass the checks, if checks were asked for. Raises ChecksFailed."""
        names = tuple(self.nodes)
        if self.care.check is None:
            return names
        wanted = self.care.check
        heard = self.world.consult(
            self.allocation.nodes, wanted.to_request(), transport=self.transport, within=2 * wanted.timeout
        )
        findings = judge(heard)
        for line in (*table(findings, len(names)), *findings.remarks):
            self.world.tell(line)
        self.left_out = findings.bad
        fit = tuple(name for name in names if name not in findings.bad)
        if len(fit) < enough:
            raise _too_few(findings, len(fit), enough)
        if findings.bad:
            self.world.tell(f"left out: {fold(findings.bad)}; {len(fit)} of {len(names)} nodes remain")
        return fit

    # Attempts

    def _attempt(
        self, state: RestartState, start: StartAttempt, journal: Journal | None
    ) -> tuple[RestartState, Action]:
        """Wait, start, watch, find the cause, decide."""
        if start.attempt > 1:
            self.world.tell(f"attempt {start.attempt} in {start.after:g} s on {fold(start.nodes)}: {start.why}")
        number = self._came(start.after * self.world.back_off)
        if number:
            return restart_policy.interrupted(state, number)
        nodes = tuple(self.nodes[name] for name in start.nodes)
        try:
            planned = self._planned(replace(self.allocation, nodes=nodes))
        except (NotEnoughNodes, UsageError) as e:
            if start.attempt == 1 and not self.left_out:
                raise
            if start.attempt == 1:
                raise ChecksFailed(
                    f"{len(nodes)} of {len(self.nodes)} nodes passed the checks, which is not enough: {e.message}",
                    hint=TABLE,
                ) from e
            return state, StopLaunch(restart_policy.NO_SPARES, f"{len(nodes)} nodes are too few: {e.message}")
        number = self._came(0.0)  # planning may have taken a while
        if number:
            return restart_policy.interrupted(state, number)
        with journal.attempt() if journal else contextlib.nullcontext() as log:
            attempt = Attempt(planned, self.care.watching, start.attempt, log)
            record = attempt.run(environ=self._environ(start), stdout=self.world.stdout)
        event = self._event(record, state)
        self._keep(replace(record, lost=event.lost), journal)
        if isinstance(record.fault, CommandNotFound) and set(record.lacking) in (set(), set(start.nodes)):
            return state, StopLaunch(restart_policy.FAILED, "no node is known to have the command")
        return restart_policy.ended(state, event)

    def _came(self, seconds: float) -> int:
        """Wait so long; the number of a signal that came meanwhile, or before, else 0."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            for number in self.between.within(max(0.0, left)):
                return number
            if left <= 0:
                return 0

    def _planned(self, allocation: Allocation) -> LaunchPlan:
        """The plan for these nodes: the one that was shown, if it is for them."""
        shown = self.planned.job.allocation.nodes
        return self.planned if allocation.nodes == shown else self.world.replan(allocation)

    def _environ(self, start: StartAttempt) -> Mapping[str, str]:
        """The environment of the launcher, which the scheduler may want to be told that an attempt failed before."""
        system = self.planned.job.system
        again = system.again if system is not None and start.attempt > 1 else ()
        return {**self.world.environ, **dict(again)}

    def _keep(self, record: Record, journal: Journal | None) -> None:
        self.records.append(record)
        if record.complaint:
            self.world.tell(record.complaint)
        if journal:
            journal.summarize(record.to_lines())
        if record.ended.status and record.why and (self.care.restarts or not record.fault):
            self.world.tell(f"attempt {record.number}: {record.why}")
        if record.lost:
            self.world.tell(f"attempt {record.number}: lost {fold(record.lost)}")

    def _event(self, record: Record, state: RestartState) -> restart_policy.AttemptEnd:
        """What the attempt means. After a failure the nodes are asked whether they are still there."""
        finding = record.cause.finding
        named = record.lacking or ((finding.node,) if finding and finding.node else ())
        event = restart_policy.AttemptEnd(
            record.ended.status,
            record.progressed,
            culprits=named,
            lost=named if finding and finding.is_node and not record.lacking else (),
            signals=record.ended.signals,
            time_over=record.cause.time_over,
        )
        if event.status == 0 or event.signals or event.time_over:
            return event
        try:
            if state.policy.restarts and state.attempt <= state.policy.restarts:
                lost = (*event.lost, *self._lost((*state.active, *state.spares)))
                return replace(event, lost=tuple(dict.fromkeys(lost)))
            if record.ended.idle or (finding and finding.is_node):
                self._lost(state.active)  # ends what the launcher may have left there
        except Interrupted as e:
            return replace(event, signals=(e.signal,))
        return event

    def _lost(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which of these nodes do not answer; on those that do, whatever is left of the run is ended."""
        nodes: tuple[Node, ...] = tuple(self.nodes[name] for name in names)
        request = {"seconds": LOOKING, "sweep": f"{MARK}={self.world.environ[MARK]}"}
        heard = self.world.consult(nodes, request, transport=self.transport, within=LOOKING)
        return tuple(
            name for name, said in heard.items() if isinstance(said, EzpzError) and not isinstance(said, ToolMissing)
        )

    # The end

    def _outcome(self, stop: StopLaunch) -> LaunchOutcome:
        last = self.records[-1] if self.records else None
        status = last.ended.status if last else 1
        return LaunchOutcome(stop.reason, stop.why, status, tuple(self.records), self.left_out, self._error(stop, last))

    def _error(self, stop: StopLaunch, last: Record | None) -> EzpzError | None:
        """What the last line says, if the status of the command does not say it all."""
        again = self.care.restarts > 0
        cause = f"; the last time, {last.why}" if last and last.why else ""
        logs = f"; the logs are in {self.care.log_dir}" if self.care.log_dir else ""
        if last and last.ended.idle and not again:
            return IdleTimeout(f"nothing was said for {self.care.watching.idle:g} s{cause}{logs}")
        if stop.reason in (restart_policy.FAILED, restart_policy.SUCCESS) or not again:
            return _fault(last, logs) if last else None
        if stop.reason == restart_policy.INTERRUPTED:
            return Interrupted(f"{stop.why}{logs}", signal=stop.signal)
        times = f"after {len(self.records)} attempt{'s' if len(self.records) != 1 else ''}"
        return _ERRORS[stop.reason](f"{stop.why} ({times}){cause}{logs}")


def _fault(last: Record, logs: str) -> EzpzError | None:
    """Why the last attempt failed, if its command is not to blame."""
    finding = last.cause.finding
    if finding and finding.is_node and last.ended.status and not last.ended.by_us:
        return NodeLost(f"{finding}{logs}", hint=SPARES)
    return last.fault


def _too_few(findings: Findings, fit: int, enough: int) -> ChecksFailed:
    return ChecksFailed(
        f"{fit or 'no'} node{'s' if fit != 1 else ''} passed the checks, {enough} needed; {fold(findings.bad)} did not",
        hint=TABLE,
    )


def surroundings(care: SupervisionOptions, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that a plan is made with, if it is to be supervised."""
    marked = {**environ, MARK: secrets.token_hex(8)}
    return with_colour(marked) if care.watching.pty else marked


class OutputProtocol(Protocol):
    """How the command speaks to its user."""

    json: bool

    def note(self, text: str) -> None:
        """Tell what goes on."""

    def document(self, mapping: Mapping[str, Any]) -> None:
        """The one JSON document."""


def supervise(
    care: SupervisionOptions,
    allocation: Allocation,
    replan: Callable[[Allocation], LaunchPlan],
    planned: LaunchPlan,
    output: OutputProtocol,
) -> int:
    """Do all of it for `ezpz launch`; return its exit status. Raises the EzpzError that says how it ended, if any."""
    stdout = sys.stderr.fileno() if output.json else None
    outcome = Supervisor(
        care, allocation, planned, SupervisorDependencies(replan, planned.job.environ, output.note, stdout)
    ).run()
    output.document({**planned.to_dict(), **outcome.to_dict()})
    if outcome.error is not None:
        raise outcome.error
    if care.restarts or (outcome.status and care.log_dir):
        count = len(outcome.attempts)
        output.note(f"{outcome.reason} after {count} attempt{'s' if count != 1 else ''}: {outcome.why}")
    return outcome.status
