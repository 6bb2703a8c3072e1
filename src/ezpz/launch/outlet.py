"""A descriptor of ours that output goes to: never waits for a reader that is slow, so that signals are still heard."""

from __future__ import annotations

import os
import select
from collections import deque

AT_ONCE = 4096  # bytes that a pipe which is writable takes without waiting (PIPE_BUF)
FULL = 1 << 20  # bytes in hand from which on nothing more is read


class Outlet:
    """Where one stream of output goes. Raises BrokenPipeError once nobody reads it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """So much waits that the ranks have to wait too."""
        return self._bytes >= FULL

    @property
    def is_empty(self) -> bool:
        """Everything has been written."""
        return not self._waiting

    def put(self, data: bytes) -> None:
        """Write what can be written now, and keep the rest."""
        if data:
            self._waiting.append(data)
            self._bytes += len(data)
        self.drain()

    def drain(self) -> None:
        """Write as much of what waits as goes without waiting."""
        while self._waiting and self._is_writable():
            data = self._waiting.popleft()
            written = os.write(self.descriptor, data[:AT_ONCE])
            self._bytes -= written
            if written < len(data):
                self._waiting.appendleft(data[written:])

    def _is_writable(self) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        return bool(poll.poll(0))
