"""The duration of `ezpz --help`, compared with the import of click."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bench import ours
from bench.measure import run
from bench.model import Benchmark, Bound, Result, Row, Settings, Table

RUNS = 25
HELP, CLICK, BARE = "ezpz --help", 'python -c "import click"', "python -c pass"
COMMANDS = {
    HELP: [str(Path(sys.executable).with_name("ezpz")), "--help"],
    CLICK: [sys.executable, "-c", "import click"],
    BARE: [sys.executable, "-c", "pass"],
}
SLOWER_THAN_CLICK = 2.5


def start(settings: Settings) -> Result:
    """Start each command in turns; the first turn, which writes bytecode, is not counted."""
    samples: dict[str, list[float]] = {way: [] for way in COMMANDS}
    for turn in range(settings.runs(RUNS) + 1):
        for way, argv in COMMANDS.items():
            seconds = run(argv, env=ours.environment()).seconds
            if turn:
                samples[way].append(seconds * 1000)
    table = Table("Time", "ms", tuple(Row(way, tuple(taken)) for way, taken in samples.items()), against=CLICK)
    tables = [table]
    if shutil.which("strace"):
        rows = tuple(Row(way, (float(_opened(argv, settings.work)),)) for way, argv in COMMANDS.items())
        tables.append(
            Table("Files opened, each of which a shared filesystem is asked for", "files", rows, against=CLICK)
        )
    value = table.row(HELP).median / table.row(CLICK).median
    return Result(
        ("The same interpreter for all.",),
        tuple(tables),
        (Bound(f"`{HELP}`, as a multiple of `{CLICK}`", value, SLOWER_THAN_CLICK),),
    )


def _opened(argv: list[str], work: Path) -> int:
    trace = work / "trace"
    run(["strace", "-f", "-qq", "-e", "trace=open,openat", "-o", trace, *argv], env=ours.environment())
    return sum("ENOENT" not in line and "O_RDONLY" in line for line in trace.read_text().splitlines())


BENCHMARK = Benchmark("startup", "Starting up", start, (("python", "-V"),))
