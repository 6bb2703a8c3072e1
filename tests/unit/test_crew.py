"""A crew does what it is given, and its first failure ends it, however much still waits."""

from __future__ import annotations

import threading

import pytest

from ezpz.crew import Crew
from ezpz.process import Stopped
from tests.waiting import DEADLINE, wait_until


def test_all_of_it_is_done() -> None:
    done: list[int] = []
    crew = Crew(3, 2, done.append, threading.Event())
    for number in range(100):
        crew.give(number)
    crew.finish()
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize(("threads", "waiting"), [(1, 1), (4, 2), (2, 64)])
def test_the_first_failure_is_raised_and_the_rest_is_dropped(threads: int, waiting: int) -> None:
    done: list[int] = []

    def act(number: int) -> None:
        if number == 0:
            raise KeyError("a bug")
        wait_until(lambda: crew.failure is not None)
        done.append(number)

    crew: Crew[int] = Crew(threads, waiting, act, threading.Event())
    for number in range(1000):
        crew.give(number)
        if crew.is_over:
            break
    with pytest.raises(KeyError):
        crew.finish()
    assert len(done) < threads


def test_one_that_is_stopped_says_so() -> None:
    stop, begun = threading.Event(), threading.Event()
    crew: Crew[int] = Crew(1, 8, lambda _: begun.set(), stop)
    crew.give(0)
    assert begun.wait(DEADLINE)
    stop.set()
    assert crew.is_over
    with pytest.raises(Stopped):
        crew.finish()
