"""Crew: threads that do the same with whatever they are given, until one of them fails or they are stopped."""

from __future__ import annotations

import contextlib
import queue
from typing import TYPE_CHECKING, Generic, TypeVar

from ezpz.process import Stopped
from ezpz.worker import Worker

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

T = TypeVar("T")

PATIENCE = 0.2  # seconds that something is offered before it is looked whether anybody is left to take it


class Crew(Generic[T]):
    """Threads that call `act`; call `finish` always, also when giving has failed.

    waiting: things that may wait for a thread; stop: set when nothing of it is wanted any more
    """

    def __init__(self, threads: int, waiting: int, act: Callable[[T], None], stop: threading.Event) -> None:
        self.act = act
        self.stop = stop
        self.failure: BaseException | None = None
        self._things: queue.Queue[tuple[T] | None] = queue.Queue(waiting)
        self._workers = [Worker.started(self._work, self._fail) for _ in range(threads)]

    @property
    def is_over(self) -> bool:
        """Whether nothing more is wanted."""
        return self.failure is not None or self.stop.is_set()

    def give(self, thing: T) -> None:
        """Hand something to whoever is free, waiting for that; once it is over, whatever is given is dropped."""
        self._put((thing,))

    def finish(self) -> None:
        """Wait until all is done. Raises what went wrong first, or Stopped."""
        for _ in self._workers:
            self._put(None)
        for worker in self._workers:
            worker.join()
        if self.stop.is_set():
            raise Stopped
        if self.failure is not None:
            raise self.failure

    def _put(self, what: tuple[T] | None) -> None:
        while True:
            with contextlib.suppress(queue.Full):
                self._things.put(what, timeout=PATIENCE)
                return
            if self.is_over:  # nobody may be left to take it
                return

    def _work(self) -> None:
        while (what := self._things.get()) is not None:
            if self.is_over:
                return
            self.act(what[0])

    def _fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
