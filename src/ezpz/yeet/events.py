"""Events: what an engine or a strategy says while it works; the display turns them into a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from ezpz.cluster.model import Node
    from ezpz.yeet.report import NodeResult


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
class NodeMoved:
    """A node has received so many bytes in this attempt."""

    node: Node
    bytes: int


@dataclass(frozen=True, slots=True)
class NodeRetrying:
    """A copy to a node failed and will be tried again."""

    node: Node
    reason: str


@dataclass(frozen=True, slots=True)
class NodeServed:
    """A node receives the stream from the host named `via`, `depth` hops from this one.

    adopted: somebody else served it before, or was to
    """

    node: Node
    via: str
    depth: int
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class NodeParked:
    """A node cannot keep up with the stream and is served at the end."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeWhole:
    """A node has received all of it, and what landed is right; it is tried out and published next."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeDone:
    """A node has it, or never will in this run."""

    result: NodeResult


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know although the run goes on.

    case: its name in docs/explanation/relocation.md, "" for what is not about the source; count: how many things it is
    true of; paths: the first few of them
    """

    text: str
    case: str = ""
    count: int = 1
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that only who asks for details wants to know."""

    text: str


Event: TypeAlias = (
    "RunStarted | PhaseStarted | Read | NodeStarted | NodeMoved | NodeRetrying | NodeServed | NodeParked | NodeWhole"
    " | NodeDone | Warned | Noted"
)
Emit: TypeAlias = Callable[[Event], None]
