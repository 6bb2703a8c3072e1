"""Processes whose output or input is streamed, so that it is never completely in memory."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import IO, TYPE_CHECKING

from ezpz.errors import TimedOut
from ezpz.runtime import process
from ezpz.runtime.threads import run_in_background

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Self

    from ezpz.agent.common.cancel import CancelToken

READ_SIZE = 1 << 20  # bytes
STDERR_LIMIT = 64 << 10  # bytes of stderr that are kept
POLL_SECONDS = 0.1  # after which the cancel token and the timeout are checked


class StreamedProcess:
    """An iterator over what a command writes to stdout. The command is ended at the end of the context.

    Creating it raises ToolMissing; iterating raises TimedOut after `timeout` seconds, and `Cancelled`.

    Attributes:
        done: how the command ended, without its stdout; None until all of its stdout was read
    """

    def __init__(
        self,
        argv: Sequence[process.Argument],
        *,
        stdin: int | IO[bytes] = process.DEVNULL,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        self.argv = argv
        self.done: process.Completed | None = None
        self._timeout = timeout
        self._cancel = cancel
        self._stderr = b""
        self._running = process.start(argv, stdin=stdin, stdout=process.PIPE, stderr=process.PIPE, env=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        process.end_tree(self._running)
        for pipe in (self._running.stdout, self._running.stderr):
            assert pipe is not None
            pipe.close()

    def __iter__(self) -> Iterator[bytes]:
        assert self._running.stdout is not None
        assert self._running.stderr is not None
        stdout = self._running.stdout.fileno()
        poll = select.poll()
        left = {stdout, self._running.stderr.fileno()}
        for fd in left:
            poll.register(fd, select.POLLIN)
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while left:
            for fd, _ in poll.poll(POLL_SECONDS * 1000):
                data = os.read(fd, READ_SIZE)
                if not data:
                    poll.unregister(fd)
                    left.remove(fd)
                elif fd == stdout:
                    yield data
                else:
                    self._stderr = (self._stderr + data)[-STDERR_LIMIT:]
            if self._cancel is not None:
                self._cancel.raise_if_cancelled()
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOut(f"'{os.fsdecode(self.argv[0])}' did not end within {self._timeout:g} s")
        self.done = process.Completed(tuple(self.argv), self._running.wait(), b"", self._stderr)


class FedProcess:
    """A command whose stdin is streamed. The command is ended at the end of the context.

    Its stdout is discarded. Creating it raises ToolMissing.
    """

    def __init__(self, argv: Sequence[process.Argument], *, env: Mapping[str, str] | None = None) -> None:
        self.argv = argv
        self._running = process.start(argv, stdin=process.PIPE, stdout=process.DEVNULL, stderr=process.PIPE, env=env)
        assert self._running.stderr is not None
        self._stderr = run_in_background(self._running.stderr.read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        process.end_tree(self._running)
        self._close_stdin()
        self._stderr.exception()  # waits for its end
        assert self._running.stderr is not None
        self._running.stderr.close()

    def write(self, data: bytes) -> None:
        """Write to its stdin. Raises BrokenPipeError once the command has ended or closed it."""
        assert self._running.stdin is not None
        self._running.stdin.write(data)

    def finish(self) -> process.Completed:
        """Close its stdin, wait for its end and return how it ended."""
        self._close_stdin()
        return process.Completed(tuple(self.argv), self._running.wait(), b"", self._stderr.result())

    def _close_stdin(self) -> None:
        assert self._running.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._running.stdin.close()
