"""The data of all benchmarks: measured rows, tables of them, bounds that must hold, results."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One way, with a sample for each run; ``note`` is printed next to it."""

    way: str
    samples: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)


@dataclass(frozen=True)
class Table:
    """Rows in one ``unit``; with ``against``, the way of one row, each is also printed as a multiple of that row."""

    title: str
    unit: str
    rows: tuple[Row, ...]
    against: str | None = None

    def row(self, way: str) -> Row:
        """Return the row of this way."""
        return next(row for row in self.rows if row.way == way)


@dataclass(frozen=True)
class Bound:
    """A requirement: ``value`` is at least (else at most) ``limit``."""

    what: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the requirement is met in this run."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Result:
    """The result of a benchmark: ``about`` describes the measurement, ``commands`` are the commands by way."""

    about: tuple[str, ...]
    tables: tuple[Table, ...]
    bounds: tuple[Bound, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        work: Private directory on a disk, removed afterwards.
        say: Prints the progress.
        repeat: Number of runs, None for the default of each benchmark.
        quick: Whether this is a small rehearsal.
    """

    work: Path
    say: Callable[[str], None]
    repeat: int | None = None
    quick: bool = False

    def runs(self, usual: int) -> int:
        """Return the number of runs; ``usual`` is the default of the benchmark."""
        return self.repeat or (1 if self.quick else usual)


@dataclass(frozen=True)
class Benchmark:
    """One section of the page. ``tools``: programs whose versions are printed, with the arguments for that."""

    name: str
    title: str
    run: Callable[[Settings], Result]
    tools: tuple[tuple[str, ...], ...] = field(default=())
