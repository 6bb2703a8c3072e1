"""Runs the command of one attempt and reads its output: idle timeout, signals, and a listener for the output."""

from __future__ import annotations

import math
import os
import selectors
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ezpz.launch.output.nonblocking_writer import NonblockingWriter
from ezpz.launch.output.pty import copy_window_size, open_terminal
from ezpz.runtime.process import PIPE, end_tree, exit_status, signal_group, start, to_group
from ezpz.runtime.signals import ENDING, FORWARDED, collected_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.runtime.process import Running
    from ezpz.runtime.signals import Collected

CHUNK_BYTES = 1 << 16
DRAIN_SECONDS = 1.0  # for the last output after the end; a process that was left can keep the pipe open
IDLE_STATUS = 124  # as of timeout(1)
STDERR = 2


class OutputListener(Protocol):
    """Takes the output of an attempt and decides what to show. It wants `flush` to be called at `due`."""

    @property
    def due(self) -> float:
        """A time of time.monotonic, infinite for never."""

    def feed(self, which: int, name: str, data: bytes, now: float) -> bytes:
        """Take output of a copy of the command (0 for a launcher) on "stdout" or "stderr". Return what to show."""

    def flush(self, now: float) -> Sequence[tuple[str, bytes]]:
        """Return held output to show now, each part with its stream. An infinite `now` returns all of it."""

    def should_end(self, now: float) -> bool:
        """Return whether the run can no longer succeed although it continues."""

    def end_requested(self) -> None:
        """Take note that the run is asked to end. Later output is about that."""


