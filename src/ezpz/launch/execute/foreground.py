"""Runs a command on this terminal: it has the stdio of ezpz and gets its signals."""

from __future__ import annotations

import math
import signal
import time
from typing import TYPE_CHECKING

from ezpz.runtime.process import end_tree, signal_group, start, to_group
from ezpz.runtime.signals import ENDING, FORWARDED, collected_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.runtime.process import Argument, Running
    from ezpz.runtime.signals import Collected


def run_in_foreground(
    argv: Sequence[Argument],
    *,
    envs: Sequence[Mapping[str, str]],
    grace: float,
    stdout: int | None = None,
    stderr: int | None = None,
    forward_signal: Callable[[Running, int], None] = to_group,
    is_hopeless: Callable[[], bool] | None = None,
) -> int:
    """Run `argv` once per environment in parallel and return the exit status as a shell reports it.

    The status is the first that is not 0; the other processes are ended then. It is never 0 after a signal that asks to
    end, but 128 + N for the first one, N: MPICH's mpiexec ends with 0 after Ctrl-C. Call it in the main thread.

    Args:
        argv: The command line.
        envs: The environment of each process.
        grace: Seconds to end after a signal that asks to end. After another such signal, processes are ended at once.
        stdout: A descriptor in place of stdout.
        stderr: A descriptor in place of stderr.
        forward_signal: How signals are sent; by default to the whole process group.
        is_hopeless: Called twice per second; if it returns True, all processes are ended.

    Raises:
        ToolMissing: The program does not exist.
        OSError: The file is not a program.
    """
    processes: list[Running] = []
    failed: Running | None = None
    requested = 0
    with collected_signals(FORWARDED) as signals:
        wait = _Wait(signals, grace, forward_signal, is_hopeless)
        try:
            for env in envs:
                processes.append(start(argv, stdin=None, stdout=stdout, stderr=stderr, env=env))  # noqa: PERF401 - each is ended below
            failed = wait.until_ended(processes)
        finally:
            requested = wait.requested
            for process in processes:
                if process.returncode is None or requested:  # what outlived its leader is also asked to end
                    signal_group(process.pid, signal.SIGTERM)
            for process in processes:
                end_tree(process)
    failed = failed or _first_failed(processes)
    status = failed.returncode if failed else -requested
    return status if status >= 0 else 128 - status


class _Wait:
    """Waits for processes and forwards signals. `requested` is the first signal that asked to end, 0 for none."""

    def __init__(
        self,
        signals: Collected,
        grace: float,
        forward_signal: Callable[[Running, int], None],
        is_hopeless: Callable[[], bool] | None,
    ) -> None:
        self.signals = signals
        self.grace = grace
        self.forward_signal = forward_signal
        self.is_hopeless = is_hopeless
        self.requested = 0
        self.deadline = math.inf

    def until_ended(self, processes: Sequence[Running]) -> Running | None:
        """Wait until all processes have ended or must be ended. Return the first that failed."""
        failed: Running | None = None
        while running := [process for process in processes if process.poll() is None]:
            failed = failed or _first_failed(processes)
            left = self.deadline - time.monotonic()
            if left <= 0 or (failed and not self.requested) or (self.is_hopeless and self.is_hopeless()):
                break
            for number in self.signals.within(min(left, 0.5) if self.is_hopeless else left):
                self._forward(number, running)
        return failed

    def _forward(self, number: int, running: Sequence[Running]) -> None:
        for process in running:
            self.forward_signal(process, number)
        if number in ENDING:
            self.deadline = time.monotonic() + (0.0 if self.requested else self.grace)
            self.requested = self.requested or number


def _first_failed(processes: Sequence[Running]) -> Running | None:
    return next((process for process in processes if process.returncode), None)
