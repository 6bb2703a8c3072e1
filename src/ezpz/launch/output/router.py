"""Router for the output of an attempt: splits it by rank, shows it, logs it, and searches it for failures."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from ezpz.launch.launchers.output_labels import LabelParser
from ezpz.launch.output.failure_patterns import hints
from ezpz.launch.output.filter import LineSplitter, NoiseFilter
from ezpz.launch.output.first_errors import KEYWORDS, FirstErrors
from ezpz.launch.output.startup_markers import MarkerFilter

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Sequence

    from ezpz.launch.launchers.output_labels import LabeledText, LabelFormat
    from ezpz.launch.output.failure_analysis import FailureAnalyzer
    from ezpz.launch.output.startup_markers import StartupReport

StreamKey: TypeAlias = "tuple[int, str]"
"""The copy of the command, and "stdout" or "stderr"."""
SourceKey: TypeAlias = "tuple[int, str, int | None]"
"""The same with the rank."""
LogWriter: TypeAlias = "Callable[[Sequence[tuple[int | None, bytes]]], None]"

T = TypeVar("T")
LOST_GRACE = 15.0  # seconds from the loss of a node until the run is ended, because MPICH can wait forever


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How output is read and shown.

    Attributes:
        label: The label format, if the launcher was asked to label its output.
        is_local: Whether the copies of the command are the ranks themselves.
        noise: Patterns of lines to hide.
        progress: The pattern of a progress marker of the command.
        end_when_lost: Whether to end a run that has lost a node.
        report: Takes the startup markers of ranks, which are neither shown nor logged. None if ranks print none.
        is_merged: Whether stderr arrives on stdout.
    """

    label: LabelFormat | None = None
    is_local: bool = False
    noise: tuple[re.Pattern[bytes], ...] = ()
    progress: re.Pattern[bytes] | None = None
    end_when_lost: bool = False
    report: StartupReport | None = None
    is_merged: bool = False


