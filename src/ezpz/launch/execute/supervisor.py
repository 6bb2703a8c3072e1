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
from ezpz.launch.execute.attempt import Attempt, AttemptRecord
from ezpz.launch.execute.node_checks import CheckResults, evaluate_replies, format_table
from ezpz.launch.execute.options import SupervisionOptions, is_node_count_requested, make_restart_policy
from ezpz.launch.execute.restart_policy import Action, RestartState, StartAttempt, StopLaunch
from ezpz.launch.execute.run import SPARES_HINT
from ezpz.launch.output.attempt_log import LogDirectory
from ezpz.launch.output.pty import force_color
from ezpz.remote.run_everywhere import run_on_nodes
from ezpz.runtime.signals import NOTICED, collected_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.launch.plan.plan import LaunchPlan
    from ezpz.remote.run_everywhere import ReplyOrError

SWEEP_TIMEOUT = 2.0  # seconds that a node may take, once it is reached, to say that it is there
TABLE_HINT = "the table above says what each of the others failed"
RUN_ID_VARIABLE = (
    "EZPZ_LAUNCH_ID"  # in the environment of the ranks: what is left of a run can be told from everything else
)

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
    attempts: tuple[AttemptRecord, ...]
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
    consult: Callable[..., dict[str, ReplyOrError]] = run_on_nodes
    backoff: float = 1.0  # a factor


