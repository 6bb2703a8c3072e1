"""What ranks and their launcher report on stderr when a run starts, removed from the output. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ezpz.launch.launchers.startup_protocol import INCOMPLETE_MARKER, MARKER

TAIL_BYTES = 4096  # of the output of the launcher, for an error message


@dataclass(frozen=True, slots=True)
class StartupMarker:
    """The report of one rank.

    Attributes:
        what: STARTED; NO_COMMAND or NO_ENVIRONMENT, if the host does not have it; or UNTRUSTED, if another user owns
            the environment or can change it.
    """

    what: str
    rank: int
    host: str


def find_markers(chunk: bytes, name: str) -> tuple[bytes, tuple[StartupMarker, ...]]:
    """Return some output without the markers of the run `name`, and these markers."""
    found: list[StartupMarker] = []

    def take(match: re.Match[bytes]) -> bytes:
        if match["name"] != name.encode():
            return match[0]
        host = match["host"].decode(errors="replace")
        found.append(StartupMarker(match["what"].decode(), int(match["rank"]), host))
        return b""

    return MARKER.sub(take, chunk), tuple(found)


class StartupReport:
    """What is known about the start of the run `name`. Any number of `MarkerFilter`s add to it.

    Attributes:
        markers: The reports of ranks.
        tail: The end of the other output on stderr.
        exit_pattern: A regular expression to search in that output; `exit_match` is its first match.
        unreachable_pattern: A regular expression for a line about an unreachable node. It is searched until all `ranks`
            have reported; `unreachable_match` is its first match.
        given_up: Whether the run was ended because of the unreachable node.
    """

    def __init__(self, name: str, exit_pattern: str = "", unreachable_pattern: str = "", ranks: int = 0) -> None:
        self.name = name
        self.ranks = ranks
        line = f"^(?:{unreachable_pattern})$" if unreachable_pattern else ""
        self.exit_pattern = re.compile(exit_pattern.encode()) if exit_pattern else None
        self.unreachable_pattern = re.compile(line.encode(), re.MULTILINE) if line else None
        self.unreachable_match: re.Match[bytes] | None = None
        self.given_up = False
        self.exit_match: re.Match[bytes] | None = None
        self.markers: list[StartupMarker] = []
        self.tail = b""

    @property
    def is_starting(self) -> bool:
        """Whether some ranks have not reported yet."""
        return len(self.markers) < self.ranks

    def add_output(self, text: bytes) -> None:
        """Take output on stderr of the launcher, or of an unknown rank."""
        recent = self.tail + text
        if self.exit_pattern is not None and self.exit_match is None:
            self.exit_match = self.exit_pattern.search(recent)
        if self.unreachable_pattern is not None and self.unreachable_match is None and self.is_starting:
            self.unreachable_match = self.unreachable_pattern.search(recent[: recent.rfind(b"\n") + 1])
        self.tail = recent[-TAIL_BYTES:]


class MarkerFilter:
    """Removes the markers from one stream."""

    def __init__(self, report: StartupReport) -> None:
        self.report = report
        self._incomplete = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the output without markers. An incomplete marker is kept until its end arrives."""
        if not self._incomplete and b"\x1e" not in chunk:
            return chunk
        text, markers = find_markers(self._incomplete + chunk, self.report.name)
        self.report.markers += markers
        start = INCOMPLETE_MARKER.search(text)
        self._incomplete = start[0] if start else b""
        return text[: start.start()] if start else text

    def flush(self) -> bytes:
        """Return what looked like the start of a marker when the stream ended."""
        rest, self._incomplete = self._incomplete, b""
        return rest
