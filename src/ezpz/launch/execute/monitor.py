"""Run the command of one attempt while its output goes through us: idle timeout, signals, whatever listens."""

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

CHUNK_BYTES = 1 << 16  # bytes
DRAIN_SECONDS = (
    1.0  # seconds that output may still come after its process has ended: what a process left behind may hold it
)
IDLE_STATUS = 124  # as of timeout(1)
STDERR = 2


class OutputListener(Protocol):
    """Hears the output of an attempt, and decides what of it is shown. `due` is when it wants `settle` to be called."""

    @property
    def due(self) -> float:
        """A moment of time.monotonic, infinite for never."""

    def feed(self, which: int, name: str, data: bytes, now: float) -> bytes:
        """Output of the command's copy `which` (0 for a launcher) on "stdout" or "stderr"; what of it is shown."""

    def flush(self, now: float) -> Sequence[tuple[str, bytes]]:
        """What it held back and shows now, each with its stream; all of it when `now` is infinite."""

    def should_end(self, now: float) -> bool:
        """Whether the run can no longer succeed although it goes on."""

    def end_requested(self) -> None:
        """It has been asked to end: what is said from here on is about that."""


@dataclass(frozen=True, slots=True)
class MonitorRules:
    """idle: seconds of silence after which it is ended, None for never; grace: seconds to end by itself when asked to.

    pty: stdout and stderr of the command are a terminal; pass_on: how signals get to it
    """

    grace: float
    idle: float | None = None
    pty: bool = False
    forward_signal: Callable[[Running, int], None] = to_group


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a run ended: the status as a shell has it, whether because it was idle, and which signals we got.

    first_failed: the copy that failed first by itself, if one did
    """

    status: int
    idle: bool = False
    signals: tuple[int, ...] = ()
    first_failed: int | None = field(default=None, compare=False)

    @property
    def was_requested(self) -> bool:
        """It ended because it was asked to."""
        return self.idle or not ENDING.isdisjoint(self.signals)


def run_monitored(
    argv: Sequence[str],
    *,
    envs: Sequence[Mapping[str, str]],
    listener: OutputListener,
    rules: MonitorRules,
    stdout: int | None = None,
) -> ProcessEnd:
    """Run `argv` once for each environment, all at once, and pass on what they say; return how it ended.

    The status is the first that is not 0, and then the others are ended. Signals that this process gets go on to each;
    `rules.grace` seconds after one that asks to end, or at the second one, what is left is ended. Silence is treated
    like such a signal. `stdout`: a descriptor to take the place of ours. For the main thread only.
    Raises ToolMissing, BrokenPipeError when nobody reads what we write, and OSError for a file that is no program.
    """
    with collected_signals(FORWARDED) as signals:
        run = _MonitoredRun(listener, rules, signals, stdout)
        try:
            try:
                for env in envs:
                    run.start(argv, env)
                run.follow()
            finally:
                run.end()
            run.drain()
        finally:
            run.close()
    return run.result()


class _MonitoredRun:
    """The processes of a run, their output, and why they should end."""

    def __init__(self, listener: OutputListener, rules: MonitorRules, signals: Collected, stdout: int | None) -> None:
        self.listener = listener
        self.rules = rules
        self.signals = signals
        err = NonblockingWriter(STDERR)
        self.outlets = {
            "stdout": err if stdout == STDERR else NonblockingWriter(1 if stdout is None else stdout),
            "stderr": err,
        }
        self.urgent = selectors.DefaultSelector()  # signals, and our readers while they are slow
        self.urgent.register(signals, selectors.EVENT_READ)
        self.selector = selectors.DefaultSelector()  # these, and what the command says
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
        """Start one copy."""
        number = len(self.processes)
        if self.rules.pty:
            ours, theirs = open_terminal()
            self._listen(ours, number, "stdout")  # from here on, `close` closes it
            try:
                self.processes.append(start(argv, stdin=None, stdout=theirs, stderr=theirs, env=env))
            finally:
                os.close(theirs)
            return
        process = start(argv, stdin=None, stdout=PIPE, stderr=PIPE, env=env)
        self.processes.append(process)
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            assert stream is not None
            self._listen(os.dup(stream.fileno()), number, name)
            stream.close()

    def _listen(self, descriptor: int, which: int, name: str) -> None:
        self.sources[descriptor] = (which, name)
        self.selector.register(descriptor, selectors.EVENT_READ)

    def follow(self) -> None:
        """Until all have ended, or must."""
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
        """End it if it says nothing any more, or is doomed."""
        if self.end_requested:
            return
        self.idle = self.rules.idle is not None and now - self.last_output >= self.rules.idle
        if self.idle or self.listener.should_end(now):
            self._forward_signal(signal.SIGTERM)

    def _select_timeout(self, now: float) -> float:
        """Seconds until something is due."""
        due = [self.deadline, self.listener.due]
        if self.rules.idle is not None and not self.end_requested:
            due.append(self.last_output + self.rules.idle)
        return max(0.0, min(1.0, *(each - now for each in due)))

    def _forward_signal(self, number: int) -> None:
        """Pass on a signal; one that asks to end gives a grace, the second one none."""
        for process in self._running():
            self.rules.forward_signal(process, number)
        if number == signal.SIGWINCH and self.rules.pty:
            for descriptor in self.sources:
                copy_window_size(descriptor)
        if number in ENDING:
            self.deadline = time.monotonic() + (0.0 if self.end_requested else self.rules.grace)
            self.end_requested = True
            self.listener.end_requested()

    def _poll(self, patience: float) -> bool:
        """Wait for output, signals and ends; pass on what there is. False if there was nothing."""
        full = any(outlet.is_full for outlet in self.outlets.values())
        ready = (self.urgent if full else self.selector).select(patience)
        for number in self.signals.within(0.0):
            if number != signal.SIGWINCH:
                self.received.append(number)
            self._forward_signal(number)
        heard = [self._read(key.fd) for key, _ in ready if key.fd in self.sources]
        now = time.monotonic()
        if now >= self.listener.due:
            self._show(self.listener.flush(now))
        self._drain()
        if any(heard) or full:  # who waits for our reader is not idle
            self.last_output = now
        return any(heard)

    def _drain(self) -> None:
        """Write what waits for our readers as far as they take it, and have `urgent` wait for them to take the rest."""
        for outlet in dict.fromkeys(self.outlets.values()):
            outlet.drain()
            known = outlet.descriptor in self.urgent.get_map()
            if known and outlet.is_empty:
                self.urgent.unregister(outlet.descriptor)
            elif not known and not outlet.is_empty:
                self.urgent.register(outlet.descriptor, selectors.EVENT_WRITE)

    def _read(self, descriptor: int) -> bool:
        which, name = self.sources[descriptor]
        try:
            data = os.read(descriptor, CHUNK_BYTES)
        except OSError:  # EIO: the last user of a terminal has closed it
            data = b""
        if not data:
            self._close_source(descriptor)
            return False
        self.outlets[name].write(self.listener.feed(which, name, data, time.monotonic()))
        return True

    def _close_source(self, descriptor: int) -> None:
        self.selector.unregister(descriptor)
        del self.sources[descriptor]
        os.close(descriptor)

    def _show(self, pieces: Sequence[tuple[str, bytes]]) -> None:
        for name, data in pieces:
            self.outlets[name].write(data)

    def end(self) -> None:
        """End what still runs, and what outlived its leader if it was asked to end."""
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
        """Pass on what they said last."""
        until = time.monotonic() + DRAIN_SECONDS
        while self.sources and time.monotonic() < until:
            if self._poll(0.05):
                until = time.monotonic() + DRAIN_SECONDS
        self._show(self.listener.flush(math.inf))
        self._drain()
        hurried = False
        while any(not outlet.is_empty for outlet in self.outlets.values()) and not hurried:
            self.urgent.select()
            hurried = any(number in ENDING for number in self.signals.within(0.0))
            self._drain()

    def close(self) -> None:
        """Let go of what we read from."""
        for descriptor in list(self.sources):
            self._close_source(descriptor)
        self.selector.close()
        self.urgent.close()

    def result(self) -> ProcessEnd:
        """How it ended. An interrupted run is no success: MPICH's mpiexec answers Ctrl-C with 0."""
        status = self.status
        ending = [number for number in self.received if number in ENDING]
        if self.idle:
            status = IDLE_STATUS
        elif not status and ending:
            status = -ending[0]
        elif not status and self.end_requested:
            status = -signal.SIGTERM
        return ProcessEnd(status if status >= 0 else 128 - status, self.idle, tuple(self.received), self.first_failed)