class Supervisor:
    """One run of `ezpz launch`, from the checks to its outcome."""

    def __init__(
        self,
        supervision: SupervisionOptions,
        allocation: Allocation,
        planned: LaunchPlan,
        dependencies: SupervisorDependencies,
    ) -> None:
        """Allocation: all nodes that may run ranks; `planned` is made for them."""
        self.supervision = supervision
        self.allocation = allocation
        self.planned = planned
        self.dependencies = dependencies
        self.records: list[AttemptRecord] = []
        self.left_out: tuple[str, ...] = ()
        self.nodes = {node.name: node for node in allocation.nodes}

    def run(self) -> LaunchOutcome:
        """All of it, in the main thread. Raises ChecksFailed, Interrupted, and what planning and starting raise."""
        with collected_signals(NOTICED) as self.between:  # those that come while no attempt runs, and nobody is asked
            return self._run()

    def _run(self) -> LaunchOutcome:
        policy = make_restart_policy(self.supervision, self.planned)
        self.transport = self.planned.started_by.transport(self.dependencies.environ)
        logs = LogDirectory(self.supervision.log_dir) if self.supervision.log_dir is not None else None
        whatever = not is_node_count_requested(self.planned)
        fit = self._check_nodes(1 if whatever else policy.min_nodes)
        policy = replace(policy, min_nodes=len(fit), max_nodes=len(fit)) if whatever else policy
        state, action = restart_policy.first_attempt(fit, policy)
        done: Action = action
        while isinstance(done, StartAttempt):
            state, done = self._attempt(state, done, logs)
        outcome = self._outcome(done)
        if logs:
            logs.append_summary([f"outcome: {outcome.reason}: {outcome.why}", ""])
            if logs.write_error:
                self.dependencies.tell(logs.write_error)
        return outcome

    # Checks

    def _check_nodes(self, enough: int) -> tuple[str, ...]:
        """The nodes that pass the checks, if checks were asked for. Raises ChecksFailed."""
        names = tuple(self.nodes)
        if self.supervision.check is None:
            return names
        wanted = self.supervision.check
        heard = self.dependencies.consult(
            self.allocation.nodes, wanted.to_request(), transport=self.transport, within=2 * wanted.timeout
        )
        findings = evaluate_replies(heard)
        for line in (*format_table(findings, len(names)), *findings.remarks):
            self.dependencies.tell(line)
        self.left_out = findings.failed_nodes
        fit = tuple(name for name in names if name not in findings.failed_nodes)
        if len(fit) < enough:
            raise _too_few(findings, len(fit), enough)
        if findings.failed_nodes:
            self.dependencies.tell(f"left out: {fold(findings.failed_nodes)}; {len(fit)} of {len(names)} nodes remain")
        return fit

    # Attempts

    def _attempt(
        self, state: RestartState, start: StartAttempt, logs: LogDirectory | None
    ) -> tuple[RestartState, Action]:
        """Wait, start, watch, find the cause, decide."""
        if start.attempt > 1:
            self.dependencies.tell(f"attempt {start.attempt} in {start.after:g} s on {fold(start.nodes)}: {start.why}")
        number = self._wait_for_signal(start.after * self.dependencies.backoff)
        if number:
            return restart_policy.stop_for_signal(state, number)
        nodes = tuple(self.nodes[name] for name in start.nodes)
        try:
            planned = self._plan_for(replace(self.allocation, nodes=nodes))
        except (NotEnoughNodes, UsageError) as e:
            if start.attempt == 1 and not self.left_out:
                raise
            if start.attempt == 1:
                raise ChecksFailed(
                    f"{len(nodes)} of {len(self.nodes)} nodes passed the checks, which is not enough: {e.message}",
                    hint=TABLE_HINT,
                ) from e
            return state, StopLaunch(restart_policy.NO_SPARES, f"{len(nodes)} nodes are too few: {e.message}")
        number = self._wait_for_signal(0.0)  # planning may have taken a while
        if number:
            return restart_policy.stop_for_signal(state, number)
        with logs.attempt() if logs else contextlib.nullcontext() as log:
            attempt = Attempt(planned, self.supervision.monitor, start.attempt, log)
            record = attempt.run(environ=self._environ(start), stdout=self.dependencies.stdout)
        event = self._classify_attempt(record, state)
        self._report_attempt(replace(record, lost=event.lost), logs)
        if isinstance(record.failure, CommandNotFound) and set(record.without_command) in (set(), set(start.nodes)):
            return state, StopLaunch(restart_policy.FAILED, "no node is known to have the command")
        return restart_policy.next_action(state, event)

    def _wait_for_signal(self, seconds: float) -> int:
        """Wait so long; the number of a signal that came meanwhile, or before, else 0."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            for number in self.between.within(max(0.0, left)):
                return number
            if left <= 0:
                return 0

    def _plan_for(self, allocation: Allocation) -> LaunchPlan:
        """The plan for these nodes: the one that was shown, if it is for them."""
        shown = self.planned.spec.allocation.nodes
        return self.planned if allocation.nodes == shown else self.dependencies.replan(allocation)

    def _environ(self, start: StartAttempt) -> Mapping[str, str]:
        """The environment of the launcher, which the scheduler may want to be told that an attempt failed before."""
        system = self.planned.spec.system
        again = system.again if system is not None and start.attempt > 1 else ()
        return {**self.dependencies.environ, **dict(again)}

    def _report_attempt(self, record: AttemptRecord, logs: LogDirectory | None) -> None:
        self.records.append(record)
        if record.write_error:
            self.dependencies.tell(record.write_error)
        if logs:
            logs.append_summary(record.to_lines())
        if record.end.status and record.why and (self.supervision.max_restarts or not record.failure):
            self.dependencies.tell(f"attempt {record.number}: {record.why}")
        if record.lost:
            self.dependencies.tell(f"attempt {record.number}: lost {fold(record.lost)}")

    def _classify_attempt(self, record: AttemptRecord, state: RestartState) -> restart_policy.AttemptEnd:
        """What the attempt means. After a failure the nodes are asked whether they are still there."""
        finding = record.cause.finding
        named = record.without_command or ((finding.node,) if finding and finding.node else ())
        event = restart_policy.AttemptEnd(
            record.end.status,
            record.made_progress,
            failed_nodes=named,
            lost=named if finding and finding.is_node and not record.without_command else (),
            signals=record.end.signals,
            time_over=record.cause.time_over,
        )
        if event.status == 0 or event.signals or event.time_over:
            return event
        try:
            if state.policy.max_restarts and state.attempt <= state.policy.max_restarts:
                lost = (*event.lost, *self._find_lost_nodes((*state.active, *state.spares)))
                return replace(event, lost=tuple(dict.fromkeys(lost)))
            if record.end.idle or (finding and finding.is_node):
                self._find_lost_nodes(state.active)  # ends what the launcher may have left there
        except Interrupted as e:
            return replace(event, signals=(e.signal,))
        return event

    def _find_lost_nodes(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which of these nodes do not answer; on those that do, whatever is left of the run is ended."""
        nodes: tuple[Node, ...] = tuple(self.nodes[name] for name in names)
        request = {"timeout": SWEEP_TIMEOUT, "sweep": f"{RUN_ID_VARIABLE}={self.dependencies.environ[RUN_ID_VARIABLE]}"}
        heard = self.dependencies.consult(nodes, request, transport=self.transport, within=SWEEP_TIMEOUT)
        return tuple(
            name for name, said in heard.items() if isinstance(said, EzpzError) and not isinstance(said, ToolMissing)
        )

    # The end

    def _outcome(self, stop: StopLaunch) -> LaunchOutcome:
        last = self.records[-1] if self.records else None
        status = last.end.status if last else 1
        return LaunchOutcome(stop.reason, stop.why, status, tuple(self.records), self.left_out, self._error(stop, last))

    def _error(self, stop: StopLaunch, last: AttemptRecord | None) -> EzpzError | None:
        """What the last line says, if the status of the command does not say it all."""
        again = self.supervision.max_restarts > 0
        cause = f"; the last time, {last.why}" if last and last.why else ""
        logs = f"; the logs are in {self.supervision.log_dir}" if self.supervision.log_dir else ""
        if last and last.end.idle and not again:
            return IdleTimeout(f"nothing was said for {self.supervision.monitor.idle:g} s{cause}{logs}")
        if stop.reason in (restart_policy.FAILED, restart_policy.SUCCESS) or not again:
            return _fault(last, logs) if last else None
        if stop.reason == restart_policy.INTERRUPTED:
            return Interrupted(f"{stop.why}{logs}", signal=stop.signal)
        times = f"after {len(self.records)} attempt{'s' if len(self.records) != 1 else ''}"
        return _ERRORS[stop.reason](f"{stop.why} ({times}){cause}{logs}")


