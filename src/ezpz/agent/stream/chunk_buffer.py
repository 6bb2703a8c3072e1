"""The chunks of a stream that are on their way through this host, for those who forward them.

A chunk that was written can be rebuilt from the disk, so that the buffer may drop it. A child that lags behind is
served from there.
"""

import threading
import time
from typing import Callable, Dict, Optional, Set, Union

from ..common.cancel import CancelToken

KEPT_BYTES = 8 << 20  # that stay for children that are a little late
FORWARD_TIMEOUT = 0.5  # seconds that children may take before they are left to the disk
MAX_BYTES = 24 << 20  # above which nothing more is taken


Bytes = Union[bytes, bytearray]


class ChunkBuffer:
    """Frames by number; safe from any thread.

    Attributes:
        first: the lowest number that may be here
        next: all numbers below it have been here
        total: the count of chunks, None while it is not known
        written: all numbers below it are on the disk
        wire: bytes that have been here
    """

    def __init__(self, rebuild: Callable[[int], bytes]) -> None:
        """Take what makes the frame of a chunk from what was written."""
        self.rebuild = rebuild
        self.changed = threading.Condition()
        self.frames: Dict[int, Bytes] = {}
        self.size = 0
        self.first = 0
        self.next = 0
        self.total: Optional[int] = None
        self.written = 0
        self.wire = 0
        self.cursors: Dict[object, int] = {}
        self.cancel = CancelToken()
        self._written_ahead: Set[int] = set()

    def put(self, number: int, frame: Bytes) -> None:
        """Add a chunk; wait while the buffer is full, except for the chunk that all wait for. Raise `Cancelled`."""
        with self.changed:
            while self.size > MAX_BYTES and number > self.next and not self.cancel.is_cancelled:
                self.changed.wait(1.0)
            deadline = time.monotonic() + FORWARD_TIMEOUT
            while (
                self.size > MAX_BYTES
                and not self._drop(for_all=time.monotonic() < deadline)
                and not self.cancel.is_cancelled
            ):
                self.changed.wait(FORWARD_TIMEOUT)
            self.cancel.raise_if_cancelled()
            if number in self.frames or number < self.next:
                return
            self.frames[number] = frame
            self.size += len(frame)
            self.wire += len(frame)
            while self.next in self.frames:
                self.next += 1
            self._drop()
            self.changed.notify_all()

    def end(self, total: int) -> None:
        """Set the count of chunks."""
        with self.changed:
            self.total = total
            self.changed.notify_all()

    def mark_written(self, number: int) -> None:
        """Note that a chunk is on the disk."""
        with self.changed:
            self._written_ahead.add(number)
            while self.written in self._written_ahead:
                self._written_ahead.discard(self.written)
                self.written += 1
            self.changed.notify_all()

    def get(self, number: int, reader: object, timeout: float) -> Optional[Bytes]:
        """Return the frame of a chunk, b"" after the last one, None if it has not come within `timeout` seconds.

        Raises `Cancelled`, or OSError if it cannot be rebuilt.
        """
        with self.changed:
            self.cursors[reader] = number
            self.changed.notify_all()
            if not self._is_known(number):
                self.changed.wait_for(lambda: self._is_known(number), timeout)
            self.cancel.raise_if_cancelled()
            if self.total is not None and number >= self.total:
                return b""
            if number in self.frames:
                return self.frames[number]
            if number >= self.next:
                return None
        return self.rebuild(number)

    def leave(self, reader: object) -> None:
        """Forget a reader, which waits for nothing any more."""
        with self.changed:
            self.cursors.pop(reader, None)
            self.changed.notify_all()

    def cancel_all(self) -> None:
        """Cancel everything that waits."""
        with self.changed:
            self.cancel.cancel()
            self.changed.notify_all()

    @property
    def is_written(self) -> bool:
        """Whether all chunks are on the disk."""
        return self.total is not None and self.written >= self.total

    def unsent_bytes(self) -> int:
        """Return the bytes that are here, and that the farthest reader has not requested yet."""
        with self.changed:
            ahead = max(self.cursors.values(), default=self.next)
            return sum(len(frame) for number, frame in self.frames.items() if number >= ahead)

    def _is_known(self, number: int) -> bool:
        return (
            self.cancel.is_cancelled
            or number < self.next
            or number in self.frames
            or (self.total is not None and number >= self.total)
        )

    def _drop(self, *, for_all: bool = True) -> bool:
        """Drop what is written and, with `for_all`, was forwarded, the oldest first; return whether there is room."""
        forwarded = max(self.cursors.values(), default=self.next) if for_all else self.next
        while self.size > KEPT_BYTES and self.first < min(self.written, forwarded):
            frame = self.frames.pop(self.first, None)
            self.size -= 0 if frame is None else len(frame)
            self.first += 1
        return self.size <= MAX_BYTES
