"""Shape: who passes the stream on to whom at the start, from the node count and the rates alone. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST_CHILDREN = 4


@dataclass(frozen=True, slots=True)
class NetworkModel:
    """What the network and the nodes are like, measured or given.

    rate: bytes a second that one node can send; hop: seconds from a chunk's arrival to its being passed on
    chunk: bytes of one chunk on the wire; size: bytes of the whole stream; start: seconds to start one session
    risk: the share of nodes that are expected to fail during a run; recovery: seconds that one failure costs its branch
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
    """width: children of each node; seconds: how long the stream is expected to take; reason: for the user."""

    width: int
    seconds: float
    reason: str


def choose_shape(count: int, rates: NetworkModel) -> TreeShape:
    """The width with which `count` nodes are served soonest: every child costs its parent a full copy of its uplink."""
    best = min(range(1, MOST_CHILDREN + 1), key=lambda width: expected_seconds(count, width, rates))
    what = "a chain" if best == 1 else f"a tree, {best} children a node"
    seconds = expected_seconds(count, best, rates)
    return TreeShape(best, seconds, f"{what}, {depth(count, best)} deep, about {seconds:.1f} s for the stream alone")


def expected_seconds(count: int, width: int, rates: NetworkModel) -> float:
    """How long the stream takes through a tree: the copies that a node sends, and the way to the deepest node."""
    hops = depth(count, width)
    passing = rates.chunk / rates.rate + rates.hop + rates.risk * rates.recovery
    return min(width, max(1, count)) * rates.size / rates.rate + hops * passing


def depth(count: int, width: int) -> int:
    """How many hops the farthest of `count` nodes is from the root."""
    if width == 1:
        return count
    return math.ceil(math.log(count * (width - 1) / width + 1, width) - 1e-9)


def parent_of(index: int, width: int) -> int:
    """The index of the node that serves the one at `index`, -1 for the root: neighbours in the list stay neighbours."""
    return index // width - 1
