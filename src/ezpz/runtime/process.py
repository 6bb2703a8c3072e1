"""The one place that starts local processes.

Every process leads a group of its own, so that ending it ends whatever it started.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeAlias

from ezpz.errors import LimitReached, TimedOut, ToolMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Argument: TypeAlias = "str | bytes"
Running: TypeAlias = "subprocess.Popen[bytes]"

GRACE = 2.0  # seconds between SIGTERM and SIGKILL
STDERR_LINES = 20
SCARCE = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL


@dataclass(frozen=True, slots=True)
class Completed:
    """A process that has ended: its arguments, exit status (negative for a signal) and everything that it wrote."""

    argv: tuple[Argument, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        """stdout as text; what is not UTF-8 is replaced."""
        return self.stdout.decode(errors="replace")

    @property
    def err(self) -> str:
        """The last lines of stderr as text."""
        return "\n".join(self.stderr.decode(errors="replace").splitlines()[-STDERR_LINES:])


class Stopped(Exception):
    """A process was ended because its `stop` event was set."""


def find(tool: str) -> str:
    """The absolute path of a program on PATH. Raises ToolMissing."""
    path = shutil.which(tool)
    if path is None:
        raise ToolMissing(
            f"'{tool}' is not on PATH on this host", hint=f"install it, or load the module that has {tool}"
        )
    return path


def run(
    argv: Sequence[Argument],
    *,
    feed: bytes = b"",
    timeout: float | None = None,
    stop: threading.Event | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a command to its end, with `feed` as its stdin, and return what it said.

    Raises ToolMissing when the program does not exist, TimedOut after `timeout` seconds, Stopped when `stop` is set;
    in the last two cases the whole process tree is ended first.
    """
    if stop is not None and stop.is_set():
        raise Stopped
    process = start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    talk = _Communicator(argv, process, feed)
    _follow_all(talk, timeout=timeout, stop=stop)
    return Completed(tuple(argv), process.returncode, talk.stdout, talk.stderr)


def pipeline(
    first: Sequence[Argument], second: Sequence[Argument], *, feed: bytes, stop: threading.Event
) -> tuple[Completed, Completed]:
    """Run `first | second` to the end; `feed` goes to the first. Raises as `run` does."""
    upstream = start(first, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=None)
    try:
        downstream = start(second, stdin=upstream.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=None)
    except ToolMissing:
        end_tree(upstream)
        raise
    assert upstream.stdout is not None
    upstream.stdout.close()
    upstream.stdout = None
    sent, received = _Communicator(first, upstream, feed), _Communicator(second, downstream, None)
    _follow_all(sent, received, timeout=None, stop=stop)
    return (
        Completed(tuple(first), upstream.returncode, b"", sent.stderr),
        Completed(tuple(second), downstream.returncode, b"", received.stderr),
    )


class _Communicator(threading.Thread):
    """Feeds a process and reads what it says: `communicate` forgets its input when called again after a timeout."""

    def __init__(self, argv: Sequence[Argument], process: Running, feed: bytes | None) -> None:
        super().__init__(daemon=True)
        self.argv, self.process, self.feed = argv, process, feed
        self.stdout = self.stderr = b""

    def run(self) -> None:
        stdout, stderr = self.process.communicate(self.feed)
        self.stdout, self.stderr = stdout or b"", stderr or b""


def _follow_all(*talks: _Communicator, timeout: float | None, stop: threading.Event | None) -> None:
    """Talk until all have ended; end them all when time is up or `stop` is set."""
    deadline = None if timeout is None else time.monotonic() + timeout
    for talk in talks:
        talk.start()
    try:
        for talk in talks:
            while talk.is_alive():
                talk.join(_slice(deadline, stop))
                if talk.is_alive() and stop is not None and stop.is_set():
                    raise Stopped
                if talk.is_alive() and deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut(f"'{_text(talk.argv)}' did not end within {timeout:g} s")
    finally:
        for talk in talks:
            end_tree(talk.process)


def end_tree(process: Running) -> None:
    """End a process and everything in its group: SIGTERM, a grace, SIGKILL. Harmless once it has been waited for.

    What its leader has left in the group is ended too; until the leader is waited for, the group's number is its own.
    A process that hangs in a call to a filesystem does not even heed SIGKILL; nobody waits for it for ever, and its
    `returncode` stays None.
    """
    if process.returncode is None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal_group(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)


