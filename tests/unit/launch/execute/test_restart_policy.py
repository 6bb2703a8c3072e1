"""launch/restarts.py: the stop rules one by one, and what holds whatever happens."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.launch.execute.restart_policy import (
    BACKOFF,
    REASONS,
    Action,
    AttemptEnd,
    RestartPolicy,
    RestartState,
    StartAttempt,
    StopLaunch,
    first_attempt,
    next_action,
    stop_for_signal,
)

NODES = tuple(f"n{number}" for number in range(6))
FAILED = AttemptEnd(1, progress=True)


def play(
    policy: RestartPolicy, *events: AttemptEnd, nodes: tuple[str, ...] = NODES
) -> tuple[RestartState, Action, list[StartAttempt]]:
    state, action = first_attempt(nodes, policy)
    starts = [action]
    last: Action = action
    for event in events:
        state, last = next_action(state, event)
        if isinstance(last, StopLaunch):
            break
        starts.append(last)
    return state, last, starts


def reason(policy: RestartPolicy, *events: AttemptEnd, nodes: tuple[str, ...] = NODES) -> str:
    _, action, _ = play(policy, *events, nodes=nodes)
    assert isinstance(action, StopLaunch)
    return action.reason


TWO_SPARES = RestartPolicy(4, 4, max_restarts=10)


@pytest.mark.parametrize(
    ("policy", "events", "expected"),
    [
        (TWO_SPARES, [AttemptEnd(0)], "success"),
        (RestartPolicy(4, 4), [FAILED], "failed"),
        (TWO_SPARES, [AttemptEnd(130, signals=(signal.SIGINT,))], "interrupted"),
        (TWO_SPARES, [AttemptEnd(0, signals=(signal.SIGTERM,))], "walltime"),
        (TWO_SPARES, [AttemptEnd(1, signals=(signal.SIGUSR1, signal.SIGTERM))], "walltime"),
        (TWO_SPARES, [AttemptEnd(1, signals=(signal.SIGUSR2,))], "walltime"),
        (TWO_SPARES, [AttemptEnd(0, signals=(signal.SIGUSR1,))], "success"),
        (TWO_SPARES, [AttemptEnd(1, signals=(signal.SIGUSR1, signal.SIGINT))], "interrupted"),
        (TWO_SPARES, [AttemptEnd(1, time_over=True)], "walltime"),
        (TWO_SPARES, [AttemptEnd(1), AttemptEnd(1)], "no-progress"),
        (TWO_SPARES, [AttemptEnd(1), FAILED, AttemptEnd(1), AttemptEnd(1)], "no-progress"),
        (RestartPolicy(4, 4, max_restarts=2), [FAILED, FAILED, FAILED], "restarts-exhausted"),
        (
            TWO_SPARES,
            [AttemptEnd(1, progress=True, failed_nodes=(name,)) for name in ("n0", "n4", "n5")],
            "no-spares",
        ),
        (TWO_SPARES, [AttemptEnd(1, progress=True, lost=("n0", "n1", "n2"))], "no-spares"),
        (RestartPolicy(6, 6, max_restarts=3), [AttemptEnd(1, progress=True, lost=("n0",))], "no-spares"),
        (
            RestartPolicy(5, 6, max_restarts=3),
            [AttemptEnd(1, progress=True, lost=(name,)) for name in NODES],
            "no-spares",
        ),
    ],
)
def test_stop_rules(policy: RestartPolicy, events: list[AttemptEnd], expected: str) -> None:
    assert reason(policy, *events) == expected


def test_back_off() -> None:
    _, _, starts = play(RestartPolicy(6, 6, max_restarts=10), *[FAILED] * 7)
    assert [start.after for start in starts] == [0, 5, 10, 20, 40, 60, 60, 60]


def test_a_spare_takes_the_place_of_the_culprit() -> None:
    _, _, starts = play(TWO_SPARES, AttemptEnd(1, failed_nodes=("n1",)))
    assert starts[-1].nodes == ("n0", "n4", "n2", "n3")
    assert starts[-1].why == "n4 takes the place of n1"


def test_a_spare_that_died_meanwhile_is_passed_over() -> None:
    state, _, starts = play(TWO_SPARES, AttemptEnd(1, failed_nodes=("n1",), lost=("n4",)))
    assert starts[-1].nodes == ("n0", "n5", "n2", "n3")
    assert state.spares == ()


def test_without_a_culprit_another_suspect_is_rotated_each_time() -> None:
    _, _, starts = play(TWO_SPARES, FAILED, FAILED, FAILED)
    assert [start.nodes for start in starts] == [
        ("n0", "n1", "n2", "n3"),
        ("n4", "n1", "n2", "n3"),
        ("n4", "n5", "n2", "n3"),
        ("n4", "n5", "n0", "n3"),
    ]


def test_without_spares_it_goes_on_with_fewer_down_to_the_fewest() -> None:
    _, _, starts = play(RestartPolicy(4, 6, max_restarts=9), AttemptEnd(1, progress=True, lost=("n1", "n3")))
    assert starts[-1].nodes == ("n0", "n2", "n4", "n5")


def test_a_node_that_is_blamed_but_alive_stays_where_there_never_was_a_spare() -> None:
    _, _, starts = play(RestartPolicy(6, 6, max_restarts=3), AttemptEnd(1, progress=True, failed_nodes=("n1",)))
    assert starts[-1].nodes == NODES


def test_a_signal_between_attempts() -> None:
    state, _, _ = play(TWO_SPARES, FAILED)
    assert stop_for_signal(state, signal.SIGINT)[1].reason == "interrupted"
    assert stop_for_signal(state, signal.SIGTERM)[1].reason == "walltime"


some_nodes = st.lists(st.sampled_from(NODES), max_size=3).map(tuple)
events = st.builds(
    AttemptEnd,
    status=st.integers(0, 255),
    progress=st.booleans(),
    failed_nodes=some_nodes,
    lost=some_nodes,
    signals=st.sampled_from([(), (), (), (signal.SIGINT,), (signal.SIGTERM,)]),
    time_over=st.sampled_from([False, False, False, True]),
)


@given(
    count=st.integers(1, 6),
    min_nodes=st.integers(1, 6),
    more=st.integers(0, 3),
    max_restarts=st.integers(0, 8),
    happens=st.lists(events, min_size=1, max_size=12),
)
def test_whatever_happens(count: int, min_nodes: int, more: int, max_restarts: int, happens: list[AttemptEnd]) -> None:
    min_nodes = min(min_nodes, count)
    policy = RestartPolicy(min_nodes, min(count, min_nodes + more), max_restarts)
    state, action = first_attempt(NODES[:count], policy)
    assert action.nodes == NODES[: policy.max_nodes]
    dead: set[str] = set()
    last: Action = action
    for number, event in enumerate(happens, 1):
        dead |= set(event.lost) & {*state.active, *state.spares}
        before = state
        state, last = next_action(state, event)
        everybody = [*state.active, *state.spares]
        assert len(set(everybody)) == len(everybody)
        assert set(everybody) <= {*before.active, *before.spares}
        if isinstance(last, StopLaunch):
            assert last.reason in REASONS
            assert (last.reason == "success") == (event.status == 0 and not event.signals)
            return
        assert last.attempt == number + 1 <= max_restarts + 1
        assert last.after in BACKOFF
        assert last.nodes == state.active
        assert min_nodes <= len(last.nodes) <= policy.max_nodes
        assert not dead & set(last.nodes)
    assert len(happens) <= max_restarts


@given(happens=st.lists(events, max_size=12))
def test_the_same_events_lead_to_the_same_end(happens: list[AttemptEnd]) -> None:
    assert play(TWO_SPARES, *happens) == play(TWO_SPARES, *happens)
