"""The duration of relocation on one host, and of the first import at the destination."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from bench import ours, trees
from bench.measure import count, in_memory, megabytes, run
from bench.model import Benchmark, Bound, Result, Row, Settings, Table
from tests.lab.environments import make_venv
from tests.lab.slowfs import CACHE

if TYPE_CHECKING:
    from pathlib import Path

RUNS, IMPORTS = 7, 9
PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "sympy")
FEW = ("numpy", "scipy")
PLAIN, RELOCATED = "as plain files (no `pyvenv.cfg`)", "as an environment"
SOURCE, ARRIVED, COLD = "at the source, its bytecode warm", "at the destination", "at the source, no bytecode"
MODULES = "numpy, scipy.stats"
SLOWER, SLOWER_IMPORT = 1.25, 1.15
ABOUT = """\
A real venv from PyPI ({packages}). The same files are copied as an environment, and, without `pyvenv.cfg`, as a plain
tree of which nothing is patched, compiled or tried. The local step is scan, check, read, publish, as above; relocation
adds the search for the old path in every file, the questions to the interpreter, and the trial before publishing."""
IMPORT = f"""\
The source of the second table has no bytecode at all, as `uv` leaves it; ezpz compiles once before it publishes. Each
is the time of a new process for `import {MODULES}` from the page cache; the source's own is with bytecode made by a run
before. Without bytecode, and not allowed to write any, is what a rank sees after a copy that lost it."""


def relocate(settings: Settings) -> Result:
    """Measure both, each way in turns."""
    source = make_venv(
        settings.work / "env", python=sys.executable, packages=FEW if settings.quick else PACKAGES, cache=CACHE
    )
    files, size = count(source)
    steps = Table(
        f"The local step, {megabytes(size)} in {files:,} files, page cache to tmpfs", "s",
        _steps(settings, source), against=PLAIN,
    )  # fmt: skip
    imports = Table(f"First import of {MODULES}", "s", _imports(settings, source), against=SOURCE)
    return Result(
        (ABOUT.format(packages=", ".join(PACKAGES)), IMPORT),
        (steps, imports),
        (
            Bound(
                "the local step with relocation, as a multiple of that without",
                steps.row(RELOCATED).median / steps.row(PLAIN).median, SLOWER,
            ),
            Bound(
                "the first import at the destination, as a multiple of the source's with warm bytecode",
                imports.row(ARRIVED).median / imports.row(SOURCE).median, SLOWER_IMPORT,
            ),
        ),
    )  # fmt: skip


def _steps(settings: Settings, source: Path) -> tuple[Row, ...]:
    plain = settings.work / "plain"
    subprocess.run(["cp", "-al", source, plain], check=True)
    (plain / "pyvenv.cfg").unlink()
    trees.warm(source)
    samples: dict[str, list[float]] = {PLAIN: [], RELOCATED: []}
    with in_memory() as memory:
        for turn in range(settings.runs(RUNS) + 1):
            settings.say(f"round {turn + 1}")
            for way, tree in ((PLAIN, plain), (RELOCATED, source)):
                _, seconds = ours.yeet_here(tree, memory / "env")
                shutil.rmtree(memory / "env")
                if turn:
                    samples[way].append(seconds)
    return tuple(Row(way, tuple(seconds)) for way, seconds in samples.items())


def _imports(settings: Settings, source: Path) -> tuple[Row, ...]:
    bare, arrived = settings.work / "bare", settings.work / "arrived"
    subprocess.run(["cp", "-a", source, bare], check=True)
    for directory in bare.rglob("__pycache__"):
        shutil.rmtree(directory)
    ours.yeet_here(bare, arrived)
    command = f"import {MODULES}"
    ways = {SOURCE: (source, ()), ARRIVED: (arrived, ()), COLD: (bare, ("-B",))}
    samples: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(settings.runs(IMPORTS) + 1):
        for way, (prefix, options) in ways.items():
            argv = [str(prefix / "bin" / "python"), *options, "-c", command]
            seconds = run(argv, env=ours.environment()).seconds
            if turn:
                samples[way].append(seconds)
    return tuple(Row(way, tuple(seconds)) for way, seconds in samples.items())


BENCHMARK = Benchmark("relocation", "Relocation: what it costs and what it gives", relocate, (("python", "-V"),))
