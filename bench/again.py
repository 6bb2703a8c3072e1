"""A second run to 16 hosts: after no change, and after the installation of a package of 1 MB."""

from __future__ import annotations

import random
import sys
import zipfile
from typing import TYPE_CHECKING

from bench.fanout import RATE, Testbed, open_testbed
from bench.measure import run
from bench.model import Benchmark, Bound, Result, Row, Settings, Table
from bench.peers import SESSIONS, floor, without_paths

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 5
SIZE = 1_000_000  # bytes of the package
AGAIN, CHANGED, REREAD = "ezpz yeet again", "ezpz yeet again, a package of 1 MB more", "ezpz yeet again, --checksum"
RSYNC, SCAN, FLOOR = "rsync -a again, to all at once", "the scan of the source", "1.25 x the sessions, and the scan"
MAX_CHANGED = 1.5  # times the minimum
ABOUT = """\
The hosts and the environment of [many hosts](#many-hosts-16-at-100-mbits): {others} at {rate} Mbit/s and the launching
host, all of which have a version already. The package is installed by pip into the source, with its bytecode."""
COUNT = "import os, sys, time; from ezpz.yeet.source.scanner import scan_directory as scan; began = time.monotonic(); "
COUNT += "scan_directory(os.fsencode(sys.argv[1])).close(); print(time.monotonic() - began)"


class SecondRun:
    """Repeated measurements after every host has a version."""

    def __init__(self, testbed: Testbed) -> None:
        """Measure on hosts that all have a version."""
        self.testbed = testbed
        self.version = 0
        self.samples: dict[str, list[float]] = {name: [] for name in (AGAIN, CHANGED, REREAD, RSYNC, SESSIONS, SCAN)}

    def turn(self) -> None:
        """Measure each way once."""
        env, source = self.testbed.env, self.testbed.sample.source
        self.samples[AGAIN].append(self.testbed.yeet().seconds)
        self.install()
        self.samples[CHANGED].append(self.testbed.yeet().seconds)
        self.samples[REREAD].append(self.testbed.yeet("--checksum").seconds)
        names = " ".join(host.name for host in self.testbed.remote)
        rsync = f"for host in {names}; do rsync -a {source}/ $host:/tmp/env.rsync/ & done; wait"
        if not self.samples[RSYNC]:
            self.testbed.launch(["sh", "-c", rsync])
        self.samples[RSYNC].append(self.testbed.launch(["sh", "-c", rsync]).seconds)
        sessions = next(part for part in floor(source, self.testbed.remote) if part.way == SESSIONS)
        self.samples[SESSIONS].append(self.testbed.launch(["sh", "-ec", sessions.command]).seconds)
        counted = run([sys.executable, "-c", COUNT, source], env=env)
        self.samples[SCAN].append(float(counted.out))

    def install(self) -> None:
        """Install another version of a package of 1 MB, with pip."""
        self.version += 1
        built = wheel(self.testbed.lab.shared, f"1.{self.version}")
        python = self.testbed.sample.source / "bin" / "python"
        run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-warn-script-location", built])


def wheel(directory: Path, version: str) -> Path:
    """Write a wheel of SIZE random bytes, and return its path."""
    path = directory / f"growing-{version}-py3-none-any.whl"
    about = f"growing-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("growing/__init__.py", f"VERSION = {version!r}\n")
        file.writestr("growing/data.bin", random.SystemRandom().randbytes(SIZE))
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: growing\nVersion: {version}\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return path


def again(settings: Settings) -> Result:
    """Measure second runs, rsync's, and the floor on the same hosts, one after the other."""
    with open_testbed(settings) as testbed:
        lab = testbed.lab
        testbed.yeet()
        second = SecondRun(testbed)
        for turn in range(settings.runs(RUNS)):
            settings.say(f"run {turn + 1}")
            second.turn()
        rows = {way: Row(way, tuple(samples)) for way, samples in second.samples.items()}
        sums = zip(rows[SESSIONS].samples, rows[SCAN].samples, strict=True)
        rows[FLOOR] = Row(FLOOR, tuple(1.25 * sessions + scan for sessions, scan in sums))
        commands = tuple(
            (part.way, without_paths(part.command, lab)) for part in floor(testbed.sample.source, testbed.remote)[:1]
        )
        about = (ABOUT.format(others=lab.count - 1, rate=RATE[:-4]),)
    least = rows[FLOOR].median
    bounds = (
        Bound(f"`{AGAIN}`, as a multiple of {FLOOR}", rows[AGAIN].median / least, 1.0),
        Bound(f"`{CHANGED}`, as a multiple of the same", rows[CHANGED].median / least, MAX_CHANGED),
    )
    return Result(about, (Table("a second run", "s", tuple(rows.values()), against=FLOOR),), bounds, commands)


BENCHMARK = Benchmark(
    "again", "A second yeet: nothing, or 1 MB, has changed", again, (("ssh", "-V"), ("rsync", "--version"))
)
