"""What a launcher and its ranks say on stderr: handed on as it comes, without the marks, which are kept."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ezpz.launch.wrapper import Mark, find_marks
from ezpz.worker import Worker

if TYPE_CHECKING:
    from types import TracebackType

CHUNK = 1 << 16
KEPT = 4096  # bytes of the end, for a message
PATIENCE = 1.0  # seconds to wait for what is still on its way; a process that outlives the run may hold the pipe


_BEGUN = re.compile(rb"(?:\[?\d[\d,]*\]?(?:<stderr>)?:? ?)?\x1e[^\x1e\n]{0,512}\x1e?\Z")
"""The beginning of a mark, perhaps with a label before it, at the end of some output."""


class Ears:
    """A context that gives a descriptor to write to, and hands all that comes on to `target`.

    name: the run whose marks are taken out. marks, last: what has come so far.
    pattern, found: what to look for in each line, "" for nothing, and its first match
    """

    def __init__(self, name: str, target: int, pattern: str = "") -> None:
        self.name, self.target = name, target
        self.pattern = re.compile(pattern.encode()) if pattern else None
        self.found: re.Match[bytes] | None = None
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
            self.end()

    def hear(self, chunk: bytes) -> None:
        """Take some more of the output; the beginning of a mark waits for its end."""
        text, marks = find_marks(self._rest + chunk, self.name)
        self.marks += marks
        begun = _BEGUN.search(text)
        self._rest = begun[0] if begun else b""
        self._hand_on(text[: begun.start()] if begun else text)

    def end(self) -> None:
        """Nothing comes any more: what looked like the beginning of a mark was none."""
        self._hand_on(self._rest)

    def _hand_on(self, text: bytes) -> None:
        said = self.last + text
        if self.pattern is not None and self.found is None:
            self.found = self.pattern.search(said)
        self.last = said[-KEPT:]
        while text:
            text = text[os.write(self.target, text) :]
