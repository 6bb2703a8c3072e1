"""Writer to stdout or stderr that never waits for a slow reader, so that signals are still handled."""

from __future__ import annotations

import os
import select
from collections import deque

from ezpz.errors import EzpzError

PIPE_BUF = 4096  # bytes that a writable pipe accepts without blocking, see pipe(7)
MAX_PENDING = 1 << 20  # bytes; with more, nothing is read from the ranks


class NonblockingWriter:
    """Writes one stream of output to a descriptor.

    Raises:
        BrokenPipeError: The reader has closed its end.
        EzpzError: The output cannot be written, for instance because the disk is full.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._pending: deque[memoryview] = deque()
        self._bytes = 0
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    @property
    def is_full(self) -> bool:
        """Whether so much is pending that the ranks have to wait."""
        return self._bytes >= MAX_PENDING

    @property
    def is_empty(self) -> bool:
        """Whether everything has been written."""
        return not self._pending

    def write(self, data: bytes) -> None:
        """Write as much as possible without blocking, and keep the rest."""
        if data:
            self._pending.append(memoryview(data))
            self._bytes += len(data)
        self.drain()

    def drain(self) -> None:
        """Write as much of the pending output as possible without blocking."""
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
        except BlockingIOError:  # another program has set O_NONBLOCK on the shared terminal
            return 0
        except BrokenPipeError:
            raise
        except OSError as e:
            raise EzpzError(
                f"what COMMAND says cannot be written to descriptor {self.descriptor}: {e.strerror}",
                hint="is the disk full that standard output or standard error goes to?",
            ) from e
