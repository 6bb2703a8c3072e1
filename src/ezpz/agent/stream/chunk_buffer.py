"""Ring: the chunks of a stream that are on their way through this host, for whoever passes them on.

What has been landed can be made again from the disk, so that the ring may forget it; what lags behind is served from
there.
"""

import threading
import time
from typing import Callable, Dict, Optional, Set, Union

from ezpz.agent.common.cancel import CancelToken

KEEP = 8 << 20  # bytes that stay for those who come a little late
PATIENCE = 0.5  # seconds that those who pass it on may take before they are left to the disk
ROOM = 24 << 20  # bytes above which nothing more is taken in


Bytes = Union[bytes, bytearray]


class ChunkBuffer:
    """Frames by number; safe from any thread.

    again: makes a chunk's frame from what was landed
    """

    def __init__(self, again: Callable[[int], bytes]) -> None:
        self.again = again
        self.changed = threading.Condition()
        self.frames: Dict[int, Bytes] = {}
        self.size = 0
        self.first = 0  # the lowest number that may be here
        self.next = 0  # all below it have been here
        self.total: Optional[int] = None
        self.landed = 0  # all below it are landed
        self.wire = 0  # bytes that have been here
        self.cursors: Dict[object, int] = {}
        self.cancel = CancelToken()
        self._landed_ahead: Set[int] = set()

    def put(self, number: int, frame: Bytes) -> None:
        """Take a chunk; wait while there is no room, but never for the one that all wait for. Raises Cancelled."""
        with self.changed:
            while self.size > ROOM and number > self.next and not self.cancel.is_cancelled:
                self.changed.wait(1.0)
            deadline = time.monotonic() + PATIENCE
            while (
                self.size > ROOM
                and not self._forget(for_all=time.monotonic() < deadline)
                and not self.cancel.is_cancelled
            ):
                self.changed.wait(PATIENCE)
            self.cancel.raise_if_cancelled()
            if number in self.frames or number < self.next:
                return
            self.frames[number] = frame
            self.size += len(frame)
            self.wire += len(frame)
            while self.next in self.frames:
                self.next += 1
            self._forget()
            self.changed.notify_all()

    def end(self, total: int) -> None:
        """There are so many chunks."""
        with self.changed:
            self.total = total
            self.changed.notify_all()

    def land(self, number: int) -> None:
        """A chunk is on the disk."""
        with self.changed:
            self._landed_ahead.add(number)
            while self.landed in self._landed_ahead:
                self._landed_ahead.discard(self.landed)
                self.landed += 1
            self.changed.notify_all()

    def get(self, number: int, who: object, patience: float) -> Optional[Bytes]:
        """The frame of a chunk, b"" behind the last one, None when it has not come within `patience` seconds.

        Raises Cancelled, or OSError when it cannot be made again.
        """
        with self.changed:
            self.cursors[who] = number
            self.changed.notify_all()
            if not self._is_known(number):
                self.changed.wait_for(lambda: self._is_known(number), patience)
            self.cancel.raise_if_cancelled()
            if self.total is not None and number >= self.total:
                return b""
            if number in self.frames:
                return self.frames[number]
            if number >= self.next:
                return None
        return self.again(number)

    def leave(self, who: object) -> None:
        """Nobody waits for this one any more."""
        with self.changed:
            self.cursors.pop(who, None)
            self.changed.notify_all()

    def give_up(self) -> None:
        """Let go of everybody who waits."""
        with self.changed:
            self.cancel.cancel()
            self.changed.notify_all()

    @property
    def is_landed(self) -> bool:
        """Whether all of it is on the disk."""
        return self.total is not None and self.landed >= self.total

    def waiting(self) -> int:
        """Bytes that are here and were not yet asked for by the one that is farthest."""
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

    def _forget(self, *, for_all: bool = True) -> bool:
        """Drop what is landed and, `for_all`, was passed on, the oldest first; whether there is room now."""
        passed = max(self.cursors.values(), default=self.next) if for_all else self.next
        while self.size > KEEP and self.first < min(self.landed, passed):
            frame = self.frames.pop(self.first, None)
            self.size -= 0 if frame is None else len(frame)
            self.first += 1
        return self.size <= ROOM
