"""When to start again, on which nodes, and when to stop: a pure state machine. Events in, actions out; no clock.

state, action = begin(nodes, policy)
while isinstance(action, Start):
    state, action = ended(state, <what became of it>)
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import TypeAlias

BACKOFF = (5.0, 10.0, 20.0, 40.0, 60.0)  # seconds before the first, second ... restart; the last one for all after it
MAX_WITHOUT_PROGRESS = 2  # attempts in a row without a progress marker, after which another is not worth it

SUCCESS, FAILED, INTERRUPTED, WALLTIME = "success", "failed", "interrupted", "walltime"
NO_SPARES, NO_PROGRESS, EXHAUSTED = "no-spares", "no-progress", "restarts-exhausted"
REASONS = (SUCCESS, FAILED, INTERRUPTED, WALLTIME, NO_SPARES, NO_PROGRESS, EXHAUSTED)

_INTERRUPTS = frozenset((signal.SIGINT, signal.SIGHUP, signal.SIGQUIT))
_WARNINGS = frozenset((signal.SIGUSR1, signal.SIGUSR2))  # whoever succeeds after one has succeeded


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """fewest, most: how many nodes an attempt may have; restarts: how often it may start again."""

    min_nodes: int
    max_nodes: int
    max_restarts: int = 0


@dataclass(frozen=True, slots=True)
class RestartState:
    """active: the nodes of the attempt; spares: the nodes that wait, the next one first; lost: those that are no good.

    fruitless: attempts in a row that made no progress
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
    """What became of an attempt.

    status: as a shell tells it; progress: a progress marker was seen; signals: those that we got meanwhile
    culprits: nodes on which something failed; lost: nodes that have gone, spares among them
    time_over: the scheduler has ended the job
    """

    status: int
    progress: bool = False
    failed_nodes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    signals: tuple[int, ...] = ()
    time_over: bool = False


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Start an attempt on these nodes, so many seconds from now; `why` tells what was changed."""

    attempt: int
    nodes: tuple[str, ...]
    after: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class StopLaunch:
    """Do not start again: one of REASONS, and in words; the signal, if one was the reason."""

    reason: str
    why: str
    signal: int = 0


Action: TypeAlias = "StartAttempt | StopLaunch"


def first_attempt(nodes: tuple[str, ...], policy: RestartPolicy) -> tuple[RestartState, StartAttempt]:
    """The first attempt: as many nodes as it may have, the others are spares."""
    active, spares = nodes[: policy.max_nodes], nodes[policy.max_nodes :]
    return RestartState(policy, active, spares, had_spares=bool(spares)), StartAttempt(1, active)


def next_action(state: RestartState, event: AttemptEnd) -> tuple[RestartState, Action]:
    """What to do after an attempt."""
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
    """A signal came while no attempt ran."""
    return state, _stop_for_signal(number)


def _stop_reason(state: RestartState, event: AttemptEnd) -> StopLaunch | None:
    """The stop rules that do not depend on nodes, the weightiest first."""
    asked = [number for number in event.signals if number not in _WARNINGS]
    if event.status == 0 and not asked:
        return StopLaunch(SUCCESS, "the command succeeded")
    if event.signals:
        return _stop_for_signal((asked or event.signals)[0])
    if event.time_over:
        return StopLaunch(WALLTIME, "the job's time is over")
    if state.policy.max_restarts == 0:
        return StopLaunch(FAILED, "the command failed")
    if state.attempt > state.policy.max_restarts:
        return StopLaunch(
            EXHAUSTED, f"it failed {state.attempt} times, and --max-restarts is {state.policy.max_restarts}"
        )
    if state.without_progress >= MAX_WITHOUT_PROGRESS:
        return StopLaunch(NO_PROGRESS, f"{MAX_WITHOUT_PROGRESS} attempts in a row made no progress")
    return None


def _stop_for_signal(number: int) -> StopLaunch:
    name = signal.Signals(number).name
    if number in _INTERRUPTS:
        return StopLaunch(INTERRUPTED, f"it was interrupted by {name}", number)
    return StopLaunch(WALLTIME, f"{name} came, which is how schedulers tell that the time is over", number)


def _replace_nodes(state: RestartState, event: AttemptEnd) -> tuple[RestartState, str]:
    """Put spares in the places of culprits, so that the other ranks stay where they are; else rotate a suspect out."""
    gone = (*event.lost, *(event.failed_nodes if _may_drop_nodes(state, event) else ()))
    bad = tuple(dict.fromkeys(name for name in gone if name in (*state.active, *state.spares)))
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
    """Whether blamed nodes go: not if there never was a spare and too few would be left; only their loss does that."""
    return state.had_spares or len(set(state.active) - {*event.failed_nodes, *event.lost}) >= state.policy.min_nodes


def _rotate_suspect(state: RestartState) -> tuple[RestartState, str]:
    """The next suspect goes to the end of the spares: each attempt suspects another place."""
    if not state.spares:
        return state, "on the same nodes"
    place = (state.attempt - 1) % len(state.active)
    suspect, spare = state.active[place], state.spares[0]
    active = (*state.active[:place], spare, *state.active[place + 1 :])
    why = f"no node is known to be the cause: {spare} takes the place of {suspect}"
    return replace(state, active=active, spares=(*state.spares[1:], suspect)), why
