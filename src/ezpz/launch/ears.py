"""What a launcher and its ranks say on stderr: handed on as it comes, without the marks, which are kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.launch.wrapper import Mark, find_marks
from ezpz.worker import Worker

if TYPE_CHECKING:
    from types import TracebackType

CHUNK = 1 << 16
LONGEST_MARK = 512  # bytes
KEPT = 4096  # bytes of the end, for a message
PATIENCE = 1.0  # seconds to wait for what is still on its way; a process that outlives the run may hold the pipe


class Ears:
    """A context that gives a descriptor to write to, and hands all that comes on to `target`.

    name: the run whose marks are taken out. marks, last: what has come so far.
    """

    def __init__(self, name: str, target: int) -> None:
        self.name, self.target = name, target
        self.marks: list[Mark] = []
        self.last = b""
        self._rest = b""

    def __enter__(self) -> int:
        self._ours, self.descriptor = os.pipe()
        self._worker = Worker.started(self._listen, lambda _: None)
        return self.descriptor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)
        self._worker.join(PATIENCE)

    def _listen(self) -> None:
        with open(self._ours, "rb", buffering=0) as pipe:
            while chunk := pipe.read(CHUNK):
                self.hear(chunk)
            self._hand_on(self._rest)

    def hear(self, chunk: bytes) -> None:
        """Take some more of the output; the beginning of a mark waits for its end."""
        text, marks = find_marks(self._rest + chunk, self.name)
        self.marks += marks
        begin = text.rfind(b"\x1e")
        held = begin >= 0 and len(text) - begin < LONGEST_MARK and b"\n" not in text[begin:]
        self._rest = text[begin:] if held else b""
        self._hand_on(text[:begin] if held else text)

    def _hand_on(self, text: bytes) -> None:
        self.last = (self.last + text)[-KEPT:]
        while text:
            text = text[os.write(self.target, text) :]