def _fault(last: AttemptRecord, logs: str) -> EzpzError | None:
    """Why the last attempt failed, if its command is not to blame."""
    finding = last.cause.finding
    if finding and finding.is_node and last.end.status and not last.end.was_requested:
        return NodeLost(f"{finding}{logs}", hint=SPARES_HINT)
    return last.failure


def _too_few(findings: CheckResults, fit: int, enough: int) -> ChecksFailed:
    return ChecksFailed(
        f"{fit or 'no'} node{'s' if fit != 1 else ''} passed the checks, {enough} needed; {fold(findings.failed_nodes)} did not",
        hint=TABLE_HINT,
    )


def supervised_environment(supervision: SupervisionOptions, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that a plan is made with, if it is to be supervised."""
    marked = {**environ, RUN_ID_VARIABLE: secrets.token_hex(8)}
    return force_color(marked) if supervision.monitor.pty else marked


class OutputProtocol(Protocol):
    """How the command speaks to its user."""

    json: bool

    def note(self, text: str) -> None:
        """Tell what goes on."""

    def document(self, mapping: Mapping[str, Any]) -> None:
        """The one JSON document."""


def supervise(
    supervision: SupervisionOptions,
    allocation: Allocation,
    replan: Callable[[Allocation], LaunchPlan],
    planned: LaunchPlan,
    output: OutputProtocol,
) -> int:
    """Do all of it for `ezpz launch`; return its exit status. Raises the EzpzError that says how it ended, if any."""
    stdout = sys.stderr.fileno() if output.json else None
    outcome = Supervisor(
        supervision, allocation, planned, SupervisorDependencies(replan, planned.spec.environ, output.note, stdout)
    ).run()
    output.document({**planned.to_dict(), **outcome.to_dict()})
    if outcome.error is not None:
        raise outcome.error
    if supervision.max_restarts or (outcome.status and supervision.log_dir):
        count = len(outcome.attempts)
        output.note(f"{outcome.reason} after {count} attempt{'s' if count != 1 else ''}: {outcome.why}")
    return outcome.status
