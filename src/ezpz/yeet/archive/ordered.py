"""Ordered: many threads do the same with one thing after the other, and the results come in the order of the things."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from ezpz.crew import Crew
from ezpz.process import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 0.2  # seconds that a result is waited for before it is looked whether one will ever come


class _Slot(Generic[T, R]):
    """A thing, and its result once there is one."""

    def __init__(self, thing: T) -> None:
        self.thing = thing
        self.result: list[R] = []
        self.done = threading.Event()


def in_order(
    things: Iterable[T], act: Callable[[T], R], *, threads: int, ahead: int, stop: threading.Event
) -> Iterator[R]:
    """What `act`, called from so many threads, makes of each thing, in their order; `ahead` results may wait.

    Raises what went wrong first, or Stopped once `stop` is set. Close it when no more is wanted.
    """

    def work(slot: _Slot[T, R]) -> None:
        slot.result.append(act(slot.thing))
        slot.done.set()

    crew = Crew(threads, ahead, work, stop)
    waiting: deque[_Slot[T, R]] = deque()
    ended = False
    try:
        for thing in things:
            slot: _Slot[T, R] = _Slot(thing)
            crew.give(slot)
            waiting.append(slot)
            if len(waiting) > ahead:
                yield _result(waiting.popleft(), crew)
        while waiting:
            yield _result(waiting.popleft(), crew)
        ended = True
    finally:
        if not ended:
            stop.set()
            with suppress(Stopped):
                crew.finish()
            if crew.failure is not None:
                raise crew.failure from None
    crew.finish()


def _result(slot: _Slot[T, R], crew: Crew[_Slot[T, R]]) -> R:
    while not slot.done.wait(PATIENCE):
        if crew.is_over and not slot.done.is_set():
            raise Stopped
    return slot.result[0]
