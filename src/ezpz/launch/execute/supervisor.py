"""Supervisor of `ezpz launch`: checks, attempts, and restarts, as the rules in `restart_policy` decide."""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ezpz.agent.common.messages.queries import HealthCheckRequest
from ezpz.cluster.hostnames import fold
from ezpz.errors import ChecksFailed, CommandNotFound, EzpzError, Interrupted, NotEnoughNodes, ToolMissing, UsageError
from ezpz.launch.execute import restart_policy
from ezpz.launch.execute.attempt import Attempt
from ezpz.launch.execute.node_checks import CheckResults, evaluate_replies, format_table
from ezpz.launch.execute.options import SupervisionOptions, is_node_count_requested, make_restart_policy
from ezpz.launch.execute.outcome import LaunchOutcome, make_outcome
from ezpz.launch.execute.restart_policy import Action, RestartState, StartAttempt, StopLaunch
from ezpz.launch.output.attempt_log import LogDirectory
from ezpz.launch.output.pty import force_color
from ezpz.remote.health_check import check_health
from ezpz.runtime.signals import NOTICED, collected_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.launch.execute.record import AttemptRecord
    from ezpz.launch.plan.plan import LaunchPlan
    from ezpz.remote.health_check import ReplyOrError
    from ezpz.runtime.signals import Collected

SWEEP_TIMEOUT = 2.0  # seconds for a node that is reached to answer
TABLE_HINT = "the table above says what each of the others failed"
RUN_ID_VARIABLE = "EZPZ_LAUNCH_ID"
"""A variable of the ranks. It identifies the processes of a run that are left on a node."""


@dataclass(frozen=True)
class SupervisorDependencies:
    """The ports of a supervisor.

    Attributes:
        replan: Plans the same command for other nodes.
        environ: The environment of the launcher.
        tell: Takes lines for the user.
        stdout: A descriptor in place of stdout.
        consult: Sends a request to every node.
        backoff: A factor for the time before a restart.
    """

    replan: Callable[[Allocation], LaunchPlan]
    environ: Mapping[str, str]
    tell: Callable[[str], None]
    stdout: int | None = None
    consult: Callable[..., dict[str, ReplyOrError]] = check_health
    backoff: float = 1.0


