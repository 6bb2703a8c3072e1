"""Handlers of signals: raise KeyboardInterrupt, cancel, or collect signals to forward them.

The exit status of an interrupted command is 128 + N for the first signal N. A signal that the process was started to
ignore (nohup, a background job of a script) stays ignored. Use these functions in the main thread only.
"""

from __future__ import annotations

import contextlib
import math
import select
import signal
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from ezpz.errors import Interrupted

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence

T = TypeVar("T")

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # end every command
ENDING = frozenset((*INTERRUPTS, signal.SIGQUIT))  # ask the ranks of a launch to end
NOTICED = ENDING | {signal.SIGUSR1, signal.SIGUSR2}  # schedulers send the last two before the time is over
FORWARDED = NOTICED | {signal.SIGWINCH}


class Received:
    """The signals that came within a context, and within nested contexts."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    @property
    def first(self) -> int:
        """The first signal, which decides the exit status; 0 for none."""
        return self.numbers[0] if self.numbers else 0


_contexts: list[Received] = []  # the innermost is the last


@contextlib.contextmanager
def _handled(numbers: Collection[int], react: Callable[[int], object], wakeup_fd: int = -1) -> Iterator[Received]:
    """Record these signals and call `react` with each, in the main thread between two bytecodes."""
    received = Received()

    def handle(number: int, _frame: object) -> None:
        received.numbers.append(number)
        react(number)

    kept = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    wakeup = signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    _contexts.append(received)
    before = {number: signal.signal(number, handle) for number in kept}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        _contexts.pop()
        signal.set_wakeup_fd(wakeup)
        if _contexts:
            _contexts[-1].numbers += received.numbers


@contextlib.contextmanager
def interruptible() -> Iterator[Received]:
    """Raise KeyboardInterrupt for each of INTERRUPTS within the context. In other threads, change nothing.

    KeyboardInterrupt is no Exception, so that no handler of errors catches it, and asyncio ends its loop.
    """

    def react(_number: int) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield Received()
        return
    with _handled(INTERRUPTS, react) as received:
        yield received


@contextlib.contextmanager
def cancel_on_signal(cancel: Callable[[], object]) -> Iterator[Received]:
    """Call `cancel`, which must take no lock, on the first of INTERRUPTS. The next one raises KeyboardInterrupt."""

    def react(_number: int) -> None:
        if len(received.numbers) > 1:
            raise KeyboardInterrupt
        cancel()

    with _handled(INTERRUPTS, react) as received:
        yield received


@contextlib.contextmanager
def cancel_task_on_signal(
    cancel: Callable[[], object] = lambda: None, *, numbers: Collection[int] = INTERRUPTS
) -> Iterator[Received]:
    """Call `cancel` from the loop and cancel the current task on the first signal within the context.

    Later signals are only recorded, so that nothing interrupts the cleanup.
    """
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        cancel()
        task.cancel()

    def react(_number: int) -> None:
        if len(received.numbers) == 1:
            loop.call_soon_threadsafe(interrupt)

    with _handled(numbers, react) as received:
        yield received


def run_async(main: Coroutine[Any, Any, T], *, numbers: Collection[int] = INTERRUPTS) -> T:
    """Run a coroutine in its own loop. The first signal cancels it. Raises Interrupted."""
    import asyncio

    async def run() -> T:
        with cancel_task_on_signal(numbers=numbers) as received:
            try:
                result = await main
            except asyncio.CancelledError:
                if not received.first:
                    raise
        if received.first:
            raise Interrupted("interrupted", signal=received.first)
        return result

    return asyncio.run(run())


class Collected:
    """Signals that are waited for. The descriptor is readable once a signal came or a child ended."""

    def __init__(self, descriptor: socket.socket) -> None:
        self._ours = descriptor

    def fileno(self) -> int:
        """Return the descriptor, for select."""
        return self._ours.fileno()

    def within(self, seconds: float) -> Sequence[int]:
        """Return the new signals once a signal came or a child ended, or after so many seconds."""
        ready, _, _ = select.select((self._ours,), (), (), None if seconds == math.inf else max(0.0, seconds))
        return [number for number in (self._ours.recv(4096) if ready else b"") if number != signal.SIGCHLD]


@contextlib.contextmanager
def collected_signals(numbers: Collection[int]) -> Iterator[Collected]:
    """Collect these signals within the context. They have no other effect."""
    import socket

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs, _handled((*numbers, signal.SIGCHLD), lambda _: None, theirs.fileno()):
        yield Collected(ours)
