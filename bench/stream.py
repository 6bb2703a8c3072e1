"""The stream engine compared with its floor: 16 and 64 hosts, incompressible data, a host with a slow cable."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bench import ours
from bench.fanout import pack
from bench.floor import Floor, measure
from bench.measure import Done, count, megabytes, run
from bench.model import Benchmark, Bound, Result, Row, Settings, Table
from tests.lab.hosts import Lab, why_not
from tests.lab.model import LabError, LabUnavailable

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 3
LAUNCHING, SLOW = "n000", "n003"
FILES, FILE = 64, 4 << 20  # of random bytes
MANY = 64
ABOVE_FLOOR, ABOVE_WIRE, SLOWER, NOT_SLOWER = 1.3, 1.35, 1.15, 1.0
ABOUT = """\
Hosts as above, all of them served from a launching host that is none of the job. Seconds from the prompt to the prompt.
The cable of a slow host has a tenth of the rate of the others'."""
COMMAND = "ezpz yeet /shared/SRC --dst /tmp/env --hostfile /shared/hosts --json"


class StreamLab:
    """Hosts at one rate, and a source that is copied to them."""

    def __init__(self, lab: Lab, source: Path, settings: Settings) -> None:
        """Copy this source in this lab, from a host that does not get a copy."""
        self.lab = lab
        self.source = source
        self.settings = settings
        self.hosts = lab.hosts[1:]
        self.env = ours.environment(PATH="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        self.hostfile = lab.shared / "served"
        self.hostfile.write_text("".join(f"{host.name}\n" for host in self.hosts))

    def on(self, host: str, argv: list[str]) -> Done:
        """Run a command on a host."""
        return run(self.lab.argv(host, argv), env=self.env)

    def clean(self) -> None:
        """Empty /tmp on every host."""
        self.lab.clean()

    def yeet(self) -> tuple[Done, dict[str, Any]]:
        """Copy to all hosts and check that all of them have everything."""
        self.lab.clean()
        argv = ours.argv("yeet", self.source, "--dst", "/tmp/env", "--hostfile", self.hostfile, "--json")
        done = self.on(LAUNCHING, argv)
        report = ours.report(done)
        landed = {count(self.lab.path(host, "/tmp/env")) for host in self.hosts}
        if landed != {(report["files"], report["bytes"])} or report["succeeded"] != len(self.hosts):
            raise LabError(f"not every host has all of it: {landed}, {report}")
        return done, report

    def seconds(self) -> tuple[float, ...]:
        """Return the seconds of each run."""
        return tuple(self.yeet()[0].seconds for _ in range(self.settings.runs(RUNS)))

    def floor(self, mbit: int) -> Floor:
        """Measure the floor on these hosts."""
        return measure(self.on, self.clean, self.source, LAUNCHING, self.hosts, mbit)


def stream(settings: Settings) -> Result:
    """Measure everything, in one lab after the other."""
    reason = why_not()
    if reason:
        raise LabUnavailable(reason)
    parts = [_environment(settings, hosts) for hosts in ((4,) if settings.quick else (16, MANY))]
    parts.append(_incompressible(settings))
    about = (ABOUT, *(text for part in parts for text in part[0]))
    rows = tuple(row for part in parts for row in part[1])
    bounds = tuple(bound for part in parts for bound in part[2])
    return Result(about, (Table("ezpz yeet --engine stream", "s", rows),), bounds, (("ezpz yeet", COMMAND),))


def _environment(settings: Settings, hosts: int) -> tuple[list[str], list[Row], list[Bound]]:
    with Lab(hosts + 1, rate="100mbit") as lab:
        sample = pack(lab, small=settings.quick)
        stream_lab = StreamLab(lab, sample.source, settings)
        settings.say(f"{hosts} hosts at 100 Mbit/s")
        floor = stream_lab.floor(100)
        row = Row(f"an environment to {hosts} hosts at 100 Mbit/s", stream_lab.seconds())
        bound = Bound(
            f"{hosts} hosts at 100 Mbit/s, as a multiple of their floor", row.median / floor.seconds, ABOVE_FLOOR
        )
        about = [f"{hosts} hosts: {sample.about} {floor.about}"]
        rows, bounds = [row, Row(f"its floor, {hosts} hosts", (floor.seconds,))], [bound]
        if hosts == MANY:
            return about, rows, bounds
        packed = lab.shared / "packed.tar.zst"
        run(ours.argv("yeet", "tar", sample.source, "-o", packed, "--base", "keep", "-q"), env=stream_lab.env)
        stream_lab.source = packed
        unpacked = Row(f"its archive, a .tar.zst, to {hosts} hosts at 100 Mbit/s", stream_lab.seconds())
        same = Bound("from the archive, as a multiple of from the directory", unpacked.median / row.median, NOT_SLOWER)
        return about, [*rows, unpacked], [*bounds, same]


def _incompressible(settings: Settings) -> tuple[list[str], list[Row], list[Bound]]:
    hosts = 4 if settings.quick else 16
    with Lab(hosts + 1, rate="200mbit") as lab:
        source = lab.shared / "random"
        source.mkdir()
        for number in range(FILES // (8 if settings.quick else 1)):
            (source / f"{number:02d}.bin").write_bytes(os.urandom(FILE))
        size = count(source)[1]
        stream_lab = StreamLab(lab, source, settings)
        settings.say(f"random bytes to {hosts} hosts at 200 Mbit/s")
        floor = stream_lab.floor(200)
        least = floor.sessions + floor.wire
        usual = Row(f"{megabytes(size)} of random bytes to {hosts} hosts at 200 Mbit/s", stream_lab.seconds())
        settings.say("with a slow host")
        lab.reshape(SLOW, "20mbit")
        others, slowest = _with_slow_host(stream_lab, settings.runs(1))
        bounds = [
            Bound("random bytes, as a multiple of one copy and the sessions", usual.median / least, ABOVE_WIRE),
            Bound("one slow host: the last of the others, as a multiple of the run without it",
                  others.median / usual.median, SLOWER),
        ]  # fmt: skip
        about = [f"Random bytes: one copy over the wire takes {floor.wire:.2f} s, all sessions {floor.sessions:.2f} s."]
        return about, [usual, Row("one copy over the wire, and the sessions", (least,)), others, slowest], bounds


def _with_slow_host(stream_lab: StreamLab, runs: int) -> tuple[Row, Row]:
    others, slow = [], []
    for _ in range(runs):
        _, report = stream_lab.yeet()
        seconds = {node["node"]: node["seconds"] for node in report["nodes"]}
        slow.append(seconds.pop(SLOW))
        others.append(max(seconds.values()))
    return Row("with one slow host: the last of the others", tuple(others)), Row("the slow host itself", tuple(slow))


BENCHMARK = Benchmark(
    "stream", "The stream and its floor", stream, (("ssh", "-V"), ("zstd", "--version"), ("tar", "--version"))
)
