"""Outcome of `ezpz launch`: why it ended, its attempts, and the error for the user. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz import errors
from ezpz.errors import EzpzError, IdleTimeout, Interrupted, NodeLost
from ezpz.launch.execute import restart_policy
from ezpz.launch.execute.run import SPARES_HINT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.launch.execute.options import SupervisionOptions
    from ezpz.launch.execute.record import AttemptRecord
    from ezpz.launch.execute.restart_policy import StopLaunch

_ERRORS = {
    restart_policy.NO_SPARES: errors.NoSpares,
    restart_policy.NO_PROGRESS: errors.NoProgress,
    restart_policy.EXHAUSTED: errors.RestartsExhausted,
    restart_policy.WALLTIME: errors.Walltime,
}


@dataclass(frozen=True, slots=True)
class LaunchOutcome:
    """How a supervised launch ended.

    Attributes:
        reason: One of `restart_policy.REASONS`.
        why: The reason in words.
        status: The exit status of the last attempt.
        left_out: The nodes that failed the checks.
        error: The error for the user, if the status does not tell everything.
    """

    reason: str
    why: str
    status: int
    attempts: tuple[AttemptRecord, ...]
    left_out: tuple[str, ...] = ()
    error: EzpzError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a part of a JSON document."""
        return {
            "outcome": {"reason": self.reason, "why": self.why},
            "exit_code": self.error.exit_code if self.error else self.status,
            "left_out": list(self.left_out),
            "attempts": [attempt.to_dict() for attempt in self.attempts],
        }


def make_outcome(
    stop: StopLaunch, records: Sequence[AttemptRecord], left_out: tuple[str, ...], supervision: SupervisionOptions
) -> LaunchOutcome:
    """Return the outcome after the last attempt."""
    status = records[-1].end.status if records else 1
    error = _find_error(stop, records, supervision)
    return LaunchOutcome(stop.reason, stop.why, status, tuple(records), left_out, error)


def _find_error(
    stop: StopLaunch, records: Sequence[AttemptRecord], supervision: SupervisionOptions
) -> EzpzError | None:
    """Return the error for the user, None if the status of the command tells everything."""
    last = records[-1] if records else None
    restarts = supervision.max_restarts > 0
    cause = f"; the last time, {last.why}" if last and last.why else ""
    logs = f"; the logs are in {supervision.log_dir}" if supervision.log_dir else ""
    if last and last.end.idle and not restarts:
        return IdleTimeout(f"nothing was said for {supervision.monitor.idle:g} s{cause}{logs}")
    if stop.reason in (restart_policy.FAILED, restart_policy.SUCCESS) or not restarts:
        return _failure_of(last, logs) if last else None
    if stop.reason == restart_policy.INTERRUPTED:
        return Interrupted(f"{stop.why}{logs}", signal=stop.signal)
    times = f"after {len(records)} attempt{'s' if len(records) != 1 else ''}"
    return _ERRORS[stop.reason](f"{stop.why} ({times}){cause}{logs}")


def _failure_of(last: AttemptRecord, logs: str) -> EzpzError | None:
    """Return why the last attempt failed, None if its command is the cause."""
    finding = last.cause.finding
    if finding and finding.is_node and last.end.status and not last.end.was_requested:
        return NodeLost(f"{finding}{logs}", hint=SPARES_HINT)
    return last.failure
