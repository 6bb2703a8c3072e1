"""Hearing: what a process writes, piece by piece while it runs, so that nobody has to hold all of it."""

from __future__ import annotations

import os
import select
import time
from typing import IO, TYPE_CHECKING

from ezpz import process
from ezpz.errors import TimedOut

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

PIECE = 1 << 20  # bytes that are read at once
LAST = 64 << 10  # bytes of stderr that are kept
SLICE = 0.1  # seconds after which it is looked whether more is wanted


class Hearing:
    """Iterates over what a command writes to stdout; within its context, at whose end the command is ended.

    done: how it ended, once everything was heard, without what was heard; None before
    Raises ToolMissing at the beginning; and while one listens TimedOut after `timeout` seconds, Stopped once `stop` is
    set.
    """

    def __init__(
        self,
        argv: Sequence[process.Argument],
        *,
        stdin: int | IO[bytes] = process.DEVNULL,
        timeout: float | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.argv = argv
        self.done: process.Completed | None = None
        self._timeout = timeout
        self._stop = stop
        self._said = b""
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
        heard = self._running.stdout.fileno()
        poll = select.poll()
        left = {heard, self._running.stderr.fileno()}
        for fd in left:
            poll.register(fd, select.POLLIN)
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while left:
            for fd, _ in poll.poll(SLICE * 1000):
                data = os.read(fd, PIECE)
                if not data:
                    poll.unregister(fd)
                    left.remove(fd)
                elif fd == heard:
                    yield data
                else:
                    self._said = (self._said + data)[-LAST:]
            if self._stop is not None and self._stop.is_set():
                raise process.Stopped
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOut(f"'{os.fsdecode(self.argv[0])}' did not end within {self._timeout:g} s")
        self.done = process.Completed(tuple(self.argv), self._running.wait(), b"", self._said)
