"""Forwards the stderr of a launcher and its ranks, without the startup markers."""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING

from ezpz.launch.output.startup_markers import MarkerFilter
from ezpz.runtime.threads import BackgroundThread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.launch.output.startup_markers import StartupReport

CHUNK_BYTES = 1 << 16
START_TIMEOUT = 5.0  # seconds for ranks on other nodes to start after one node was found unreachable
DRAIN_TIMEOUT = 1.0  # seconds for the last output; a process that outlives the run can keep the pipe open


class StderrReader:
    """Forwards output to the descriptor `target`, without the markers that go to `report`."""

    def __init__(self, report: StartupReport, target: int) -> None:
        self.report, self.target = report, target
        self._filter = MarkerFilter(report)
        self._unreachable_since = math.inf

    @contextlib.contextmanager
    def open_pipe(self) -> Iterator[int]:
        """Yield a descriptor to write to. A thread forwards what is written."""
        source, descriptor = os.pipe()
        thread = BackgroundThread(lambda: self._forward_all(source), lambda _: None)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            thread.join(DRAIN_TIMEOUT)

    def _forward_all(self, source: int) -> None:
        with open(source, "rb", buffering=0) as pipe:
            while chunk := pipe.read(CHUNK_BYTES):
                self.feed(chunk)
            self.finish()

    def feed(self, chunk: bytes) -> None:
        """Forward some output."""
        self._forward(self._filter.feed(chunk))

    def finish(self) -> None:
        """Forward the rest at the end of the output."""
        self._forward(self._filter.flush())

    def is_hopeless(self) -> bool:
        """Return whether a node is unreachable and the missing ranks have not started for a while."""
        if self.report.unreachable_match is None or not self.report.is_starting:
            self._unreachable_since = math.inf
            return False
        now = time.monotonic()
        self._unreachable_since = min(self._unreachable_since, now)
        self.report.given_up = now - self._unreachable_since > START_TIMEOUT
        return self.report.given_up

    def _forward(self, text: bytes) -> None:
        self.report.add_output(text)
        while text:
            text = text[os.write(self.target, text) :]
