"""Rules for restarts: when, on which nodes, and when to stop. A pure state machine without a clock.

state, action = first_attempt(nodes, policy)
while isinstance(action, StartAttempt):
    state, action = next_action(state, <how the attempt ended>)
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import TypeAlias

BACKOFF = (5.0, 10.0, 20.0, 40.0, 60.0)  # seconds before each restart; the last one for all later ones
MAX_WITHOUT_PROGRESS = 2  # attempts in a row without a progress marker

SUCCESS, FAILED, INTERRUPTED, WALLTIME = "success", "failed", "interrupted", "walltime"
NO_SPARES, NO_PROGRESS, EXHAUSTED = "no-spares", "no-progress", "restarts-exhausted"
REASONS = (SUCCESS, FAILED, INTERRUPTED, WALLTIME, NO_SPARES, NO_PROGRESS, EXHAUSTED)

_INTERRUPTS = frozenset((signal.SIGINT, signal.SIGHUP, signal.SIGQUIT))
_WARNINGS = frozenset((signal.SIGUSR1, signal.SIGUSR2))  # a command that succeeds after one of them has succeeded


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How many nodes an attempt may have, and how often the command may start again."""

    min_nodes: int
    max_nodes: int
    max_restarts: int = 0


@dataclass(frozen=True, slots=True)
class RestartState:
    """The nodes and the history of a run.

    Attributes:
        active: The nodes of the attempt.
        spares: The nodes that can replace them, the next one first.
        lost: The nodes that are not used any more.
        without_progress: Attempts in a row without a progress marker.
    """

    policy: RestartPolicy
    active: tuple[str, ...]
    spares: tuple[str, ...]
    attempt: int = 1
    lost: tuple[str, ...] = ()
    without_progress: int = 0
    had_spares: bool = False


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended.

    Attributes:
        status: The exit status as a shell reports it.
        progress: Whether a progress marker was printed.
        failed_nodes: Nodes on which something failed.
        lost: Nodes that do not answer, including spares.
        signals: The signals that ezpz got meanwhile.
        time_over: Whether the scheduler has ended the job.
    """

    status: int
    progress: bool = False
    failed_nodes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    signals: tuple[int, ...] = ()
    time_over: bool = False


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Start an attempt on these nodes after so many seconds. `why` tells which nodes were replaced."""

    attempt: int
    nodes: tuple[str, ...]
    after: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class StopLaunch:
    """Do not start again, for one of REASONS; `signal` is the signal that was the reason, or 0."""

    reason: str
    why: str
    signal: int = 0


Action: TypeAlias = "StartAttempt | StopLaunch"


def first_attempt(nodes: tuple[str, ...], policy: RestartPolicy) -> tuple[RestartState, StartAttempt]:
    """Return the first attempt. It has as many nodes as possible, and the others are spares."""
    active, spares = nodes[: policy.max_nodes], nodes[policy.max_nodes :]
    return RestartState(policy, active, spares, had_spares=bool(spares)), StartAttempt(1, active)


def next_action(state: RestartState, event: AttemptEnd) -> tuple[RestartState, Action]:
    """Return what to do after an attempt."""
    without_progress = 0 if event.progress else state.without_progress + 1
    state = replace(state, without_progress=without_progress)
    stop = _stop_reason(state, event)
    if stop is not None:
        return state, stop
    state, why = _replace_nodes(state, event)
    if len(state.active) < state.policy.min_nodes:
        return state, StopLaunch(NO_SPARES, f"{why}, and no spare is left")
    if state.had_spares and not event.failed_nodes and not event.lost and not state.spares:
        return state, StopLaunch(NO_SPARES, "no node is known to be the cause, and no spare is left to try")
    after = BACKOFF[min(state.attempt, len(BACKOFF)) - 1]
    state = replace(state, attempt=state.attempt + 1)
    return state, StartAttempt(state.attempt, state.active, after, why)


def stop_for_signal(state: RestartState, number: int) -> tuple[RestartState, StopLaunch]:
    """Return the end of a run that got a signal while no attempt ran."""
    return state, _stopped_by(number)


def _stop_reason(state: RestartState, event: AttemptEnd) -> StopLaunch | None:
    """Return the end according to the rules that do not depend on nodes, the most important rule first."""
    ending = [number for number in event.signals if number not in _WARNINGS]
    if event.status == 0 and not ending:
        return StopLaunch(SUCCESS, "the command succeeded")
    if event.signals:
        return _stopped_by((ending or event.signals)[0])
    if event.time_over:
        return StopLaunch(WALLTIME, "the job's time is over")
    if state.policy.max_restarts == 0:
        return StopLaunch(FAILED, "the command failed")
    limit = state.policy.max_restarts
    if state.attempt > limit:
        return StopLaunch(EXHAUSTED, f"it failed {state.attempt} times, and --max-restarts is {limit}")
    if state.without_progress >= MAX_WITHOUT_PROGRESS:
        return StopLaunch(NO_PROGRESS, f"{MAX_WITHOUT_PROGRESS} attempts in a row made no progress")
    return None


def _stopped_by(number: int) -> StopLaunch:
    name = signal.Signals(number).name
    if number in _INTERRUPTS:
        return StopLaunch(INTERRUPTED, f"it was interrupted by {name}", number)
    return StopLaunch(WALLTIME, f"{name} came, which is how schedulers tell that the time is over", number)


def _replace_nodes(state: RestartState, event: AttemptEnd) -> tuple[RestartState, str]:
    """Replace failed nodes by spares in the same position, so that other ranks keep their nodes.

    If no active node is known to have failed, replace a suspect.
    """
    dropped = (*event.lost, *(event.failed_nodes if _may_drop_nodes(state, event) else ()))
    bad = tuple(dict.fromkeys(name for name in dropped if name in (*state.active, *state.spares)))
    spares = tuple(name for name in state.spares if name not in bad)
    if not any(name in bad for name in state.active):
        state = replace(state, spares=spares, lost=(*state.lost, *bad))
        return _rotate_suspect(state)
    active: list[str] = []
    words: list[str] = []
    for name in state.active:
        if name not in bad:
            active.append(name)
        elif spares:
            active.append(spares[0])
            words.append(f"{spares[0]} takes the place of {name}")
            spares = spares[1:]
        else:
            words.append(f"{name} is left out")
    return replace(state, active=tuple(active), spares=spares, lost=(*state.lost, *bad)), "; ".join(words)


def _may_drop_nodes(state: RestartState, event: AttemptEnd) -> bool:
    """Return whether failed nodes may be dropped.

    If there never was a spare and too few nodes would be left, only lost nodes are dropped.
    """
    return state.had_spares or len(set(state.active) - {*event.failed_nodes, *event.lost}) >= state.policy.min_nodes


def _rotate_suspect(state: RestartState) -> tuple[RestartState, str]:
    """Move the next suspect to the end of the spares. Each attempt suspects another position."""
    if not state.spares:
        return state, "on the same nodes"
    position = (state.attempt - 1) % len(state.active)
    suspect, spare = state.active[position], state.spares[0]
    active = (*state.active[:position], spare, *state.active[position + 1 :])
    why = f"no node is known to be the cause: {spare} takes the place of {suspect}"
    return replace(state, active=active, spares=(*state.spares[1:], suspect)), why
