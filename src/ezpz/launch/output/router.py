"""Transcript: the ear of an attempt: takes its output apart by rank, shows it, logs it, and has it looked at."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

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
SourceKey: TypeAlias = "tuple[int, str, int | None]"
LogWriter: TypeAlias = "Callable[[Sequence[tuple[int | None, bytes]]], None]"

LOST_GRACE = 15.0  # seconds that a run may go on after a node was lost, before it is ended: MPICH may wait forever


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How output is read and shown.

    label: the launcher's, if it was asked to label; ours: the copies of the command are the ranks themselves
    noise: what is not shown; progress: what tells that the command gets on
    end_when_lost: a run that has lost a node is not waited for
    report: takes what ranks report as they start, which is neither shown nor kept; None if they do not
    merged: stderr comes on stdout
    """

    label: LabelFormat | None = None
    ours: bool = False
    noise: tuple[re.Pattern[bytes], ...] = ()
    progress: re.Pattern[bytes] | None = None
    end_when_lost: bool = False
    report: StartupReport | None = None
    merged: bool = False


class OutputRouter:
    """An `Ear`. `log` takes every line with its rank (None: the launcher, or nobody knows), many at once."""

    def __init__(self, output_format: OutputFormat, analyzer: FailureAnalyzer, log: LogWriter = lambda _: None) -> None:
        self.output_format = output_format
        self.analyzer = analyzer
        self.log = log
        self.first_errors = FirstErrors()
        self.made_progress = False
        self._parsers: dict[StreamKey, LabelParser] = {}
        self._sources: dict[SourceKey, tuple[NoiseFilter, LineSplitter]] = {}
        self._marker_filters: dict[SourceKey, MarkerFilter] = {}
        self._waiting: set[StreamKey | SourceKey] = set()
        self._lost_at = math.inf
        self._log_lines: list[tuple[int | None, bytes]] = []
        self._may_matter = True

    @property
    def due(self) -> float:
        """When something that is held back has waited long enough, or a run that lost a node has."""
        return min((self._due(each) for each in self._waiting), default=math.inf)

    def _due(self, each: StreamKey | SourceKey) -> float:
        return self._parsers[each].due if len(each) == 2 else self._sources[each][0].due

    @property
    def hidden_lines(self) -> int:
        """How many lines were not shown."""
        return sum(noise.hidden_lines for noise, _ in self._sources.values())

    def feed(self, which: int, name: str, data: bytes, now: float) -> bytes:
        """Output of one copy's stream; what of it is shown."""
        parser = self._parsers.get((which, name))
        if parser is None:
            parser = self._parsers[which, name] = LabelParser(
                self.output_format.label, which if self.output_format.ours else None
            )
        self._may_matter = self._contains_keyword(parser.held + data)
        shown = b"".join(self._route(which, name, piece, now) for piece in parser.feed(data, now))
        self._set_waiting((which, name), parser.due)
        self._write_log()
        return shown

    def _contains_keyword(self, data: bytes) -> bool:
        """Whether a line of some output may tell something: much cheaper to find out than for each line by itself."""
        small = data.decode("latin-1").lower()
        return any(word in small for word in _keywords()) or self.analyzer.may_match(data.decode(errors="replace"))

    def _write_log(self) -> None:
        if self._log_lines:
            self.log(self._log_lines)
            self._log_lines = []

    def _route(self, which: int, name: str, piece: LabeledText, now: float) -> bytes:
        source = (which, name, piece.rank)
        if source not in self._sources:
            self._sources[source] = (
                NoiseFilter(self.output_format.noise, shared=self.output_format.label is not None),
                LineSplitter(),
            )
        noise, lines = self._sources[source]
        text = self._remove_markers(source, piece.text)
        shown = noise.feed(text, now)
        self._set_waiting(source, noise.due)
        begun = lines.has_partial
        self._handle_lines(lines.feed(text), piece.rank, piece.node, now, begun=begun)
        return shown

    def _remove_markers(self, source: SourceKey, text: bytes | None) -> bytes:
        """Some more of a voice, None for its end, without what is a report."""
        report = self.output_format.report
        if report is None:
            return text or b""
        if source not in self._marker_filters:
            self._marker_filters[source] = MarkerFilter(report)
        left = self._marker_filters[source].flush() if text is None else self._marker_filters[source].feed(text)
        if source[2] is None and (source[1] == "stderr" or self.output_format.merged):
            report.add_output(left)
        return left

    def _set_waiting(self, each: StreamKey | SourceKey, due: float) -> None:
        if due < math.inf:
            self._waiting.add(each)
        else:
            self._waiting.discard(each)

    def _handle_lines(
        self, lines: Iterable[bytes], rank: int | None, node: str | None, now: float, *, begun: bool = True
    ) -> None:
        """Log lines, and have looked at those that may tell something; begun: the first has begun earlier."""
        for line in lines:
            self._log_lines.append((rank, line))
            if self.output_format.progress is not None and not self.made_progress:
                self.made_progress = self.output_format.progress.search(line) is not None
            if begun or self._may_matter or self.first_errors.is_collecting(rank):
                text = line.decode(errors="replace")
                self.analyzer.feed(text, rank, node)
                self.first_errors.feed(text, rank)
            begun = False
        if self.analyzer.node_lost and self._lost_at == math.inf:
            self._lost_at = now

    def flush(self, now: float) -> Sequence[tuple[str, bytes]]:
        """What was held back and is shown now, each with its stream; all of it when `now` is infinite."""
        shown: list[tuple[str, bytes]] = []
        self._may_matter = True
        for stream, parser in self._parsers.items() if now == math.inf else self._due_streams(now):
            which, name = stream
            shown += [(name, self._route(which, name, piece, now)) for piece in parser.flush(now)]
            self._set_waiting(stream, parser.due)
        voices = list(self._sources) if now == math.inf else [each for each in self._waiting if len(each) == 3]
        for source in voices:
            noise, lines = self._sources[source]
            if now == math.inf:
                rest = self._remove_markers(source, None)
                shown.append((source[1], noise.feed(rest, now)))
                self._handle_lines(lines.feed(rest), source[2], None, now)
            shown.append((source[1], noise.flush(now)))
            self._set_waiting(source, noise.due)
            if now == math.inf:
                self._handle_lines(lines.flush(), source[2], None, now)
        self._write_log()
        return [(name, data) for name, data in shown if data]

    def _due_streams(self, now: float) -> list[tuple[StreamKey, LabelParser]]:
        return [
            (each, self._parsers[each]) for each in self._waiting if len(each) == 2 and self._parsers[each].due <= now
        ]

    def should_end(self, now: float) -> bool:
        """Whether a node was lost some time ago, and the launcher still waits for it."""
        return self.output_format.end_when_lost and now - self._lost_at >= LOST_GRACE

    def end_requested(self) -> None:
        """Whoever ends from here on is no culprit."""
        self.analyzer.end_requested = True


@functools.cache
def _keywords() -> tuple[str, ...]:
    """Return the words of which at least one is in whatever line tells something."""
    more = (hint.lower() for hint in hints())
    return tuple(dict.fromkeys((*KEYWORDS, *(hint for hint in more if not any(word in hint for word in KEYWORDS)))))
