"""The strategy `direct` on one host, from the page cache to tmpfs, compared with cp, rsync, and tar."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bench import ours, trees
from bench.measure import count, in_memory, megabytes, run
from bench.model import Benchmark, Bound, Result, Row, Settings, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RUNS = 5
STEP, WHOLE = "ezpz yeet, the local step", "ezpz yeet, from the prompt to the prompt"
CP, RSYNC, TAR = "cp -a", "rsync -a", "tar | tar"
SLOWER_THAN_CP = 1.5
MADE = 1  # file that ezpz adds to an environment: env.sh
ABOUT = """\
One host. The tree is an environment: `pyvenv.cfg`, and scripts that name the old place. The local step is all that ezpz
does with it: scan, check, read, relocation, verification and the rename. The row below it adds the start and the end of
Python. Every peer is timed from the prompt to the prompt."""


def copy(settings: Settings) -> Result:
    """Measure all ways in turns, so that other load of the machine affects all of them."""
    tree = trees.environment(settings.work, scale=0.1 if settings.quick else 1.0)
    trees.warm(tree)
    files, size = count(tree)
    with in_memory() as memory:
        samples = measure(settings.runs(RUNS), tree, memory / "env", settings.say, ways=(CP, RSYNC, TAR))
    rows = tuple(Row(way, tuple(seconds)) for way, seconds in samples.items())
    table = Table(f"{megabytes(size)} in {files:,} files, page cache to tmpfs", "s", rows, against=CP)
    value = table.row(STEP).median / table.row(CP).median
    return Result(
        (ABOUT,),
        (table,),
        (Bound(f"the local step, as a multiple of `{CP}`", value, SLOWER_THAN_CP),),
        tuple((way, shown(way)) for way in (WHOLE, CP, RSYNC, TAR)),
    )


def measure(
    runs: int,
    tree: Path,
    target: Path,
    say: Callable[[str], None],
    *,
    ways: tuple[str, ...],
    slow: Mapping[str, str] = {},
) -> dict[str, list[float]]:
    """Copy ``tree`` to ``target`` with ezpz and with ``ways``, ``runs`` times, and return the seconds of each.

    ``slow`` is added to the environment of all. The first round is not counted if there are several.
    """
    env = ours.environment(**slow)
    files, _ = count(tree)
    samples: dict[str, list[float]] = {name: [] for name in (STEP, WHOLE, *ways)}
    for turn in range(runs if runs == 1 else runs + 1):
        say(f"round {turn + 1}")
        done, step = ours.yeet_here(tree, target, env)
        taken = {STEP: step, WHOLE: done.seconds}
        _finish(target, files + MADE)
        for way in ways:
            taken[way] = run(["sh", "-ec", command(way, tree, target)], env=env).seconds
            _finish(target, files)
        if runs == 1 or turn:
            for way, seconds in taken.items():
                samples[way].append(seconds)
    return samples


def command(way: str, tree: Path, target: Path) -> str:
    """Return the shell command of a way to copy a tree."""
    source, there = shlex.quote(str(tree)), shlex.quote(str(target))
    return {
        CP: f"cp -a {source} {there}",
        RSYNC: f"rsync -a {source}/ {there}/",
        TAR: f"mkdir {there}; tar -C {source} -cf - . | tar -C {there} -xf -",
    }[way]


def shown(way: str) -> str:
    """Return the command of a way as the page shows it."""
    if way == WHOLE:
        return "ezpz yeet ENV --dst /dev/shm/X/env --hosts $(hostname) --json"
    return command(way, Path("ENV"), Path("/dev/shm/X/env"))


def _finish(target: Path, files: int) -> None:
    landed, _ = count(target)
    if landed != files:
        raise RuntimeError(f"{target} holds {landed} files, not {files}")
    shutil.rmtree(target)


BENCHMARK = Benchmark(
    "local", "One host: page cache to tmpfs", copy, (("cp", "--version"), ("rsync", "--version"), ("tar", "--version"))
)
