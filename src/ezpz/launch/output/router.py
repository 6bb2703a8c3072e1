"""Transcript: the ear of an attempt: takes its output apart by rank, shows it, logs it, and has it looked at."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ezpz.launch.launchers.output_labels import LabelParser
from ezpz.launch.output.failure_patterns import hints
from ezpz.launch.output.filter import LineSplitter, NoiseFilter
from ezpz.launch.output.first_errors import WORDS, FirstErrors
from ezpz.launch.output.startup_markers import MarkerFilter

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Sequence

    from ezpz.launch.launchers.output_labels import Label, LabeledText
    from ezpz.launch.output.failure_analysis import FailureAnalyzer
    from ezpz.launch.output.startup_markers import StartupReport

Stream: TypeAlias = "tuple[int, str]"
Voice: TypeAlias = "tuple[int, str, int | None]"
Log: TypeAlias = "Callable[[Sequence[tuple[int | None, bytes]]], None]"

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

    label: Label | None = None
    ours: bool = False
    noise: tuple[re.Pattern[bytes], ...] = ()
    progress: re.Pattern[bytes] | None = None
    end_when_lost: bool = False
    report: StartupReport | None = None
    merged: bool = False


class OutputRouter:
    """An `Ear`. `log` takes every line with its rank (None: the launcher, or nobody knows), many at once."""

    def __init__(self, manner: OutputFormat, witness: FailureAnalyzer, log: Log = lambda _: None) -> None:
        self.manner = manner
        self.witness = witness
        self.log = log
        self.complaints = FirstErrors()
        self.progressed = False
        self._apart: dict[Stream, LabelParser] = {}
        self._voices: dict[Voice, tuple[NoiseFilter, LineSplitter]] = {}
        self._sieves: dict[Voice, MarkerFilter] = {}
        self._waiting: set[Stream | Voice] = set()
        self._lost_at = math.inf
        self._said: list[tuple[int | None, bytes]] = []
        self._telling = True

    @property
    def due(self) -> float:
        """When something that is held back has waited long enough, or a run that lost a node has."""
        return min((self._due(each) for each in self._waiting), default=math.inf)

    def _due(self, each: Stream | Voice) -> float:
        return self._apart[each].due if len(each) == 2 else self._voices[each][0].due

    @property
    def left_out(self) -> int:
        """How many lines were not shown."""
        return sum(screen.left_out for screen, _ in self._voices.values())

    def hear(self, which: int, name: str, data: bytes, now: float) -> bytes:
        """Output of one copy's stream; what of it is shown."""
        apart = self._apart.get((which, name))
        if apart is None:
            apart = self._apart[which, name] = LabelParser(self.manner.label, which if self.manner.ours else None)
        self._telling = self._tells(apart.held + data)
        shown = b"".join(self._say(which, name, piece, now) for piece in apart.feed(data, now))
        self._wait((which, name), apart.due)
        self._write_down()
        return shown

    def _tells(self, data: bytes) -> bool:
        """Whether a line of some output may tell something: much cheaper to find out than for each line by itself."""
        small = data.decode("latin-1").lower()
        return any(word in small for word in _telling()) or self.witness.may_tell(data.decode(errors="replace"))

    def _write_down(self) -> None:
        if self._said:
            self.log(self._said)
            self._said = []

    def _say(self, which: int, name: str, piece: LabeledText, now: float) -> bytes:
        voice = (which, name, piece.rank)
        if voice not in self._voices:
            self._voices[voice] = (NoiseFilter(self.manner.noise, shared=self.manner.label is not None), LineSplitter())
        screen, lines = self._voices[voice]
        text = self._sifted(voice, piece.text)
        shown = screen.feed(text, now)
        self._wait(voice, screen.due)
        begun = lines.has_begun
        self._lines(lines.feed(text), piece.rank, piece.node, now, begun=begun)
        return shown

    def _sifted(self, voice: Voice, text: bytes | None) -> bytes:
        """Some more of a voice, None for its end, without what is a report."""
        report = self.manner.report
        if report is None:
            return text or b""
        if voice not in self._sieves:
            self._sieves[voice] = MarkerFilter(report)
        left = self._sieves[voice].flush() if text is None else self._sieves[voice].feed(text)
        if voice[2] is None and (voice[1] == "stderr" or self.manner.merged):
            report.note(left)
        return left

    def _wait(self, each: Stream | Voice, due: float) -> None:
        if due < math.inf:
            self._waiting.add(each)
        else:
            self._waiting.discard(each)

    def _lines(
        self, lines: Iterable[bytes], rank: int | None, node: str | None, now: float, *, begun: bool = True
    ) -> None:
        """Log lines, and have looked at those that may tell something; begun: the first has begun earlier."""
        for line in lines:
            self._said.append((rank, line))
            if self.manner.progress is not None and not self.progressed:
                self.progressed = self.manner.progress.search(line) is not None
            if begun or self._telling or self.complaints.follows(rank):
                text = line.decode(errors="replace")
                self.witness.hear(text, rank, node)
                self.complaints.hear(text, rank)
            begun = False
        if self.witness.node_lost and self._lost_at == math.inf:
            self._lost_at = now

    def settle(self, now: float) -> Sequence[tuple[str, bytes]]:
        """What was held back and is shown now, each with its stream; all of it when `now` is infinite."""
        shown: list[tuple[str, bytes]] = []
        self._telling = True
        for stream, apart in self._apart.items() if now == math.inf else self._streams(now):
            which, name = stream
            shown += [(name, self._say(which, name, piece, now)) for piece in apart.flush(now)]
            self._wait(stream, apart.due)
        voices = list(self._voices) if now == math.inf else [each for each in self._waiting if len(each) == 3]
        for voice in voices:
            screen, lines = self._voices[voice]
            if now == math.inf:
                rest = self._sifted(voice, None)
                shown.append((voice[1], screen.feed(rest, now)))
                self._lines(lines.feed(rest), voice[2], None, now)
            shown.append((voice[1], screen.flush(now)))
            self._wait(voice, screen.due)
            if now == math.inf:
                self._lines(lines.flush(), voice[2], None, now)
        self._write_down()
        return [(name, data) for name, data in shown if data]

    def _streams(self, now: float) -> list[tuple[Stream, LabelParser]]:
        return [(each, self._apart[each]) for each in self._waiting if len(each) == 2 and self._apart[each].due <= now]

    def doomed(self, now: float) -> bool:
        """Whether a node was lost some time ago, and the launcher still waits for it."""
        return self.manner.end_when_lost and now - self._lost_at >= LOST_GRACE

    def asked(self) -> None:
        """Whoever ends from here on is no culprit."""
        self.witness.is_over = True


@functools.cache
def _telling() -> tuple[str, ...]:
    """Return the words of which at least one is in whatever line tells something."""
    more = (hint.lower() for hint in hints())
    return tuple(dict.fromkeys((*WORDS, *(hint for hint in more if not any(word in hint for word in WORDS)))))
