"""What a run records, and when it is worthwhile to go on."""

from __future__ import annotations

import pytest

from ezpz.errors import StaleList
from ezpz.yeet.model.events import NodeDone, PhaseStarted, WarningRaised
from ezpz.yeet.model.plan import Request
from ezpz.yeet.model.results import Failure, NodeResult, Outcome
from ezpz.yeet.pipeline.run_state import RunRecord
from tests.unit.yeet.plans import nodes, plan


@pytest.fixture
def events() -> list[object]:
    return []


@pytest.fixture
def record(events: list[object]) -> RunRecord:
    return RunRecord(events.append)


def failure(code: str) -> Failure:
    return Failure(code, "why")


def test_a_result_is_recorded_and_emitted(record: RunRecord, events: list[object]) -> None:
    first, second = nodes(2)
    record.record_failures({second: failure("node-lost")})
    assert not record.first_copy.exists
    done = NodeDone(NodeResult(first, Outcome.OK))
    record.on_event(done)
    assert record.first_copy.exists
    assert record.results[second].outcome is Outcome.UNREACHABLE
    assert events[-1] == done


def test_a_warning_is_emitted_once(record: RunRecord, events: list[object]) -> None:
    warning = WarningRaised("text", "case")
    record.warn((warning, warning))
    record.warn((warning, WarningRaised("text", "case", 2)))
    assert events == [warning, WarningRaised("text", "case", 2)]


def test_a_phase_that_fails_is_measured_as_well(record: RunRecord, events: list[object]) -> None:
    with pytest.raises(KeyError), record.phase("read", 7):
        raise KeyError
    assert events == [PhaseStarted("read", 7)]
    assert list(record.phases) == ["read"]


def test_a_list_that_stays_from_an_earlier_run_ends_the_run(record: RunRecord) -> None:
    with pytest.raises(StaleList):
        record.record_failures({nodes(1)[0]: failure(StaleList.code)})


def test_nodes_wait_until_they_have_a_result(record: RunRecord) -> None:
    made = plan(count=3)
    here, one, two = made.allocation.nodes
    assert record.waiting_nodes(made) == (one, two)
    record.on_event(NodeDone(NodeResult(one, Outcome.OK)))
    assert record.waiting_nodes(made) == (two,)
    assert not record.is_local_done(made)
    record.on_event(NodeDone(NodeResult(here, Outcome.OK)))
    assert record.is_local_done(made)
    assert record.is_local_done(plan(local=False))


@pytest.mark.parametrize(
    ("codes", "threshold", "worthwhile"),
    [
        ((), None, True),
        (("node-lost",), None, True),
        (("destination-refused",), None, False),
        (("node-lost", "node-lost", "node-lost", "node-lost"), None, False),
        (("destination-refused",), 3, True),
        (("node-lost", "node-lost"), 3, False),
    ],
)
def test_going_on_is_worthwhile_while_the_run_can_succeed(
    record: RunRecord, codes: tuple[str, ...], threshold: int | None, *, worthwhile: bool
) -> None:
    made = plan(Request(min_success_nodes=threshold), count=4)
    record.record_failures(dict(zip(made.allocation.nodes, map(failure, codes), strict=False)))
    assert record.can_succeed(made) is worthwhile
