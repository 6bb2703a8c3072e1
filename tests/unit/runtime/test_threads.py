"""Threads outside asyncio: their results come back, and no failure is lost."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.runtime.threads import BackgroundThread, WorkerPool, ordered_map, run_in_background
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_all_of_it_is_done() -> None:
    done: list[int] = []
    pool = WorkerPool(3, 2, done.append, CancelToken())
    for number in range(100):
        pool.submit(number)
    pool.join()
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize(("threads", "waiting"), [(1, 1), (4, 2), (2, 64)])
def test_the_first_failure_is_raised_and_the_rest_is_dropped(threads: int, waiting: int) -> None:
    done: list[int] = []

    def act(number: int) -> None:
        if number == 0:
            raise KeyError("a bug")
        wait_until(lambda: pool.failure is not None)
        done.append(number)

    pool: WorkerPool[int] = WorkerPool(threads, waiting, act, CancelToken())
    for number in range(1000):
        pool.submit(number)
        if pool.is_stopped:
            break
    with pytest.raises(KeyError):
        pool.join()
    assert len(done) < threads


def test_one_that_is_stopped_says_so() -> None:
    cancel, begun = CancelToken(), threading.Event()
    pool: WorkerPool[int] = WorkerPool(1, 8, lambda _: begun.set(), cancel)
    pool.submit(0)
    begun.wait(DEADLINE)
    cancel.cancel()
    assert pool.is_stopped
    with pytest.raises(Cancelled):
        pool.join()


def test_a_closed_pool_drops_what_waits_and_cancels_nothing_else() -> None:
    cancel, begun, go_on = CancelToken(), threading.Event(), threading.Event()
    done: list[int] = []

    def act(number: int) -> None:
        begun.set()
        go_on.wait(DEADLINE)
        done.append(number)

    pool: WorkerPool[int] = WorkerPool(1, 8, act, cancel)
    pool.submit(0)
    pool.submit(1)
    begun.wait(DEADLINE)
    closing = run_in_background(pool.close)
    wait_until(lambda: pool.is_stopped)
    go_on.set()
    closing.result(DEADLINE)
    assert (done, cancel.is_cancelled) == ([0], False)


def test_the_result_of_a_thread_in_the_background() -> None:
    assert run_in_background(lambda: 7).result(DEADLINE) == 7


def test_the_failure_of_a_thread_in_the_background_is_raised_again() -> None:
    def act() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_background(act).result(DEADLINE)


def test_what_it_raises_is_handed_over() -> None:
    failures: list[BaseException] = []

    def act() -> None:
        raise KeyError("a bug")

    BackgroundThread(act, failures.append).join(DEADLINE)
    assert [type(failure) for failure in failures] == [KeyError]


def test_one_that_ends_well_hands_over_nothing() -> None:
    failures: list[BaseException] = []
    done: list[int] = []
    BackgroundThread(lambda: done.append(1), failures.append).join(DEADLINE)
    assert (done, failures) == ([1], [])


class TestOrderedMap:
    """The results come in the order of the items, whichever is ready first."""

    @pytest.mark.parametrize("threads", [1, 2, 7])
    def test_they_come_in_order(self, threads: int) -> None:
        late = threading.Event()

        def act(number: int) -> int:
            if number == 0 and threads > 1:
                late.wait(DEADLINE)
            if number == threads:
                late.set()
            return number * number

        ahead = 2 * threads
        found = ordered_map(act, range(50), threads=threads, ahead=ahead, cancel=CancelToken())
        assert list(found) == [number * number for number in range(50)]

    def test_what_goes_wrong_ends_it(self) -> None:
        def act(number: int) -> int:
            return 1 // (number - 20)

        cancel = CancelToken()
        with pytest.raises(ZeroDivisionError):
            list(ordered_map(act, range(10_000), threads=3, ahead=6, cancel=cancel))
        assert not cancel.is_cancelled, "the caller decides what else its failure cancels"

    def test_what_goes_wrong_with_the_things_ends_it(self) -> None:
        def things() -> Iterator[int]:
            yield 1
            raise KeyError("gone")

        with pytest.raises(KeyError):
            list(ordered_map(abs, things(), threads=2, ahead=4, cancel=CancelToken()))

    def test_it_stops(self) -> None:
        cancel = CancelToken()

        def act(number: int) -> int:
            if number == 5:
                cancel.cancel()
            return number

        with pytest.raises(Cancelled):
            list(ordered_map(act, range(100_000), threads=2, ahead=4, cancel=cancel))

    def test_it_does_not_run_ahead(self) -> None:
        begun: list[int] = []
        found = ordered_map(begun.append, range(1000), threads=2, ahead=4, cancel=CancelToken())
        next(found)
        assert len(begun) <= 8
        found.close()
