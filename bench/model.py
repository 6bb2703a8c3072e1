"""What every benchmark speaks of: rows that were measured, a table of them, a bound that must hold, a result."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One way of doing it, each sample a run of its own; ``note`` says what is to be known of it."""

    way: str
    samples: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        """The sample in the middle."""
        return statistics.median(self.samples)


@dataclass(frozen=True)
class Table:
    """Rows in one ``unit``; with ``against``, the way of one row, each is also given as a multiple of that one."""

    title: str
    unit: str
    rows: tuple[Row, ...]
    against: str | None = None

    def row(self, way: str) -> Row:
        """Return the row of this way."""
        return next(row for row in self.rows if row.way == way)


@dataclass(frozen=True)
class Bound:
    """A promise: ``value`` is at least (else at most) ``limit``."""

    what: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the promise was kept in this run."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Result:
    """What one benchmark found: ``about`` is what was copied and how, ``commands`` what was typed, by way."""

    about: tuple[str, ...]
    tables: tuple[Table, ...]
    bounds: tuple[Bound, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Settings:
    """How to measure: ``repeat`` runs (None: the benchmark's own choice), ``quick`` for a small rehearsal.

    ``work`` is a directory of this benchmark's own on a disk, removed afterwards; ``say`` tells how far it is.
    """

    work: Path
    say: Callable[[str], None]
    repeat: int | None = None
    quick: bool = False

    def runs(self, usual: int) -> int:
        """How many runs, when ``usual`` is this benchmark's own choice."""
        return self.repeat or (1 if self.quick else usual)


@dataclass(frozen=True)
class Benchmark:
    """One section of the page. ``tools``: the programs whose versions matter, with what makes them tell it."""

    name: str
    title: str
    run: Callable[[Settings], Result]
    tools: tuple[tuple[str, ...], ...] = field(default=())
