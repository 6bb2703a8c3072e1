"""One environment to 16 hosts with 100 Mbit/s each: ezpz compared with common commands."""

from __future__ import annotations

import contextlib
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import ours
from bench.measure import Done, count, megabytes, run
from bench.model import Benchmark, Bound, Result, Row, Settings, Table
from bench.peers import NAIVE, RAW, SBCAST, SESSIONS, SQUEEZED, floor, peers, without_paths
from tests.lab.environments import make_venv
from tests.lab.hosts import Lab, why_not
from tests.lab.model import Host, LabError, LabUnavailable
from tests.lab.slowfs import CACHE
from tests.lab.slurm import Slurm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOSTS, FEW = 17, 5  # the launching host and 16 others; for a rehearsal
RATE = "100mbit"
RUNS = 3  # of ezpz; the peers take minutes and run once by default
PACKAGES = ("numpy", "lxml", "pygments")
CHANGE = 1_000_000  # bytes
FIRST, AGAIN, CHANGED = "ezpz yeet", "ezpz yeet again, nothing changed", "ezpz yeet again, 1 MB changed"
FLOOR = "the floor: the sessions and one copy"
FASTER_THAN_NAIVE, FASTER_THAN_SBCAST = 12.0, 3.0
YEET = "ezpz yeet /shared/env --dst /tmp/env --hostfile /shared/hosts --json"
PLACE = """\
{hosts} hosts (network namespaces with an sshd each, `tests/lab`) share the cores of one machine. The launching host is
one of the job, so that ezpz serves {hosts} and every peer only the {others} others. Destinations are tmpfs; the source
lies in the page cache. After each way the files and bytes on every host are counted, and its /tmp is emptied. Cables
take segments of at most 32 kB (`gso_max_size`), since what shapes them would cut larger ones in software."""


@dataclass(frozen=True)
class Sample:
    """What is copied: an environment on the disk that all hosts share, its size, and its .tar.gz."""

    source: Path
    archive: Path
    files: int
    size: int
    packing: float

    @property
    def about(self) -> str:
        """A description for the page."""
        return (
            f"A real venv with {', '.join(PACKAGES)} and their bytecode: {megabytes(self.size)} in {self.files:,} "
            f"files; {megabytes(self.archive.stat().st_size)} as .tar.gz, which took {self.packing:.1f} s to make and "
            "is not counted below."
        )


def pack(lab: Lab, *, small: bool) -> Sample:
    """Build the environment on the shared disk, with 1 MB that changes later, and its archive."""
    source = lab.shared / "env"
    make_venv(source, python=sys.executable, packages=PACKAGES[:1] if small else PACKAGES, cache=CACHE)
    change(source)
    archive = lab.shared / "env.tar.gz"
    packing = run(["tar", "-C", lab.shared, "-czf", archive, "env"]).seconds
    return Sample(source, archive, *count(source), packing)


def change(source: Path) -> None:
    """Replace 1 MB of the environment."""
    (source / "weights.bin").write_bytes(random.SystemRandom().randbytes(CHANGE))


class Testbed:
    """Hosts and an environment; times and checks the ways to copy it there."""

    def __init__(self, lab: Lab, sample: Sample, say: Callable[[str], None]) -> None:
        """Measure on this lab."""
        self.lab = lab
        self.sample = sample
        self.say = say
        self.remote = lab.hosts[1:]
        self.env = ours.environment(PATH="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")

    def launch(self, argv: list[str]) -> Done:
        """Run a command on the launching host."""
        return run(self.lab.argv("n000", argv), env=self.env)

    def clean(self) -> None:
        """Empty /tmp on every host."""
        self.lab.clean()

    def landed(self, hosts: tuple[Host, ...]) -> set[tuple[int, int]]:
        """Return the different (files, bytes) that these hosts have; one item if all are equal."""
        return {count(self.lab.path(host, "/tmp/env")) for host in hosts}

    def peer(self, command: str, runs: int) -> tuple[tuple[float, ...], str]:
        """Time a peer; return the seconds, and a note if the copies differ from the source."""
        samples = []
        for _ in range(runs):
            self.clean()
            samples.append(self.launch(["sh", "-ec", command]).seconds)
        landed = self.landed(self.remote)
        self.clean()
        if landed == {(self.sample.files, self.sample.size)}:
            return tuple(samples), ""
        found = "; ".join(f"{files:,} files, {megabytes(size)}" for files, size in sorted(landed))
        return tuple(samples), f"differs from the source: {found}"

    def yeet(self, *options: str) -> Done:
        """Copy to all hosts with ezpz, including this one, and check that all of them have everything."""
        sample = self.sample
        done = self.launch(
            ours.argv(
                "yeet", sample.source, "--dst", "/tmp/env", "--hostfile", self.lab.shared / "hosts", "--json", *options
            )
        )
        report = ours.report(done)
        wanted = (report["files"], report["bytes"])
        if self.landed(self.lab.hosts) != {wanted} or wanted[0] < sample.files or report["succeeded"] != self.lab.count:
            raise LabError(f"not every host has {sample.files} files, {report['bytes']} bytes: {report}")
        return done