def start(
    argv: Sequence[Argument],
    *,
    stdin: int | IO[bytes] | None,
    stdout: int | None,
    stderr: int | None,
    env: Mapping[str, str] | None,
) -> Running:
    """Start a process at the head of a group of its own; the caller ends it. Raises ToolMissing or LimitReached."""
    try:
        return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, start_new_session=True)
    except (FileNotFoundError, PermissionError) as e:
        name = _text(argv)
        raise ToolMissing(
            f"'{name}' cannot be started on this host: {e.strerror}", hint=f"is {name} installed and on PATH?"
        ) from e
    except OSError as e:
        if e.errno not in SCARCE:
            raise
        hint = "see `ulimit -a`; fewer nodes at once need fewer"
        raise LimitReached(f"'{_text(argv)}' cannot be started on this host: {e.strerror}", hint=hint) from e


def _slice(deadline: float | None, stop: threading.Event | None) -> float | None:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    if stop is None:
        return left
    return 0.1 if left is None else min(0.1, left)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to all of a group; harmless when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if pid > 0:  # 0 would be our own group
            os.killpg(pid, number)


def _text(argv: Sequence[Argument]) -> str:
    return os.fsdecode(argv[0])


ENDING = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))
NOTICED = ENDING | {signal.SIGUSR1, signal.SIGUSR2}  # the last two are how schedulers warn before the time is over
PASSED_ON = NOTICED | {signal.SIGWINCH}


def foreground(
    argv: Sequence[Argument],
    *,
    envs: Sequence[Mapping[str, str]],
    grace: float,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_on: Callable[[Running, int], None] | None = None,
    hopeless: Callable[[], bool] | None = None,
) -> int:
    """Run `argv` once for each environment, all at once, on our own stdio; return the exit status as a shell would.

    The status is the first that is not 0, and then the others are ended. Signals that this process gets go on to the
    whole tree of each; `grace` seconds after one that asks to end, or at the second one, what is left is ended. The
    status is never 0 after such a signal N, but 128 + N: MPICH's mpiexec answers Ctrl-C with 0.
    `stdout`, `stderr`: descriptors to take the place of ours. `pass_on`: another way for signals than to the whole
    tree. `hopeless`: whether to end it all now, asked twice a second. For the main thread only. Raises ToolMissing, and
    OSError for a file that is no program.
    """
    processes: list[Running] = []
    failed: Running | None = None
    deadline, asked = math.inf, 0
    with collected_signals(PASSED_ON) as signals:
        try:
            for env in envs:
                processes.append(start(argv, stdin=None, stdout=stdout, stderr=stderr, env=env))  # noqa: PERF401 - each is ended below
            while running := [process for process in processes if process.poll() is None]:
                failed = failed or _failed(processes)
                left = deadline - time.monotonic()
                if left <= 0 or (failed and not asked) or (hopeless and hopeless()):
                    break
                for number in signals.within(min(left, 0.5) if hopeless else left):
                    for process in running:
                        (pass_on or to_group)(process, number)
                    if number in ENDING:
                        deadline, asked = time.monotonic() + (0.0 if asked else grace), number
        finally:
            for process in processes:
                if process.returncode is None or asked:  # asked to end: also what outlived its leader
                    signal_group(process.pid, signal.SIGTERM)
            for process in processes:
                end_tree(process)
    failed = failed or _failed(processes)
    status = failed.returncode if failed else -asked
    return status if status >= 0 else 128 - status


def to_group(process: Running, number: int) -> None:
    """Send a signal to the whole tree of a process that has not been waited for."""
    signal_group(process.pid, number)


def _failed(processes: Sequence[Running]) -> Running | None:
    return next((process for process in processes if process.returncode), None)


class Signals:
    """Signals that were collected instead of acted on; something is readable when one came, or a child ended."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours

    def fileno(self) -> int:
        """For select and its like."""
        return self._ours.fileno()

    def within(self, seconds: float) -> Sequence[int]:
        """Those that came, as soon as one comes or a child ends, or after so many seconds."""
        ready, _, _ = select.select((self._ours,), (), (), None if seconds == math.inf else max(0.0, seconds))
        return [number for number in (self._ours.recv(4096) if ready else b"") if number != signal.SIGCHLD]


@contextlib.contextmanager
def collected_signals(numbers: Iterable[int]) -> Iterator[Signals]:
    """Collect these signals instead of acting on them, but for those that we were started to ignore (nohup).

    For the main thread only.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    kept = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: None) for number in (*kept, signal.SIGCHLD)}
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield Signals(ours)
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        ours.close()
        theirs.close()


def exit_status(process: Running) -> int | None:
    """The status of a process that has ended, as `returncode` has it, else None; its group lasts."""
    if process.returncode is not None:
        return process.returncode
    try:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return process.poll()
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