class Supervisor:
    """A run of `ezpz launch`, from the checks to its outcome."""

    def __init__(
        self,
        supervision: SupervisionOptions,
        allocation: Allocation,
        planned: LaunchPlan,
        dependencies: SupervisorDependencies,
    ) -> None:
        """Take all nodes that may run ranks, and the plan for them."""
        self.supervision = supervision
        self.allocation = allocation
        self.planned = planned
        self.dependencies = dependencies
        self.transport = planned.started_by.transport(dependencies.environ)
        self.records: list[AttemptRecord] = []
        self.left_out: tuple[str, ...] = ()
        self.nodes = {node.name: node for node in allocation.nodes}

    def run(self) -> LaunchOutcome:
        """Run the checks and the attempts. Call it in the main thread.

        Raises:
            ChecksFailed: Too few nodes pass the checks.
            Interrupted: A signal came during the checks.
            EzpzError: The command cannot be planned or started.
        """
        policy = make_restart_policy(self.supervision, self.planned)
        with collected_signals(NOTICED) as signals:  # that come while no attempt runs
            logs = LogDirectory(self.supervision.log_dir) if self.supervision.log_dir is not None else None
            any_count = not is_node_count_requested(self.planned)
            nodes = self._check_nodes(1 if any_count else policy.min_nodes)
            if any_count:
                policy = replace(policy, min_nodes=len(nodes), max_nodes=len(nodes))
            state, first = restart_policy.first_attempt(nodes, policy)
            action: Action = first
            while isinstance(action, StartAttempt):
                state, action = self._attempt(state, action, logs, signals)
            outcome = make_outcome(action, self.records, self.left_out, self.supervision)
            if logs:
                logs.append_summary([f"outcome: {outcome.reason}: {outcome.why}", ""])
                if logs.write_error:
                    self.dependencies.tell(logs.write_error)
        return outcome

    # Checks

    def _check_nodes(self, min_nodes: int) -> tuple[str, ...]:
        """Return the nodes that pass the checks, all of them if no check was requested. Raise ChecksFailed."""
        names = tuple(self.nodes)
        if self.supervision.check is None:
            return names
        wanted = self.supervision.check
        heard = self.dependencies.consult(
            self.allocation.nodes, wanted.to_request(), transport=self.transport, within=2 * wanted.timeout
        )
        results = evaluate_replies(heard)
        for line in (*format_table(results, len(names)), *results.remarks):
            self.dependencies.tell(line)
        self.left_out = results.failed_nodes
        passed = tuple(name for name in names if name not in results.failed_nodes)
        if len(passed) < min_nodes:
            raise _too_few(results, len(passed), min_nodes)
        if results.failed_nodes:
            left_out = fold(results.failed_nodes)
            self.dependencies.tell(f"left out: {left_out}; {len(passed)} of {len(names)} nodes remain")
        return passed

    # Attempts

    def _attempt(
        self, state: RestartState, start: StartAttempt, logs: LogDirectory | None, signals: Collected
    ) -> tuple[RestartState, Action]:
        """Wait, run the attempt, and decide what comes next."""
        if start.attempt > 1:
            self.dependencies.tell(f"attempt {start.attempt} in {start.after:g} s on {fold(start.nodes)}: {start.why}")
        number = _wait_for_signal(signals, start.after * self.dependencies.backoff)
        if number:
            return restart_policy.stop_for_signal(state, number)
        planned = self._plan_for(start)
        if isinstance(planned, StopLaunch):
            return state, planned
        number = _wait_for_signal(signals, 0.0)  # planning can take a while
        if number:
            return restart_policy.stop_for_signal(state, number)
        with logs.open_log() if logs else contextlib.nullcontext() as log:
            attempt = Attempt(planned, self.supervision.monitor, start.attempt, log)
            record = attempt.run(environ=self._environ(start), stdout=self.dependencies.stdout)
        end = self._classify_attempt(record, state)
        self._report_attempt(replace(record, lost=end.lost), logs)
        if isinstance(record.failure, CommandNotFound) and set(record.without_command) in (set(), set(start.nodes)):
            return state, StopLaunch(restart_policy.FAILED, "no node is known to have the command")
        return restart_policy.next_action(state, end)

    def _plan_for(self, start: StartAttempt) -> LaunchPlan | StopLaunch:
        """Return the plan for an attempt, or StopLaunch if its nodes are too few. The plan that was shown is reused."""
        nodes = tuple(self.nodes[name] for name in start.nodes)
        if nodes == self.planned.spec.allocation.nodes:
            return self.planned
        try:
            return self.dependencies.replan(replace(self.allocation, nodes=nodes))
        except (NotEnoughNodes, UsageError) as e:
            if start.attempt > 1:
                return StopLaunch(restart_policy.NO_SPARES, f"{len(nodes)} nodes are too few: {e.message}")
            if not self.left_out:
                raise
            raise ChecksFailed(
                f"{len(nodes)} of {len(self.nodes)} nodes passed the checks, which is not enough: {e.message}",
                hint=TABLE_HINT,
            ) from e

    def _environ(self, start: StartAttempt) -> Mapping[str, str]:
        """Return the environment of the launcher. A scheduler can need a variable after a failed attempt."""
        system = self.planned.spec.system
        again = system.again if system is not None and start.attempt > 1 else ()
        return {**self.dependencies.environ, **dict(again)}

    def _report_attempt(self, record: AttemptRecord, logs: LogDirectory | None) -> None:
        self.records.append(record)
        tell = self.dependencies.tell
        if record.write_error:
            tell(record.write_error)
        if logs:
            logs.append_summary(record.to_lines())
        if record.end.status and record.why and (self.supervision.max_restarts or not record.failure):
            tell(f"attempt {record.number}: {record.why}")
        if record.lost:
            tell(f"attempt {record.number}: lost {fold(record.lost)}")

    def _classify_attempt(self, record: AttemptRecord, state: RestartState) -> restart_policy.AttemptEnd:
        """Return what the attempt means for the restart policy. After a failure, check which nodes still answer."""
        finding = record.cause.finding
        named = record.without_command or ((finding.node,) if finding and finding.node else ())
        end = restart_policy.AttemptEnd(
            record.end.status,
            record.made_progress,
            failed_nodes=named,
            lost=named if finding and finding.is_node and not record.without_command else (),
            signals=record.end.signals,
            time_over=record.cause.time_over,
        )
        if end.status == 0 or end.signals or end.time_over:
            return end
        try:
            if state.policy.max_restarts and state.attempt <= state.policy.max_restarts:
                lost = (*end.lost, *self._find_lost_nodes((*state.active, *state.spares)))
                return replace(end, lost=tuple(dict.fromkeys(lost)))
            if record.end.idle or (finding and finding.is_node):
                self._find_lost_nodes(state.active)  # ends processes that the launcher left there
        except Interrupted as e:
            return replace(end, signals=(e.signal,))
        return end

    def _find_lost_nodes(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return which of these nodes do not answer. On the others, end the processes that are left of the run."""
        nodes: tuple[Node, ...] = tuple(self.nodes[name] for name in names)
        mark = f"{RUN_ID_VARIABLE}={self.dependencies.environ[RUN_ID_VARIABLE]}"
        request = HealthCheckRequest(seconds=SWEEP_TIMEOUT, sweep=mark)
        heard = self.dependencies.consult(nodes, request, transport=self.transport, within=SWEEP_TIMEOUT)
        return tuple(
            name for name, said in heard.items() if isinstance(said, EzpzError) and not isinstance(said, ToolMissing)
        )


def _wait_for_signal(signals: Collected, seconds: float) -> int:
    """Wait so long. Return the number of a signal that came before or meanwhile, else 0."""
    until = time.monotonic() + seconds
    while True:
        left = until - time.monotonic()
        for number in signals.within(max(0.0, left)):
            return number
        if left <= 0:
            return 0


def _too_few(results: CheckResults, passed: int, min_nodes: int) -> ChecksFailed:
    nodes = f"{passed or 'no'} node{'s' if passed != 1 else ''}"
    return ChecksFailed(
        f"{nodes} passed the checks, {min_nodes} needed; {fold(results.failed_nodes)} did not", hint=TABLE_HINT
    )


def supervised_environment(supervision: SupervisionOptions, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the plan of a supervised launch."""
    marked = {**environ, RUN_ID_VARIABLE: secrets.token_hex(8)}
    return force_color(marked) if supervision.monitor.pty else marked


class OutputProtocol(Protocol):
    """The output of the command: messages and one JSON document."""

    json: bool

    def note(self, text: str) -> None:
        """Print a message about the progress."""

    def document(self, mapping: Mapping[str, Any]) -> None:
        """Print the JSON document."""


def supervise(
    supervision: SupervisionOptions,
    allocation: Allocation,
    replan: Callable[[Allocation], LaunchPlan],
    planned: LaunchPlan,
    output: OutputProtocol,
) -> int:
    """Run a supervised `ezpz launch` and return its exit status. Raise the EzpzError of its outcome, if any."""
    stdout = sys.stderr.fileno() if output.json else None
    dependencies = SupervisorDependencies(replan, planned.spec.environ, output.note, stdout)
    outcome = Supervisor(supervision, allocation, planned, dependencies).run()
    output.document({**planned.to_dict(), **outcome.to_dict()})
    if outcome.error is not None:
        raise outcome.error
    if supervision.max_restarts or (outcome.status and supervision.log_dir):
        count = len(outcome.attempts)
        output.note(f"{outcome.reason} after {count} attempt{'s' if count != 1 else ''}: {outcome.why}")
    return outcome.status
