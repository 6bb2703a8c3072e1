"""Engine: the port that every fan-out engine implements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ezpz.registry import Registry

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from ezpz.cluster.model import Node
    from ezpz.yeet.events import Emit
    from ezpz.yeet.report import Failure


@dataclass(frozen=True, slots=True)
class Shipment:
    """What an engine delivers.

    path: the tree on this host; destination: where it goes on every node; version, files, bytes: what it must be there
    receipt: what each node's receipt says besides; executable: it holds an environment
    trial: what its python must say on every node (see `agent.smoke`), None for what has none
    """

    path: str
    destination: str
    version: str
    files: int
    bytes: int
    receipt: dict[str, Any]
    executable: bool
    trial: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """retries: attempts for a node after the first; timeout: seconds for one copy, 0 for none."""

    retries: int
    timeout: float


class Engine(Protocol):
    """A way to get a tree from this host to every other node; silent: events and results only.

    Call `reach`, `check`, `deliver` in this order, each with the nodes that are still wanted; `close` always, also
    after cancellation: it ends every process that was started here and on nodes, and removes staging.
    """

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    """Programs that must be on PATH here."""

    def __init__(self, limits: Limits, emit: Emit, rng: random.Random) -> None: ...

    async def reach(self, nodes: tuple[Node, ...]) -> Mapping[Node, Failure]:
        """Connect to the nodes; the failures by node."""

    async def ask(self, nodes: tuple[Node, ...], op: str, **request: Any) -> Mapping[Node, dict[str, Any]]:
        """Ask the agents of all these nodes at once; the answers of those that gave one."""

    async def check(self, nodes: tuple[Node, ...], request: dict[str, Any]) -> Mapping[Node, Failure]:
        """Check every node's destination and take its lock, before anything moves; the failures by node."""

    async def deliver(self, nodes: tuple[Node, ...], shipment: Shipment) -> None:
        """Copy, verify and publish; each node's result is emitted as NodeDone the moment it is known."""

    async def note_failed(self, node: Node, names: tuple[str, ...]) -> str:
        """Write the list of failed nodes on one node that has it; the path there."""

    async def close(self) -> None:
        """Let go of every node."""


ENGINES: Registry[type[Engine]] = Registry("ezpz.yeet.engines", "engine")
