"""The shape of the tree at the start of a stream, from the node count and the rates alone. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_CHILDREN = 4


@dataclass(frozen=True, slots=True)
class NetworkModel:
    """Properties of the network and the nodes, measured or given.

    Attributes:
        rate: Bytes per second that one node can send.
        hop: Seconds between the arrival of a chunk and the moment it is forwarded.
        chunk: Bytes of one chunk on the wire.
        size: Bytes of the complete stream.
        start: Seconds to start one session.
        risk: Fraction of nodes that are expected to fail during a run.
        recovery: Seconds that one failure costs the nodes below it.
    """

    rate: float = 1e9
    hop: float = 0.002
    chunk: int = 1 << 20
    size: float = 8e9
    start: float = 0.3
    risk: float = 0.001
    recovery: float = 1.0


@dataclass(frozen=True, slots=True)
class TreeShape:
    """A planned tree.

    Attributes:
        width: Children of each node.
        seconds: Expected duration of the stream.
        reason: Description for the user.
    """

    width: int
    seconds: float
    reason: str


def choose_shape(count: int, rates: NetworkModel) -> TreeShape:
    """Return the width that serves `count` nodes soonest: every child costs its parent a full copy of its uplink."""
    best = min(range(1, MAX_CHILDREN + 1), key=lambda width: expected_seconds(count, width, rates))
    what = "a chain" if best == 1 else f"a tree, {best} children a node"
    seconds = expected_seconds(count, best, rates)
    return TreeShape(best, seconds, f"{what}, {depth(count, best)} deep, about {seconds:.1f} s for the stream alone")


def expected_seconds(count: int, width: int, rates: NetworkModel) -> float:
    """Return how long the stream takes: the copies that a node sends, and the way to the deepest node."""
    hops = depth(count, width)
    forwarding = rates.chunk / rates.rate + rates.hop + rates.risk * rates.recovery
    return min(width, max(1, count)) * rates.size / rates.rate + hops * forwarding


def depth(count: int, width: int) -> int:
    """Return the hops between the root and the farthest of `count` nodes."""
    if width == 1:
        return count
    return math.ceil(math.log(count * (width - 1) / width + 1, width) - 1e-9)


def parent_of(index: int, width: int) -> int:
    """Return the index of the parent of the node at `index`, -1 for the root: neighbors in the list stay neighbors."""
    return index // width - 1
