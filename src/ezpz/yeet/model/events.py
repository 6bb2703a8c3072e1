"""Events that engines and strategies emit while they work; displays and reports are made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.model.results import Failure, NodeResult


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The nodes are known. No step has been taken yet."""

    nodes: int


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase has started.

    Attributes:
        name: A key of `PHASES`.
        total: Bytes of the phase, 0 if unknown.
    """

    name: str
    total: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """Content was read; `bytes` more of it are in staging on this host."""

    bytes: int


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A copy to a node has started, from the host named `via`."""

    node: Node
    via: str
    attempt: int


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """A node has received `bytes` in this attempt."""

    node: Node
    bytes: int


@dataclass(frozen=True, slots=True)
class NodeRetrying:
    """A copy to a node failed and will be tried again."""

    node: Node
    failure: Failure


@dataclass(frozen=True, slots=True)
class NodeConnected:
    """A node receives the stream from the host named `via`, `depth` hops from this one.

    `reassigned`: another host served it before, or was expected to.
    """

    node: Node
    via: str
    depth: int
    reassigned: bool = False


@dataclass(frozen=True, slots=True)
class NodeDeferred:
    """A node cannot keep up with the stream and is served at the end."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeReceived:
    """A node has received and verified everything; the smoke test and publishing follow."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeDone:
    """A node has the copy, or will not get it in this run."""

    result: NodeResult


@dataclass(frozen=True, slots=True)
class WarningRaised:
    """A warning: the run continues.

    Attributes:
        text: The warning.
        case: Its name in docs/explanation/relocation.md, "" if it is not about the source.
        count: Number of paths that it is about.
        paths: The first few of them.
    """

    text: str
    case: str = ""
    count: int = 1
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DetailLogged:
    """A detail, which is printed with -v only."""

    text: str


Event: TypeAlias = (
    "RunStarted | PhaseStarted | Read | NodeStarted | NodeProgress | NodeRetrying | NodeConnected | NodeDeferred"
    " | NodeReceived | NodeDone | WarningRaised | DetailLogged"
)
Emit: TypeAlias = Callable[[Event], None]

PHASES = {
    "reach": "reaching the nodes, counting the source",
    "check": "checking every destination",
    "compare": "comparing with what is there",
    "read": "reading",
    "publish": "publishing here",
    "send": "sending",
    "stream": "reading and sending",
    "count": "counting the source",
    "pack": "packing",
}
"""Phases of a run, each with the text that is printed when it starts."""
