"""The duration of `ezpz yeet status` on 64 hosts, compared with an ssh session to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import ours
from bench.measure import run
from bench.model import Benchmark, Bound, Result, Row, Settings, Table
from tests.lab.environments import make_tree
from tests.lab.hosts import Lab, why_not
from tests.lab.model import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

HOSTS, FEW = 64, 8  # without the launching host
FILES, BYTES = 200, 5_000_000
LARGE = 5_000  # files
RUNS = 7
SESSIONS = "all ssh sessions at once, `true` in each"
NAMED, ALL, DEEP = "ezpz yeet status DST", "ezpz yeet status", f"ezpz yeet status DST, {LARGE:,} files there"
MAX_STATUS = 1.3  # times the sessions
ABOUT = """\
{hosts} hosts, each with a tree of {files} files and one of {large:,}, put there by `ezpz yeet`. All of them share the
cores of one machine, which is what limits every way here: what a node does by itself, such as looking at its files, is
done in turns, while real nodes do it at the same time."""


def ask(settings: Settings) -> Result:
    """Copy two trees to all hosts, then query them in turns; the first turn is not counted."""
    if why_not():
        raise LabUnavailable(why_not() or "")
    count = FEW if settings.quick else HOSTS
    samples: dict[str, list[float]] = {}
    with Lab(count + 1) as lab:
        names = [host.name for host in lab.hosts[1:]]
        hosts = ("--hosts", f"n[001-{count:03d}]")
        for name, files, directory in (("few", FILES, "/tmp"), ("many", LARGE, "/tmp/deep")):  # found without DST: one
            make_tree(lab.shared / name, files=files, total_bytes=BYTES, seed=1)
            _run(lab, ours.argv("yeet", lab.shared / name, "--dst", f"{directory}/{name}", *hosts))
        ways = {
            SESSIONS: ["sh", "-c", f"for host in {' '.join(names)}; do ssh $host true & done; wait"],
            NAMED: ours.argv("yeet", "status", "/tmp/few", *hosts),
            ALL: ours.argv("yeet", "status", *hosts),
            DEEP: ours.argv("yeet", "status", "/tmp/deep/many", *hosts),
        }
        for turn in range(settings.runs(RUNS) + 1):
            for way, argv in ways.items():
                seconds = _run(lab, argv)
                settings.say(f"{way}: {seconds:.2f} s")
                if turn:
                    samples.setdefault(way, []).append(seconds)
    table = Table("Time", "s", tuple(Row(way, tuple(taken)) for way, taken in samples.items()), against=SESSIONS)
    value = table.row(NAMED).median / table.row(SESSIONS).median
    about = ABOUT.format(hosts=count, files=FILES, large=LARGE).replace("\n", " ")
    bound = Bound(f"asking {count} hosts, as a multiple of an ssh to each", value, MAX_STATUS)
    return Result((about,), (table,), (bound,))


def _run(lab: Lab, argv: Sequence[str]) -> float:
    return run(lab.argv("n000", argv), env=ours.environment()).seconds


BENCHMARK = Benchmark("status", "Asking what stands there", ask, (("ssh", "-V"), ("python", "-V")))