class OutputRouter:
    """The `OutputListener` of an attempt.

    `log` takes lines, many at once, each with its rank: None for the launcher and where the rank is unknown.
    """

    def __init__(self, output_format: OutputFormat, analyzer: FailureAnalyzer, log: LogWriter = lambda _: None) -> None:
        self.output_format = output_format
        self.analyzer = analyzer
        self.log = log
        self.first_errors = FirstErrors()
        self.made_progress = False
        self._parsers: dict[StreamKey, LabelParser] = {}
        self._sources: dict[SourceKey, tuple[NoiseFilter, LineSplitter]] = {}
        self._marker_filters: dict[SourceKey, MarkerFilter] = {}
        self._waiting_streams: set[StreamKey] = set()
        self._waiting_sources: set[SourceKey] = set()
        self._lost_at = math.inf
        self._log_lines: list[tuple[int | None, bytes]] = []
        self._may_matter = True

    @property
    def due(self) -> float:
        """When held output must be flushed."""
        streams = (self._parsers[stream].due for stream in self._waiting_streams)
        return min((*streams, *(self._sources[source][0].due for source in self._waiting_sources)), default=math.inf)

    @property
    def hidden_lines(self) -> int:
        """The number of lines that were not shown."""
        return sum(noise.hidden_lines for noise, _ in self._sources.values())

    def feed(self, which: int, name: str, data: bytes, now: float) -> bytes:
        """Take output of one stream of one copy. Return what to show."""
        stream = (which, name)
        if stream not in self._parsers:
            is_local, label = self.output_format.is_local, self.output_format.label
            self._parsers[stream] = LabelParser(label, which if is_local else None)
        parser = self._parsers[stream]
        self._may_matter = self._contains_keyword(parser.held + data)
        shown = b"".join(self._route(stream, piece, now) for piece in parser.feed(data, now))
        _set_waiting(self._waiting_streams, stream, parser.due)
        self._write_log()
        return shown

    def _contains_keyword(self, data: bytes) -> bool:
        """Return whether a line of this output can be relevant. That is much cheaper than a search in each line."""
        lower = data.decode("latin-1").lower()
        return any(word in lower for word in _keywords()) or self.analyzer.may_match(data.decode(errors="replace"))

    def _write_log(self) -> None:
        if self._log_lines:
            self.log(self._log_lines)
            self._log_lines = []

    def _route(self, stream: StreamKey, piece: LabeledText, now: float) -> bytes:
        """Log and search a part of the output. Return what to show of it."""
        source = (*stream, piece.rank)
        if source not in self._sources:
            is_shared = self.output_format.label is not None
            self._sources[source] = (NoiseFilter(self.output_format.noise, shared=is_shared), LineSplitter())
        noise, splitter = self._sources[source]
        text = self._remove_markers(source, piece.text)
        shown = noise.feed(text, now)
        _set_waiting(self._waiting_sources, source, noise.due)
        continued = splitter.has_partial
        self._handle_lines(splitter.feed(text), piece.rank, piece.node, now, continued=continued)
        return shown

    def _remove_markers(self, source: SourceKey, text: bytes | None) -> bytes:
        """Return the text of a source without startup markers. None is the end of the source."""
        report = self.output_format.report
        if report is None:
            return text or b""
        if source not in self._marker_filters:
            self._marker_filters[source] = MarkerFilter(report)
        markers = self._marker_filters[source]
        rest = markers.flush() if text is None else markers.feed(text)
        _, name, rank = source
        if rank is None and (name == "stderr" or self.output_format.is_merged):
            report.add_output(rest)
        return rest

    def _handle_lines(
        self, lines: Iterable[bytes], rank: int | None, node: str | None, now: float, *, continued: bool = True
    ) -> None:
        """Log lines, and search those that can be relevant.

        Args:
            lines: The lines without their ends.
            rank: The rank that printed them, None for the launcher.
            node: The node of the rank, if its label has it.
            now: The time.
            continued: Whether the first line started in an earlier piece.
        """
        progress = self.output_format.progress
        for line in lines:
            self._log_lines.append((rank, line))
            if progress is not None and not self.made_progress:
                self.made_progress = progress.search(line) is not None
            if continued or self._may_matter or self.first_errors.is_collecting(rank):
                text = line.decode(errors="replace")
                self.analyzer.feed(text, rank, node)
                self.first_errors.feed(text, rank)
            continued = False
        if self.analyzer.node_lost and self._lost_at == math.inf:
            self._lost_at = now

    def flush(self, now: float) -> Sequence[tuple[str, bytes]]:
        """Return held output to show now, each part with its stream. An infinite `now` returns all of it."""
        shown: list[tuple[str, bytes]] = []
        self._may_matter = True
        is_end = now == math.inf
        for stream in list(self._parsers) if is_end else self._due_streams(now):
            parser = self._parsers[stream]
            shown += [(stream[1], self._route(stream, piece, now)) for piece in parser.flush(now)]
            _set_waiting(self._waiting_streams, stream, parser.due)
        for source in list(self._sources if is_end else self._waiting_sources):
            noise, splitter = self._sources[source]
            _, name, rank = source
            if is_end:
                rest = self._remove_markers(source, None)
                shown.append((name, noise.feed(rest, now)))
                self._handle_lines(splitter.feed(rest), rank, None, now)
            shown.append((name, noise.flush(now)))
            _set_waiting(self._waiting_sources, source, noise.due)
            if is_end:
                self._handle_lines(splitter.flush(), rank, None, now)
        self._write_log()
        return [(name, data) for name, data in shown if data]

    def _due_streams(self, now: float) -> list[StreamKey]:
        return [stream for stream in self._waiting_streams if self._parsers[stream].due <= now]

    def should_end(self, now: float) -> bool:
        """Return whether a node was lost some time ago and the launcher still waits for it."""
        return self.output_format.end_when_lost and now - self._lost_at >= LOST_GRACE

    def end_requested(self) -> None:
        """Ignore failures from now on: the run is asked to end."""
        self.analyzer.end_requested = True


def _set_waiting(waiting: set[T], key: T, due: float) -> None:
    if due < math.inf:
        waiting.add(key)
    else:
        waiting.discard(key)


@functools.cache
def _keywords() -> tuple[str, ...]:
    """Return words of which each relevant line contains at least one."""
    more = (hint.lower() for hint in hints())
    return tuple(dict.fromkeys((*KEYWORDS, *(hint for hint in more if not any(word in hint for word in KEYWORDS)))))
