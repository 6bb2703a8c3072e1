"""What a launcher and its ranks say on stderr: handed on as it comes, without the marks, which are kept."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from ezpz.launch.output.startup_markers import MarkerFilter
from ezpz.runtime.threads import BackgroundThread

if TYPE_CHECKING:
    from types import TracebackType

    from ezpz.launch.output.startup_markers import StartupReport

CHUNK = 1 << 16
START_TIMEOUT = 5.0  # seconds that ranks on other nodes may take to start when one node has said no
DRAIN_TIMEOUT = 1.0  # seconds to wait for what is still on its way; a process that outlives the run may hold the pipe


class StderrReader:
    """A context that gives a descriptor to write to, and hands all that comes on to `target`, without the marks."""

    def __init__(self, report: StartupReport, target: int) -> None:
        self.report, self.target = report, target
        self._filter = MarkerFilter(report)
        self._since = math.inf

    def __enter__(self) -> int:
        self._ours, self.descriptor = os.pipe()
        self._worker = BackgroundThread(self._listen, lambda _: None)
        return self.descriptor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)
        self._worker.join(DRAIN_TIMEOUT)

    def _listen(self) -> None:
        with open(self._ours, "rb", buffering=0) as pipe:
            while chunk := pipe.read(CHUNK):
                self.feed(chunk)
            self.finish()

    def feed(self, chunk: bytes) -> None:
        """Take some more of the output."""
        self._forward(self._filter.feed(chunk))

    def finish(self) -> None:
        """Nothing comes any more."""
        self._forward(self._filter.flush())

    def is_hopeless(self) -> bool:
        """Whether a node cannot be reached, and the ranks that are missing have not come for a while."""
        if self.report.unreachable_match is None or not self.report.is_starting:
            self._since = math.inf
            return False
        self._since = min(self._since, time.monotonic())
        self.report.given_up = time.monotonic() - self._since > START_TIMEOUT
        return self.report.given_up

    def _forward(self, text: bytes) -> None:
        self.report.add_output(text)
        while text:
            text = text[os.write(self.target, text) :]
