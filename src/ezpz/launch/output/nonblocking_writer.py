"""A descriptor of ours that output goes to: never waits for a reader that is slow, so that signals are still heard."""

from __future__ import annotations

import os
import select
from collections import deque

from ezpz.errors import EzpzError

PIPE_BUF = 4096  # bytes that a pipe which is writable takes without waiting (PIPE_BUF)
MAX_PENDING = 1 << 20  # bytes in hand from which on nothing more is read


class NonblockingWriter:
    """Where one stream of output goes. Raises BrokenPipeError once nobody reads it, and EzpzError on a full disk."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._pending: deque[memoryview] = deque()
        self._bytes = 0
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    @property
    def is_full(self) -> bool:
        """So much waits that the ranks have to wait too."""
        return self._bytes >= MAX_PENDING

    @property
    def is_empty(self) -> bool:
        """Everything has been written."""
        return not self._pending

    def write(self, data: bytes) -> None:
        """Write what can be written now, and keep the rest."""
        if data:
            self._pending.append(memoryview(data))
            self._bytes += len(data)
        self.drain()

    def drain(self) -> None:
        """Write as much of what waits as goes without waiting."""
        while self._pending and self._poll.poll(0):
            data = self._pending.popleft()
            written = self._write(data[:PIPE_BUF])
            self._bytes -= written
            if written < len(data):
                self._pending.appendleft(data[written:])
            if not written:
                break

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self.descriptor, data)
        except BlockingIOError:  # another program has told the terminal that both share not to wait
            return 0
        except BrokenPipeError:
            raise
        except OSError as e:
            raise EzpzError(
                f"what COMMAND says cannot be written to descriptor {self.descriptor}: {e.strerror}",
                hint="is the disk full that standard output or standard error goes to?",
            ) from e
