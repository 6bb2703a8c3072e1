"""Local processes: start them, run them to the end, and end them.

Every process leads its own group, so that ending it ends everything that it started.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeAlias

from ezpz.errors import LimitReached, TimedOut, ToolMissing
from ezpz.runtime.threads import BackgroundThread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ezpz.agent.common.cancel import CancelToken

Argument: TypeAlias = "str | bytes"
Running: TypeAlias = "subprocess.Popen[bytes]"

GRACE = 2.0  # seconds between SIGTERM and SIGKILL
STDERR_LINES = 20
RESOURCE_ERRORS = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
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
        """Its stdout as text. Bytes that are not UTF-8 are replaced."""
        return self.stdout.decode(errors="replace")

    @property
    def err(self) -> str:
        """The last lines of stderr as text."""
        return "\n".join(self.stderr.decode(errors="replace").splitlines()[-STDERR_LINES:])


def find(tool: str) -> str:
    """Return the absolute path of a program on PATH. Raises ToolMissing."""
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
    cancel: CancelToken | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a command to its end, with `feed` as its stdin, and return its output.

    Raises ToolMissing if the program does not exist, TimedOut after `timeout` seconds, and `Cancelled` once `cancel` is
    set. In the last two cases, the complete process tree is ended first.
    """
    if cancel is not None:
        cancel.raise_if_cancelled()
    process = start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    communicator = _Communicator(argv, process, feed)
    _wait_for_all(communicator, timeout=timeout, cancel=cancel)
    return Completed(tuple(argv), process.returncode, communicator.stdout, communicator.stderr)


def pipeline(
    first: Sequence[Argument], second: Sequence[Argument], *, feed: bytes, cancel: CancelToken
) -> tuple[Completed, Completed]:
    """Run `first | second` to the end, with `feed` as the stdin of the first. Raises as `run` does."""
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
    _wait_for_all(sent, received, timeout=None, cancel=cancel)
    return (
        Completed(tuple(first), upstream.returncode, b"", sent.stderr),
        Completed(tuple(second), downstream.returncode, b"", received.stderr),
    )


class _Communicator:
    """A thread that feeds a process and reads its output: `communicate` loses its input if called after a timeout."""

    def __init__(self, argv: Sequence[Argument], process: Running, feed: bytes | None) -> None:
        self.argv, self.process = argv, process
        self.stdout = self.stderr = b""
        self.failure: BaseException | None = None
        self.thread = BackgroundThread(lambda: process.communicate(feed), self._fail, self._keep)

    def _keep(self, said: tuple[bytes | None, bytes | None]) -> None:
        self.stdout, self.stderr = (each or b"" for each in said)

    def _fail(self, error: BaseException) -> None:
        self.failure = error


def _wait_for_all(*communicators: _Communicator, timeout: float | None, cancel: CancelToken | None) -> None:
    """Wait until all have ended. End them all on a timeout or if `cancel` is set."""
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        for each in communicators:
            while each.thread.is_alive():
                each.thread.join(_next_wait(deadline, cancel))
                if each.thread.is_alive() and cancel is not None:
                    cancel.raise_if_cancelled()
                if each.thread.is_alive() and deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut(f"'{_text(each.argv)}' did not end within {timeout:g} s")
            if each.failure is not None:
                raise each.failure
    finally:
        for each in communicators:
            end_tree(each.process)


def end_tree(process: Running) -> None:
    """End a process and everything in its group: SIGTERM, GRACE, SIGKILL. Do nothing if it has been waited for.

    Processes that outlived the leader of the group are ended too. The number of the group is not reused until the
    leader is waited for. SIGKILL does not end a process that hangs in a call to a filesystem. The wait for it is
    limited, and its `returncode` stays None.
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
    """Start a process as the leader of its own group. The caller ends it. Raises ToolMissing or LimitReached."""
    try:
        return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, start_new_session=True)
    except (FileNotFoundError, PermissionError) as e:
        name = _text(argv)
        raise ToolMissing(
            f"'{name}' cannot be started on this host: {e.strerror}", hint=f"is {name} installed and on PATH?"
        ) from e
    except OSError as e:
        if e.errno not in RESOURCE_ERRORS:
            raise
        hint = "see `ulimit -a`; fewer nodes at once need fewer"
        raise LimitReached(f"'{_text(argv)}' cannot be started on this host: {e.strerror}", hint=hint) from e


def _next_wait(deadline: float | None, cancel: CancelToken | None) -> float | None:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    if cancel is None:
        return left
    return 0.1 if left is None else min(0.1, left)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to all processes of a group. Do nothing if the group is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if pid > 0:  # 0 would be the group of this process
            os.killpg(pid, number)


def _text(argv: Sequence[Argument]) -> str:
    return os.fsdecode(argv[0])


def to_group(process: Running, number: int) -> None:
    """Send a signal to the complete tree of a process that has not been waited for."""
    signal_group(process.pid, number)


def exit_status(process: Running) -> int | None:
    """Return the status of a process that has ended, like `returncode`, or None. The number of its group is kept."""
    if process.returncode is not None:
        return process.returncode
    try:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return process.poll()
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
