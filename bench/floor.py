"""The floor of a fan-out on hosts that share one machine: what nobody can do without, each part measured by itself.

All ssh sessions at once, one compressed copy over the wire, and what it costs the cores to unpack it on every host.
"""

from __future__ import annotations

import os
import re
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.measure import Done
    from tests.lab.model import Host

UNPACK = "zstd -d | tar x on one host"
TIMES = re.compile(r"(\d+)m([\d.]+)s")
RATE = 1_000_000 / 8  # bytes a second, of one Mbit/s


@dataclass(frozen=True)
class Floor:
    """Seconds: all sessions, one compressed copy over the wire, the processor time to unpack it once."""

    sessions: float
    wire: float
    unpack: float
    hosts: int

    @property
    def seconds(self) -> float:
        """The sum, with the unpacking of all hosts shared by the cores of this machine."""
        return self.sessions + self.wire + self.hosts * self.unpack / (os.cpu_count() or 1)

    @property
    def about(self) -> str:
        """How it is made up, in a sentence."""
        cores = os.cpu_count() or 1
        return (
            f"The floor is {self.seconds:.2f} s: all ssh sessions at once {self.sessions:.2f} s, one copy compressed "
            f"by `zstd -1` over the wire {self.wire:.2f} s, and {self.hosts} times {self.unpack:.2f} s of processor "
            f"time for `zstd -d | tar x` on {cores} cores."
        )


def measure(
    launch: Callable[[list[str]], Done], clean: Callable[[], None], source: Path, hosts: tuple[Host, ...], mbit: int
) -> Floor:
    """Measure each part three times and take the medians; `launch` runs a command on the launching host."""
    packed = source.parent / f"{source.name}.tar.zst"
    launch(["sh", "-ec", f"tar -C {source} -cf - . | zstd -q -1 -f -o {packed}"])
    names = " ".join(host.name for host in hosts)
    sessions, unpack = [], []
    for _ in range(3):
        clean()
        sessions.append(launch(["sh", "-ec", f"for host in {names}; do ssh $host true & done; wait"]).seconds)
        said = launch(["bash", "-ec", f"mkdir /tmp/env; zstd -qdc {packed} | tar -C /tmp/env -xf -; times"]).out
        unpack.append(sum(60 * int(minutes) + float(seconds) for minutes, seconds in TIMES.findall(said)))
    clean()
    wire = packed.stat().st_size / (mbit * RATE)
    packed.unlink()
    return Floor(statistics.median(sessions), wire, statistics.median(unpack), len(hosts))
