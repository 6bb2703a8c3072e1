"""The minimum time of a copy to hosts that share one machine, each part measured separately.

The parts are all ssh sessions at once, one compressed copy over the wire, and the processor time to unpack it on every
host.
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

TIMES = re.compile(r"(\d+)m([\d.]+)s")
RATE = 1_000_000 / 8  # bytes per second of 1 Mbit/s


@dataclass(frozen=True)
class Floor:
    """The parts of the minimum, in seconds.

    Attributes:
        sessions: All ssh sessions at once.
        wire: One compressed copy over the wire.
        unpack: Mean processor time to unpack it on a host.
        first: The lowest processor time of a host. On some machines the first use of memory is far more expensive than
            later ones, so that the first hosts take longer than the last ones.
        hosts: Number of hosts.
    """

    sessions: float
    wire: float
    unpack: float
    first: float
    hosts: int

    @property
    def seconds(self) -> float:
        """The sum, with the unpacking of all hosts shared by the cores of this machine."""
        return self._with(self.unpack)

    @property
    def least(self) -> float:
        """The sum if every host needed the lowest processor time."""
        return self._with(self.first)

    def _with(self, unpack: float) -> float:
        return self.sessions + self.wire + self.hosts * unpack / (os.cpu_count() or 1)

    @property
    def about(self) -> str:
        """A description of the parts for the page."""
        cores = os.cpu_count() or 1
        return (
            f"The floor is {self.seconds:.2f} s: all ssh sessions at once {self.sessions:.2f} s, one copy compressed "
            f"by `zstd -1` over the wire {self.wire:.2f} s, and {self.hosts} times {self.unpack:.2f} s of processor "
            f"time for `zstd -d | tar x` on {cores} cores, measured on each of them in turn ({self.first:.2f} s on the "
            f"cheapest; were it that on all, the floor would be {self.least:.2f} s)."
        )


def measure(
    on: Callable[[str, list[str]], Done],
    clean: Callable[[], None],
    source: Path,
    launching: str,
    hosts: tuple[Host, ...],
    mbit: int,
) -> Floor:
    """Measure the sessions three times for their median, and the unpacking once on each host.

    Args:
        on: Runs a command on a host.
        clean: Empties /tmp on every host.
        source: Directory that is copied.
        launching: Name of the host that sends.
        hosts: Hosts that receive.
        mbit: Rate of the network in Mbit/s.
    """
    packed = source.parent / f"{source.name}.tar.zst"
    on(launching, ["sh", "-ec", f"tar -C {source} -cf - . | zstd -q -1 -f -o {packed}"])
    names = " ".join(host.name for host in hosts)
    start = f"for host in {names}; do ssh $host true & done; wait"
    sessions = statistics.median(on(launching, ["sh", "-ec", start]).seconds for _ in range(3))
    clean()
    command = f"mkdir /tmp/env; zstd -qdc {packed} | tar -C /tmp/env -xf -; times"
    unpack = [_processor_time(on(host.name, ["bash", "-ec", command]).out) for host in hosts]
    clean()
    wire = packed.stat().st_size / (mbit * RATE)
    packed.unlink()
    return Floor(sessions, wire, statistics.mean(unpack), min(unpack), len(hosts))


def _processor_time(output: str) -> float:
    """Return the sum of all times that `times` of bash printed, in seconds."""
    return sum(60 * int(minutes) + float(seconds) for minutes, seconds in TIMES.findall(output))
