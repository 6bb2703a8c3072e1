"""`ezpz yeet tar` compared with tar, gzip, and zstd, and copies from the archive."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

from bench import local, ours, trees
from bench.measure import count, in_memory, megabytes, run
from bench.model import Benchmark, Bound, Result, Row, Settings, Table
from bench.slow import MICROSECONDS
from tests.lab.slowfs import slowfs

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 5
MAKE, GZIP, ZSTD = "ezpz yeet tar", "tar czf", "tar | zstd -1 -T2"
FASTER, LARGER = 10.0, 1.15  # than `tar czf`
SLOW_RUNS, SLOW_FASTER = 3, 3.0  # than `cp -a` of the directory
ABOUT = """\
The same tree as for `local`, from the page cache to tmpfs. `tar czf` and `tar | zstd` carry no digests and read in one
thread. Every way is timed from the prompt to the prompt."""
SLOW_ABOUT = """\
The archive and the directory on a filesystem that takes its time over every metadata call, as for `slowfs`."""


def archive(settings: Settings) -> Result:
    """Make the archive in each way in turns, then copy it and the directory to this host from a slow filesystem."""
    tree = trees.environment(settings.work, scale=0.1 if settings.quick else 1.0)
    trees.warm(tree)
    files, size = count(tree)
    with in_memory() as memory:
        seconds, sizes = _make(settings, tree, memory)
        slow = _yeet(settings, tree, memory)
    rows = tuple(Row(way, tuple(taken)) for way, taken in seconds.items())
    table = Table(f"{megabytes(size)} in {files:,} files: making an archive", "s", rows, against=GZIP)
    made = Table("its size", "MB", tuple(Row(way, (each / 1e6,)) for way, each in sizes.items()), against=GZIP)
    slow_rows = tuple(Row(way, tuple(taken)) for way, taken in slow.items())
    title = f"{MICROSECONDS / 1000} ms for each metadata call on the source: putting it on this host"
    slow_table = Table(title, "s", slow_rows, against=local.CP)
    faster = table.row(GZIP).median / table.row(MAKE).median
    smaller = sizes[MAKE] / sizes[GZIP]
    quicker = slow_table.row(local.CP).median / slow_table.row(local.WHOLE).median
    bounds = (
        Bound(f"`{GZIP}`, as a multiple of `{MAKE}`", faster, FASTER, at_least=True),
        Bound(f"the size, as a multiple of `{GZIP}`", smaller, LARGER),
        Bound(f"`{local.CP}` of the directory, as a multiple of a yeet of it", quicker, SLOW_FASTER, at_least=True),
    )
    commands = (
        (MAKE, "ezpz yeet tar ENV -o X/env.tar.zst"), (GZIP, "tar czf X/env.tar.gz ENV"),
        (ZSTD, _zstd("ENV", "X/env.tar.zst")),
    )  # fmt: skip
    return Result((ABOUT, SLOW_ABOUT), (table, made, slow_table), bounds, commands)


def _make(settings: Settings, tree: Path, memory: Path) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Return the seconds of each way, and the bytes of its archive."""
    seconds: dict[str, list[float]] = {way: [] for way in (MAKE, GZIP, ZSTD)}
    sizes: dict[str, int] = {}
    places = {MAKE: memory / "env.tar.zst", GZIP: memory / "gz", ZSTD: memory / "zst"}
    argv = {
        MAKE: ours.argv("yeet", "tar", tree, "-o", places[MAKE], "-q"),
        GZIP: ["tar", "czf", str(places[GZIP]), "-C", str(tree.parent), tree.name],
        ZSTD: ["sh", "-ec", _zstd(str(tree), str(places[ZSTD]))],
    }
    for turn in range(settings.runs(RUNS)):
        settings.say(f"round {turn + 1}")
        for way in (MAKE, ZSTD, *((GZIP,) if turn == 0 else ())):  # slow, with a constant duration
            seconds[way].append(run(argv[way], env=ours.environment()).seconds)
            sizes[way] = places[way].stat().st_size
            places[way].unlink()
    return seconds, sizes


def _yeet(settings: Settings, tree: Path, memory: Path) -> dict[str, list[float]]:
    """Return the seconds of a copy of the archive, and of `cp -a` of the directory, from a slow filesystem."""
    packed = settings.work / "archive" / "env.tar.zst"
    packed.parent.mkdir(exist_ok=True)
    run(ours.argv("yeet", "tar", tree, "-o", packed, "-q"), env=ours.environment())
    target = memory / "env"
    found: dict[str, list[float]] = {local.WHOLE: [], local.CP: []}
    env = ours.environment(**slowfs(packed.parent, MICROSECONDS))
    for turn in range(settings.runs(SLOW_RUNS)):
        settings.say(f"slow round {turn + 1}")
        done, _ = ours.yeet_here(packed, target, env)
        found[local.WHOLE].append(done.seconds)
        shutil.rmtree(target)
    slow = ours.environment(**slowfs(tree, MICROSECONDS))
    found[local.CP].append(run(["sh", "-ec", local.command(local.CP, tree, target)], env=slow).seconds)
    shutil.rmtree(target)
    return found


def _zstd(tree: str, target: str) -> str:
    return f"tar cf - {shlex.quote(tree)} | zstd -1 -T2 -q > {shlex.quote(target)}"


BENCHMARK = Benchmark("archive", "Archives", archive, (("tar", "--version"), ("zstd", "--version")))
