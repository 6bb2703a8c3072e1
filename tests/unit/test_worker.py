"""A worker's failure is told at once, whatever it is."""

from __future__ import annotations

from ezpz.worker import Worker
from tests.waiting import DEADLINE


def test_what_it_raises_is_handed_over() -> None:
    failures: list[BaseException] = []

    def act() -> None:
        raise KeyError("a bug")

    Worker.started(act, failures.append).join(DEADLINE)
    assert [type(failure) for failure in failures] == [KeyError]


def test_one_that_ends_well_hands_over_nothing() -> None:
    failures: list[BaseException] = []
    done: list[int] = []
    Worker.started(lambda: done.append(1), failures.append).join(DEADLINE)
    assert (done, failures) == ([1], [])