@contextlib.contextmanager
def open_testbed(settings: Settings) -> Iterator[Testbed]:
    """Start hosts at RATE and build an environment, fewer and smaller with --quick. Raises LabUnavailable."""
    reason = why_not()
    if reason:
        raise LabUnavailable(reason)
    with Lab(FEW if settings.quick else HOSTS, rate=RATE) as lab:
        settings.say("building the environment")
        testbed = Testbed(lab, pack(lab, small=settings.quick), settings.say)
        lab.write_hostfile(lab.shared / "hosts")
        yield testbed


def fan_out(settings: Settings) -> Result:
    """Measure ezpz, its peers, and the floor on the same hosts, one after the other."""
    with open_testbed(settings) as testbed:
        lab = testbed.lab
        own, memory = _ours(testbed, settings.runs(RUNS))
        ground = _floor(testbed, settings.runs(RUNS))
        rows = [*own, *_peers(testbed, settings.runs(1)), *ground]
        about = (
            PLACE.format(hosts=lab.count, others=lab.count - 1),
            testbed.sample.about,
            f"The launching process took {memory / 1e6:.0f} MB of memory at its peak.",
        )
        table = Table(f"to {lab.count - 1} hosts at {RATE[:-4]} Mbit/s", "s", tuple(rows), against=FIRST)
        others = (*peers(*_where(testbed)), *floor(testbed.sample.source, testbed.remote))
        commands = ((FIRST, YEET), *((each.way, without_paths(each.command, lab)) for each in others))
    first = table.row(FIRST).median
    naive = Bound(
        f"`{NAIVE}`, as a multiple of `{FIRST}`", table.row(NAIVE).median / first, FASTER_THAN_NAIVE, at_least=True
    )
    bounds = [naive]
    if any(row.way == SBCAST for row in rows):
        slower = table.row(SBCAST).median / first
        bounds.append(Bound(f"`{SBCAST}`, as a multiple of `{FIRST}`", slower, FASTER_THAN_SBCAST, at_least=True))
    return Result(about, (table,), tuple(bounds), commands)


def _where(testbed: Testbed) -> tuple[Path, Path, tuple[Host, ...]]:
    return testbed.sample.source, testbed.sample.archive, testbed.remote


def _ours(testbed: Testbed, runs: int) -> tuple[list[Row], int]:
    samples: dict[str, list[float]] = {FIRST: [], AGAIN: [], CHANGED: []}
    notes: dict[str, str] = {}
    peak = 0
    for turn in range(runs):
        testbed.say(f"{FIRST}, run {turn + 1} of {runs}")
        testbed.clean()
        for way, seconds in samples.items():
            if way == CHANGED:
                change(testbed.sample.source)
            done = testbed.yeet()
            seconds.append(done.seconds)
            peak = max(peak, done.peak)
            phases: dict[str, float] = ours.report(done)["phases"]
            notes[way] = ", ".join(f"{name} {taken:.1f}" for name, taken in phases.items() if taken >= 0.05)
    testbed.clean()
    return [Row(way, tuple(seconds), notes[way]) for way, seconds in samples.items()], peak


def _peers(testbed: Testbed, runs: int) -> list[Row]:
    rows = []
    with contextlib.ExitStack() as stack:
        for peer in peers(*_where(testbed)):
            testbed.say(peer.way)
            if peer.slurm:
                try:
                    stack.enter_context(Slurm(testbed.lab))
                except LabUnavailable as e:
                    testbed.say(f"left out: {e}")
                    continue
            rows.append(Row(peer.way, *testbed.peer(peer.command, runs)))
    return rows


def _floor(testbed: Testbed, runs: int) -> list[Row]:
    """Measure the sessions alone, one copy alone, and their sum: the minimum of every way that uses ssh."""
    rows = {}
    for part in floor(testbed.sample.source, testbed.remote):
        testbed.say(part.way)
        samples = []
        for _ in range(runs):
            testbed.clean()
            samples.append(testbed.launch(["sh", "-ec", part.command]).seconds)
        rows[part.way] = Row(part.way, tuple(samples))
    testbed.clean()
    together = [
        Row(name, tuple(a + b for a, b in zip(rows[SESSIONS].samples, rows[copy].samples, strict=True)))
        for name, copy in ((FLOOR, RAW), (f"{FLOOR}, compressed", SQUEEZED))
    ]
    return [*together, *rows.values()]


BENCHMARK = Benchmark(
    "fanout",
    "Many hosts: 16 at 100 Mbit/s",
    fan_out,
    (("rsync", "--version"), ("ssh", "-V"), ("clush", "--version"), ("slurmctld", "-V"), ("zstd", "--version")),
)
