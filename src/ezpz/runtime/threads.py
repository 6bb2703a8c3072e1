"""Threads outside asyncio: a background thread, a pool that calls one function, and an ordered map.

All are daemon threads: one that hangs on a filesystem must not keep the process from ending.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from ezpz.agent.common.cancel import Cancelled, CancelToken

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")

POLL_SECONDS = 0.2  # after which a thread that waits for another one checks whether that one has failed


class BackgroundThread(threading.Thread, Generic[T]):
    """A running daemon thread that calls `act` once.

    It calls `on_error` with the exception that `act` raised, or `on_result` with the result.
    """

    def __init__(
        self,
        act: Callable[[], T],
        on_error: Callable[[BaseException], object],
        on_result: Callable[[T], object] = lambda _: None,
    ) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._on_error = on_error
        self._on_result = on_result
        self.start()

    def run(self) -> None:
        """Call `act` and report how it ended."""
        try:
            result = self._act()
        except BaseException as e:  # noqa: BLE001 - every failure is reported, and raised again by `join`
            self._on_error(e)
        else:
            self._on_result(result)


def run_in_background(act: Callable[[], T]) -> Future[T]:
    """Call `act` in its own thread and return the future of its result."""
    from concurrent.futures import Future  # imported late: the import takes as long as the rest of this package

    future: Future[T] = Future()
    BackgroundThread(act, future.set_exception, future.set_result)
    return future


class WorkerPool(Generic[T]):
    """Threads that call `act` with each submitted item, until one call fails or the work is canceled.

    Call `join` in any case, also if submitting failed.

    Args:
        threads: how many threads
        waiting: how many items may wait for a thread
        act: called with each item
        cancel: cancels the work
    """

    def __init__(self, threads: int, waiting: int, act: Callable[[T], object], cancel: CancelToken) -> None:
        self.act = act
        self.cancel = cancel
        self.failure: BaseException | None = None
        self._closed = False
        self._items: queue.Queue[tuple[T] | None] = queue.Queue(waiting)
        self._threads = [BackgroundThread(self._work, self._fail) for _ in range(threads)]

    @property
    def is_stopped(self) -> bool:
        """Whether no more items are processed."""
        return self.failure is not None or self._closed or self.cancel.is_cancelled

    def submit(self, item: T) -> None:
        """Pass an item to a free thread; wait until the queue has room. Drop the item once the pool is stopped."""
        self._put((item,))

    def join(self) -> None:
        """Wait until every item is processed. Raises the first failure, or `Cancelled`."""
        self._join()
        self.cancel.raise_if_cancelled()
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Drop the items that wait, and wait for the running calls to end."""
        self._closed = True
        self._join()

    def _join(self) -> None:
        for _ in self._threads:
            self._put(None)
        for thread in self._threads:
            thread.join()

    def _put(self, what: tuple[T] | None) -> None:
        while True:
            with suppress(queue.Full):
                self._items.put(what, timeout=POLL_SECONDS)
                return
            if self.is_stopped:  # all threads may have ended
                return

    def _work(self) -> None:
        while (what := self._items.get()) is not None:
            if self.is_stopped:
                return
            self.act(what[0])

    def _fail(self, error: BaseException) -> None:
        self.failure = self.failure or error


class _Slot(Generic[T, R]):
    """An item, and its result once there is one."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.result: list[R] = []
        self.done = threading.Event()


def ordered_map(
    act: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int, cancel: CancelToken
) -> Generator[R, None, None]:
    """Call `act` with each item in several threads and yield the results in the order of the items.

    At most `ahead` results wait to be taken. Close the iterator when no more results are needed.
    Raises the first failure, or `Cancelled` once `cancel` is set.
    """

    def work(slot: _Slot[T, R]) -> None:
        slot.result.append(act(slot.item))
        slot.done.set()

    pool = WorkerPool(threads, ahead, work, cancel)
    waiting: deque[_Slot[T, R]] = deque()
    ended = False
    try:
        for item in items:
            slot: _Slot[T, R] = _Slot(item)
            pool.submit(slot)
            waiting.append(slot)
            if len(waiting) > ahead:
                yield _result(waiting.popleft(), pool)
        while waiting:
            yield _result(waiting.popleft(), pool)
        ended = True
    finally:
        if not ended:
            pool.close()
            if pool.failure is not None:
                raise pool.failure from None
    pool.join()


def _result(slot: _Slot[T, R], pool: WorkerPool[_Slot[T, R]]) -> R:
    while not slot.done.wait(POLL_SECONDS):
        if pool.is_stopped and not slot.done.is_set():
            raise Cancelled
    return slot.result[0]
