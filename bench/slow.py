"""The benchmark `local` with a source on a filesystem with slow metadata calls."""

from __future__ import annotations

from bench import local, trees
from bench.measure import count, in_memory, megabytes
from bench.model import Benchmark, Bound, Result, Row, Settings, Table
from tests.lab.slowfs import slowfs

RUNS = 3  # of ezpz; the peers take a minute and run once
MICROSECONDS = 500
FASTER = 8.0
ABOUT = """\
A busy parallel filesystem in small: a preloaded library (`tests/lab/slowfs.c`) sleeps before each open, stat, readlink,
opendir, access and getxattr of a path in the source, in ours and in the peers alike. Such a filesystem answers many at
a time, and so does this one."""


def copy(settings: Settings) -> Result:
    """Measure all ways with the same delay."""
    tree = trees.environment(settings.work, scale=0.1 if settings.quick else 1.0)
    trees.warm(tree)
    files, size = count(tree)
    own = settings.runs(RUNS)
    ways = (local.CP, local.RSYNC)
    with in_memory() as memory:
        slow = slowfs(tree, MICROSECONDS)
        samples = local.measure(1, tree, memory / "env", settings.say, ways=ways, slow=slow)
        for way, seconds in local.measure(own, tree, memory / "env", settings.say, ways=(), slow=slow).items():
            samples[way] += seconds
    rows = tuple(Row(way, tuple(seconds)) for way, seconds in samples.items())
    title = f"{megabytes(size)} in {files:,} files, {MICROSECONDS / 1000} ms for each metadata call on the source"
    table = Table(title, "s", rows, against=local.STEP)
    step = table.row(local.STEP).median
    bounds = tuple(
        Bound(f"`{way}`, as a multiple of the local step", table.row(way).median / step, FASTER, at_least=True)
        for way in ways
    )
    return Result((ABOUT,), (table,), bounds, tuple((way, f"slow {local.shown(way)}") for way in (local.WHOLE, *ways)))


BENCHMARK = Benchmark(
    "slowfs", "One host: a slow shared filesystem", copy, (("cp", "--version"), ("rsync", "--version"))
)
