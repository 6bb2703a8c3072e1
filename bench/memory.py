"""memory: the peak of the launching process, for sources that could fill it in three different ways."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench import ours, trees
from bench.measure import count, in_memory, megabytes
from bench.model import Benchmark, Bound, Result, Row, Settings, Table

if TYPE_CHECKING:
    from pathlib import Path

LARGE = 4 << 30
MANY = 300_000
PER_DIRECTORY = 1000
LIMIT = 200.0


def peaks(settings: Settings) -> Result:
    """Yeet each of them to this host and watch the high-water mark of its memory."""
    scale = 0.02 if settings.quick else 1.0
    rows = [_yeet(trees.environment(settings.work, scale=0.1 if settings.quick else 1.0), "an environment", settings)]
    with in_memory() as memory:
        large = memory / "large"
        large.mkdir()
        with open(large / "model.safetensors", "wb") as file:
            file.truncate(int(LARGE * scale))
        rows.append(_yeet(large, "one large (sparse) file", settings))
    with in_memory() as memory:
        rows.append(_yeet(_many(memory / "many", int(MANY * scale)), "very many files", settings))
    bounds = tuple(Bound(f"peak for {row.way}", row.median, LIMIT, " MB") for row in rows)
    return Result(
        ("One host, to tmpfs. The mark is VmHWM of the process that was launched, all of its threads included.",),
        (Table("Peak resident memory", "MB", tuple(rows)),),
        bounds,
        (("ezpz yeet", "ezpz yeet SRC --dst /dev/shm/X/env --hosts $(hostname) --json"),),
    )


def _yeet(source: Path, what: str, settings: Settings) -> Row:
    settings.say(what)
    files, size = count(source)
    with in_memory() as memory:
        done, step = ours.yeet_here(source, memory / "env")
    return Row(f"{what}: {megabytes(size)}, {files:,} files", (done.peak / 1e6,), f"{step:.1f} s")


def _many(root: Path, files: int) -> Path:
    for number in range(files):
        folder = root / f"part-{number // PER_DIRECTORY:04d}"
        if number % PER_DIRECTORY == 0:
            folder.mkdir(parents=True)
        descriptor = os.open(folder / f"sample-{number:06d}.txt", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"%d\n" % number)
        os.close(descriptor)
    return root


BENCHMARK = Benchmark("memory", "Memory of the launching process", peaks)
