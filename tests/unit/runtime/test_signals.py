"""Signals are heard everywhere alike, and the first one decides the exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.errors import Interrupted
from ezpz.runtime.signals import (
    INTERRUPTS,
    cancel_on_signal,
    cancel_task_on_signal,
    collected_signals,
    interruptible,
    run_async,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

every = pytest.mark.parametrize("number", INTERRUPTS)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = [signal.getsignal(number) for number in INTERRUPTS]
    yield
    assert [signal.getsignal(number) for number in INTERRUPTS] == before
    wakeup = signal.set_wakeup_fd(-1)
    assert wakeup == -1


def send(number: int) -> None:
    os.kill(os.getpid(), number)


async def forever() -> None:
    await asyncio.Event().wait()


@every
def test_a_signal_is_raised_as_a_keyboard_interrupt(number: int) -> None:
    with interruptible() as received, pytest.raises(KeyboardInterrupt):
        send(number)
    assert received.first == number


def test_every_signal_is_raised_and_the_first_one_counts() -> None:
    with interruptible() as received:
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert received.first == signal.SIGHUP


def test_another_thread_than_the_main_one_changes_nothing() -> None:
    before, within = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with interruptible():
            within.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert within == [before]


@every
def test_a_signal_cancels_work_in_threads(number: int) -> None:
    cancel = CancelToken()
    with cancel_on_signal(cancel.cancel) as received:
        send(number)
        with pytest.raises(Cancelled):
            cancel.raise_if_cancelled()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert received.first == number


@every
def test_a_signal_cancels_a_coroutine(number: int) -> None:
    async def act() -> None:
        asyncio.get_running_loop().call_soon(send, number)
        await forever()

    with pytest.raises(Interrupted) as raised:
        run_async(act())
    assert raised.value.exit_code == 128 + number


def test_later_signals_leave_the_cleaning_up_in_peace() -> None:
    cleaned: list[bool] = []

    async def act() -> None:
        asyncio.get_running_loop().call_soon(send, signal.SIGTERM)
        try:
            await forever()
        finally:
            send(signal.SIGINT)
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(Interrupted) as raised:
        run_async(act())
    assert (cleaned, raised.value.signal) == ([True], signal.SIGTERM)


def test_code_that_catches_every_error_does_not_catch_a_signal() -> None:
    """A node's failure is an answer: an Interrupted that is raised by a handler would be taken for one."""
    failures: list[BaseException] = []

    async def act() -> None:
        try:
            send(signal.SIGTERM)
            await forever()
        except Exception as e:  # noqa: BLE001
            failures.append(e)

    with pytest.raises(Interrupted) as raised:
        run_async(act())
    assert (failures, raised.value.signal) == ([], signal.SIGTERM)


def test_a_signal_as_the_work_ends_counts() -> None:
    async def act() -> int:
        send(signal.SIGTERM)
        return 7

    with pytest.raises(Interrupted):
        run_async(act())


def test_what_the_work_raises_comes_through() -> None:
    async def act() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        run_async(act())


def test_the_first_signal_of_an_inner_context_counts_for_the_outer_one() -> None:
    async def act() -> None:
        with cancel_task_on_signal():
            send(signal.SIGHUP)
            await forever()

    with interruptible() as received:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(act())
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert received.first == signal.SIGHUP


@pytest.mark.processes
def test_collected_signals_wait_to_be_taken() -> None:
    with collected_signals((signal.SIGTERM, signal.SIGUSR1)) as collected:
        assert collected.within(0) == []
        send(signal.SIGTERM)
        send(signal.SIGUSR1)
        assert collected.within(5) == [signal.SIGTERM, signal.SIGUSR1]
        with subprocess.Popen(["true"]):
            assert collected.within(5) == []


def test_an_inner_context_takes_signals_from_a_collecting_one() -> None:
    with collected_signals((signal.SIGTERM,)) as collected:
        with pytest.raises(Interrupted):
            run_async(forever_after(lambda: send(signal.SIGTERM)))
        assert collected.within(0) == []
        send(signal.SIGTERM)
        assert collected.within(5) == [signal.SIGTERM]


async def forever_after(act: Callable[[], None]) -> None:
    act()
    await forever()


@pytest.mark.processes
@every
def test_one_that_was_ignored_stays_ignored(number: int) -> None:
    program = (
        "import os, signal, sys; from ezpz.runtime.signals import *; number = int(sys.argv[1])\n"
        "with interruptible(): os.kill(os.getpid(), number)\n"
        "with cancel_on_signal(sys.exit): os.kill(os.getpid(), number)\n"
        "async def act(): os.kill(os.getpid(), number)\n"
        "run_async(act())\n"
        "with collected_signals([number]) as found: os.kill(os.getpid(), number); print(found.within(0))\n"
    )
    ignoring = (
        f"import signal, os, sys; signal.signal({int(number)}, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    argv = [sys.executable, "-c", ignoring, sys.executable, "-c", program, str(int(number))]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
