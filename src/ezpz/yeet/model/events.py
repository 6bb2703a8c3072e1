"""Events: what an engine or a strategy says while it works; the display turns them into a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.model.results import NodeResult


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The nodes are known; nothing has been done yet."""

    nodes: int


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase has begun; total is its bytes, 0 for unknown.

    name: "reach", "check", "compare", then "stream", or "read", "publish" and "send"; "count" and "pack"
    """

    name: str
    total: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """So many more bytes of content are in staging on this host."""

    bytes: int


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A copy to a node has begun, from the host named `via`."""

    node: Node
    via: str
    attempt: int


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """A node has received so many bytes in this attempt."""

    node: Node
    bytes: int


@dataclass(frozen=True, slots=True)
class NodeRetrying:
    """A copy to a node failed and will be tried again."""

    node: Node
    reason: str


@dataclass(frozen=True, slots=True)
class NodeConnected:
    """A node receives the stream from the host named `via`, `depth` hops from this one.

    adopted: somebody else served it before, or was to
    """

    node: Node
    via: str
    depth: int
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class NodeDeferred:
    """A node cannot keep up with the stream and is served at the end."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeReceived:
    """A node has received all of it, and what landed is right; it is tried out and published next."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeDone:
    """A node has it, or never will in this run."""

    result: NodeResult


@dataclass(frozen=True, slots=True)
class WarningRaised:
    """Something the user should know although the run goes on.

    case: its name in docs/explanation/relocation.md, "" for what is not about the source; count: how many things it is
    true of; paths: the first few of them
    """

    text: str
    case: str = ""
    count: int = 1
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DetailLogged:
    """Something that only who asks for details wants to know."""

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