@dataclass(frozen=True, slots=True)
class MonitorRules:
    """How a command is monitored.

    Attributes:
        grace: Seconds to end by itself after a signal that asks to end.
        idle: Seconds of silence after which it is ended, None for never.
        pty: Whether its stdout and stderr are a terminal.
        forward_signal: How signals are sent to it.
    """

    grace: float
    idle: float | None = None
    pty: bool = False
    forward_signal: Callable[[Running, int], None] = to_group


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a run ended.

    Attributes:
        status: The exit status as a shell reports it.
        idle: Whether it was ended because it was silent.
        signals: The signals that ezpz got.
        first_failed: The number of the copy that failed first by itself, if one did.
    """

    status: int
    idle: bool = False
    signals: tuple[int, ...] = ()
    first_failed: int | None = field(default=None, compare=False)

    @property
    def was_requested(self) -> bool:
        """Whether it ended because it was asked to end."""
        return self.idle or not ENDING.isdisjoint(self.signals)


def run_monitored(
    argv: Sequence[str],
    *,
    envs: Sequence[Mapping[str, str]],
    listener: OutputListener,
    rules: MonitorRules,
    stdout: int | None = None,
) -> ProcessEnd:
    """Run `argv` once per environment in parallel, forward the output, and return how it ended.

    The status is the first that is not 0; the other copies are ended then. Signals are forwarded to each copy. A copy
    that is left `rules.grace` seconds after a signal that asks to end is ended, after another such signal at once.
    Silence counts as such a signal. Call it in the main thread.

    Args:
        argv: The command line.
        envs: The environment of each copy.
        listener: Takes the output and decides what to show.
        rules: Timeouts, the terminal, and how signals are sent.
        stdout: A descriptor in place of stdout.

    Raises:
        ToolMissing: The program does not exist.
        BrokenPipeError: The reader of the output has closed its end.
        OSError: The file is not a program.
    """
    with collected_signals(FORWARDED) as signals:
        run = _MonitoredRun(listener, rules, signals, stdout)
        try:
            try:
                for env in envs:
                    run.start(argv, env)
                run.wait()
            finally:
                run.end()
            run.drain()
        finally:
            run.close()
    return run.result()


class _MonitoredRun:
    """The processes of a run, their output, and the reasons to end them."""

    def __init__(self, listener: OutputListener, rules: MonitorRules, signals: Collected, stdout: int | None) -> None:
        self.listener = listener
        self.rules = rules
        self.signals = signals
        err = NonblockingWriter(STDERR)
        self.writers = {
            "stdout": err if stdout == STDERR else NonblockingWriter(1 if stdout is None else stdout),
            "stderr": err,
        }
        self.urgent = selectors.DefaultSelector()  # signals, and slow readers of our output
        self.urgent.register(signals, selectors.EVENT_READ)
        self.selector = selectors.DefaultSelector()  # these, and the output of the command
        self.selector.register(self.urgent, selectors.EVENT_READ)
        self.sources: dict[int, tuple[int, str]] = {}
        self.processes: list[Running] = []
        self.received: list[int] = []
        self.idle = False
        self.end_requested = False
        self.deadline = math.inf
        self.status = 0
        self.first_failed: int | None = None
        self.last_output = time.monotonic()

    def start(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a copy."""
        number = len(self.processes)
        if self.rules.pty:
            controller, terminal = open_terminal()
            self._add_source(controller, number, "stdout")  # `close` closes it from here on
            try:
                self.processes.append(start(argv, stdin=None, stdout=terminal, stderr=terminal, env=env))
            finally:
                os.close(terminal)
            return
        process = start(argv, stdin=None, stdout=PIPE, stderr=PIPE, env=env)
        self.processes.append(process)
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            assert stream is not None
            self._add_source(os.dup(stream.fileno()), number, name)
            stream.close()

    def _add_source(self, descriptor: int, which: int, name: str) -> None:
        self.sources[descriptor] = (which, name)
        self.selector.register(descriptor, selectors.EVENT_READ)

    def wait(self) -> None:
        """Handle output and signals until all copies have ended or must be ended."""
        while self._running():
            now = time.monotonic()
            failed = any(exit_status(process) for process in self.processes)
            if now >= self.deadline or (failed and not self.end_requested):
                return
            self._check_idle(now)
            self._poll(self._select_timeout(now))

    def _running(self) -> list[Running]:
        return [process for process in self.processes if exit_status(process) is None]

    def _check_idle(self, now: float) -> None:
        """Ask the run to end if it is silent or can no longer succeed."""
        if self.end_requested:
            return
        self.idle = self.rules.idle is not None and now - self.last_output >= self.rules.idle
        if self.idle or self.listener.should_end(now):
            self._forward_signal(signal.SIGTERM)

    def _select_timeout(self, now: float) -> float:
        """Return the seconds until something is due."""
        due = [self.deadline, self.listener.due]
        if self.rules.idle is not None and not self.end_requested:
            due.append(self.last_output + self.rules.idle)
        return max(0.0, min(1.0, *(each - now for each in due)))

    def _forward_signal(self, number: int) -> None:
        """Forward a signal. The first one that asks to end starts the grace period, the second ends it."""
        for process in self._running():
            self.rules.forward_signal(process, number)
        if number == signal.SIGWINCH and self.rules.pty:
            for descriptor in self.sources:
                copy_window_size(descriptor)
        if number in ENDING:
            self.deadline = time.monotonic() + (0.0 if self.end_requested else self.rules.grace)
            self.end_requested = True
            self.listener.end_requested()

    def _poll(self, timeout: float) -> bool:
        """Wait for output, signals, and ends, and forward them. Return whether there was output."""
        full = any(writer.is_full for writer in self.writers.values())
        ready = (self.urgent if full else self.selector).select(timeout)
        for number in self.signals.within(0.0):
            if number != signal.SIGWINCH:
                self.received.append(number)
            self._forward_signal(number)
        outputs = [self._read(key.fd) for key, _ in ready if key.fd in self.sources]
        now = time.monotonic()
        if now >= self.listener.due:
            self._show(self.listener.flush(now))
        self._drain()
        if any(outputs) or full:  # a command that waits for the reader of our output is not idle
            self.last_output = now
        return any(outputs)

    def _drain(self) -> None:
        """Write as much pending output as possible without blocking. `urgent` waits for the readers of the rest."""
        for writer in dict.fromkeys(self.writers.values()):
            writer.drain()
            is_registered = writer.descriptor in self.urgent.get_map()
            if is_registered and writer.is_empty:
                self.urgent.unregister(writer.descriptor)
            elif not is_registered and not writer.is_empty:
                self.urgent.register(writer.descriptor, selectors.EVENT_WRITE)

    def _read(self, descriptor: int) -> bool:
        which, name = self.sources[descriptor]
        try:
            data = os.read(descriptor, CHUNK_BYTES)
        except OSError:  # EIO: the last process on the terminal has closed it
            data = b""
        if not data:
            self._close_source(descriptor)
            return False
        self.writers[name].write(self.listener.feed(which, name, data, time.monotonic()))
        return True

    def _close_source(self, descriptor: int) -> None:
        self.selector.unregister(descriptor)
        del self.sources[descriptor]
        os.close(descriptor)

    def _show(self, pieces: Sequence[tuple[str, bytes]]) -> None:
        for name, data in pieces:
            self.writers[name].write(data)

    def end(self) -> None:
        """End the copies that run. If the run was asked to end, also end what outlived its group leader."""
        statuses = [exit_status(process) for process in self.processes]
        self.status = next(filter(None, statuses), 0)
        self.first_failed = statuses.index(self.status) if self.status and not self.end_requested else None
        late = [process for process in self.processes if exit_status(process) is None or self.end_requested]
        for process in late:
            signal_group(process.pid, signal.SIGTERM)
        for process in late:
            end_tree(process)
        for process in self.processes:
            process.poll()
        self.status = self.status or next(filter(None, (process.returncode for process in self.processes)), 0)

    def drain(self) -> None:
        """Forward the last output."""
        until = time.monotonic() + DRAIN_SECONDS
        while self.sources and time.monotonic() < until:
            if self._poll(0.05):
                until = time.monotonic() + DRAIN_SECONDS
        self._show(self.listener.flush(math.inf))
        self._drain()
        is_interrupted = False
        while any(not writer.is_empty for writer in self.writers.values()) and not is_interrupted:
            self.urgent.select()
            is_interrupted = any(number in ENDING for number in self.signals.within(0.0))
            self._drain()

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in list(self.sources):
            self._close_source(descriptor)
        self.selector.close()
        self.urgent.close()

    def result(self) -> ProcessEnd:
        """Return how the run ended. An interrupted run is not a success: MPICH's mpiexec ends with 0 after Ctrl-C."""
        status = self.status
        ending = [number for number in self.received if number in ENDING]
        if self.idle:
            status = IDLE_STATUS
        elif not status and ending:
            status = -ending[0]
        elif not status and self.end_requested:
            status = -signal.SIGTERM
        return ProcessEnd(status if status >= 0 else 128 - status, self.idle, tuple(self.received), self.first_failed)
