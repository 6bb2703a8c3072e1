"""How many rsync copies one source serves at once, and whether they are compressed, by the bandwidth.

On a wire that one copy fills, more copies at once only finish later together, and no node can forward anything
meanwhile. Compression helps there because fewer bytes are sent. On a wire that a single ssh cannot fill, the opposite
is true.

Measured with 113 MB to 16 hosts at 100 Mbit/s: 8 at a time 147 s, 2 at a time 60 s, 2 at a time with zstd 25 s;
without a limit on the wire: 8 at a time 9.6 s, 2 at a time 12.4 s.
"""

from __future__ import annotations

from dataclasses import dataclass

from ezpz.agent.common.text import format_bytes
from ezpz.yeet.engines.copy_tree import MAX_PER_SOURCE

PROBE_BYTES = 1 << 20  # sent to measure the bandwidth
SLOW_WIRE = 120e6  # bytes per second: gigabit Ethernet, and less than a single ssh with rsync behind it can do
FEW_PER_SOURCE = 2  # more than one, so that a copy that hangs does not block all other nodes
ZSTD = ("--compress", "--compress-choice=zstd", "--compress-level=1")  # rsync 3.2 and later


@dataclass(frozen=True, slots=True)
class Pace:
    """Limits of the copies.

    Attributes:
        per_source: Copies that one source serves at once.
        options: Options of rsync.
        reason: Description for the user.
    """

    per_source: int
    options: tuple[str, ...]
    reason: str


def choose_pace(rate: float, *, zstd: bool) -> Pace:
    """Return the pace for a network.

    Args:
        rate: Bytes per second that one session carries.
        zstd: Whether every rsync can compress with zstd.
    """
    if rate >= SLOW_WIRE:
        return Pace(
            MAX_PER_SOURCE, (), f"the network carries {format_bytes(rate)}/s: {MAX_PER_SOURCE} copies a source at once"
        )
    how = "compressed by zstd" if zstd else "not compressed, since not every rsync knows zstd"
    reason = f"the network carries {format_bytes(rate)}/s: {FEW_PER_SOURCE} copies a source at once, {how}"
    return Pace(FEW_PER_SOURCE, ZSTD if zstd else (), reason)
