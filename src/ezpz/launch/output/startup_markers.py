"""What ranks and their launcher report on stderr as a run starts and ends. Pure: output in, output without it out."""

from __future__ import annotations

import re

from ezpz.launch.plan.rank_wrapper import StartupMarker, find_markers

KEPT = 4096  # bytes of the end, for a message

_BEGUN = re.compile(rb"(?:\[?\d[\d,]*\]?(?:<stderr>)?:? ?)?\x1e[^\x1e\n]{0,512}\x1e?\Z")
"""The beginning of a mark, perhaps with a label before it, at the end of some output."""


class StartupReport:
    """What has come so far of the run `name`, whose marks are taken out by any number of sieves.

    marks: what ranks have reported; last: the end of what else the launcher has said
    pattern, found: what to look for in that, "" for nothing, and its first match
    lost_line, lost: the same of a node that cannot be reached, looked for until all `ranks` have reported
    given_up: the run was ended because of it
    """

    def __init__(self, name: str, pattern: str = "", unreachable_pattern: str = "", ranks: int = 0) -> None:
        self.name = name
        self.ranks = ranks
        self.pattern = re.compile(pattern.encode()) if pattern else None
        self.unreachable_pattern = (
            re.compile(rf"^(?:{unreachable_pattern})$".encode(), re.MULTILINE) if unreachable_pattern else None
        )
        self.unreachable_match: re.Match[bytes] | None = None
        self.given_up = False
        self.exit_match: re.Match[bytes] | None = None
        self.markers: list[StartupMarker] = []
        self.tail = b""

    @property
    def is_starting(self) -> bool:
        """Whether there are ranks that have reported nothing yet."""
        return len(self.markers) < self.ranks

    def add_output(self, text: bytes) -> None:
        """The launcher, or nobody knows who, has said this on stderr."""
        said = self.tail + text
        if self.pattern is not None and self.exit_match is None:
            self.exit_match = self.pattern.search(said)
        if self.unreachable_pattern is not None and self.unreachable_match is None and self.is_starting:
            self.unreachable_match = self.unreachable_pattern.search(said[: said.rfind(b"\n") + 1])
        self.tail = said[-KEPT:]


class MarkerFilter:
    """Takes the marks out of one stream."""

    def __init__(self, report: StartupReport) -> None:
        self.report = report
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """Some more of the output, without marks; the beginning of a mark waits for its end."""
        if not self._rest and b"\x1e" not in chunk:
            return chunk
        text, markers = find_markers(self._rest + chunk, self.report.name)
        self.report.markers += markers
        begun = _BEGUN.search(text)
        self._rest = begun[0] if begun else b""
        return text[: begun.start()] if begun else text

    def flush(self) -> bytes:
        """Nothing comes any more: what looked like the beginning of a mark was none."""
        rest, self._rest = self._rest, b""
        return rest
