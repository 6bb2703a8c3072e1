"""The peak memory of the launching process, for different kinds of large sources."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench import ours, trees
from bench.measure import count, in_memory, megabytes, run
from bench.model import Benchmark, Bound, Result, Row, Settings, Table
from tests.lab.members import write_members

if TYPE_CHECKING:
    from pathlib import Path

LARGE = 4 << 30
MANY = 300_000
PER_DIRECTORY = 1000
MEMBERS = 1_000_000
LIMIT = 200.0
ABOUT = """\
One host, to tmpfs. The mark is VmHWM of the process that was launched, all of its threads included. `ezpz yeet tar`
holds all entries, since its archive tells first what is in it, and has no bound of its own."""


def peaks(settings: Settings) -> Result:
    """Copy each source to this host and measure the peak memory."""
    scale = 0.02 if settings.quick else 1.0
    rows = [_yeet(trees.environment(settings.work, scale=0.1 if settings.quick else 1.0), "an environment", settings)]
    with in_memory() as memory:
        large = memory / "large"
        large.mkdir()
        with open(large / "model.safetensors", "wb") as file:
            file.truncate(int(LARGE * scale))
        rows.append(_yeet(large, "one large (sparse) file", settings))
    with in_memory() as memory:
        many = _many(memory / "many", int(MANY * scale))
        rows.append(_yeet(many, "very many files", settings))
        packed = _pack(many, memory / "many.tar", settings)
    with in_memory() as memory:
        archive, members = memory / "members.tar.zst", int(MEMBERS * scale)
        write_members(archive, members)
        settings.say("an archive")
        done, step = ours.yeet_here(archive, memory / "env")
        rows.append(Row(f"an archive of very many files: {members:,} files", (done.peak / 1e6,), f"{step:.1f} s"))
    bounds = tuple(Bound(f"peak for {row.way}", row.median, LIMIT, " MB") for row in rows)
    return Result(
        (ABOUT,),
        (Table("Peak resident memory", "MB", (*rows, packed)),),
        bounds,
        (("ezpz yeet", "ezpz yeet SRC --dst /dev/shm/X/env --hosts $(hostname) --json"),),
    )


def _yeet(source: Path, what: str, settings: Settings) -> Row:
    settings.say(what)
    files, size = count(source)
    with in_memory() as memory:
        done, step = ours.yeet_here(source, memory / "env")
    return Row(f"{what}: {megabytes(size)}, {files:,} files", (done.peak / 1e6,), f"{step:.1f} s")


def _pack(source: Path, target: Path, settings: Settings) -> Row:
    settings.say("packing very many files")
    files, size = count(source)
    done = run(ours.argv("yeet", "tar", source, "-o", target, "-q"), env=ours.environment())
    way = f"`ezpz yeet tar` of very many files: {megabytes(size)}, {files:,} files"
    return Row(way, (done.peak / 1e6,), f"{done.seconds:.1f} s")


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
