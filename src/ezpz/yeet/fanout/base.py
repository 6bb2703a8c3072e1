"""Engine: the port that every fan-out engine implements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ezpz.registry import Registry

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from ezpz.cluster.model import Node
    from ezpz.yeet.agent.tree import Survey
    from ezpz.yeet.entry import Entry
    from ezpz.yeet.events import Emit
    from ezpz.yeet.report import Failure


@dataclass(frozen=True, slots=True)
class Shipment:
    """What an engine delivers.

    path: the tree on this host, "" when it was not kept; destination: where it goes on every node
    version, files, bytes: what it must be there
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
    """retries: attempts for a node after the first; timeout: seconds for one copy, 0 for none

    transport: what starts agents on nodes, "ssh" or "srun"; encrypt: nothing leaves a host but through ssh
    pythons: paths of pythons that a node may have if its system has none
    """

    retries: int
    timeout: float
    transport: str = "ssh"
    encrypt: bool = False
    pythons: tuple[str, ...] = ()


class Feed(Protocol):
    """Takes the entries of a tree while they are read, from any thread, for an engine that sends them on at once.

    A folder comes before what is in it, and the first name of a file before any further one. What takes the place of
    something that was fed already comes after `barrier` and `remove`; of a folder the last word counts.

    needs_tree: whether `deliver` wants the whole tree on this host besides
    """

    needs_tree: bool

    def folder(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """A folder; the top is b""."""

    def symlink(self, entry: Entry) -> None: ...

    def further(self, path: bytes, first: bytes) -> None:
        """A further name of a file or link."""

    def file(self, entry: Entry, data: bytes) -> None:
        """A file that holds `data`."""

    def piece(self, entry: Entry, offset: int, data: bytes) -> None:
        """Some of a file that has `entry.size` bytes; none for its holes, but one at least."""

    def open_file(self, entry: Entry, fd: int) -> None:
        """A file as it is behind a descriptor, with its holes. Raises OSError."""

    def remove(self, path: bytes) -> None:
        """What was fed of a path counts no more; a folder must be empty by then."""

    def barrier(self) -> None: ...

    def end(self) -> None:
        """There is no more."""

    def survey(self) -> Survey:
        """What was fed, counted, with its version."""


@dataclass(frozen=True, slots=True)
class Start:
    """What is known of a shipment before it is read.

    source: its path, as receipts have it; size: bytes of content, about
    read: what a file of it holds at an offset, for so many bytes, at any time later. Raises OSError.
    """

    source: str
    size: int
    read: Callable[[bytes, int, int], bytes]


class Engine(Protocol):
    """A way to get a tree from this host to every other node; silent: events and results only.

    Call `reach`, `check`, `begin`, `deliver` in this order, each with the nodes that are still wanted; `close` always,
    also after cancellation: it ends every process that was started here and on nodes, and removes staging.
    """

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    """Programs that must be on PATH here, besides the transport's."""
    transports: ClassVar[tuple[str, ...]]
    """What may start agents for it: "ssh", "srun"."""

    def __init__(self, limits: Limits, emit: Emit, rng: random.Random) -> None: ...

    async def reach(self, nodes: tuple[Node, ...]) -> Mapping[Node, Failure]:
        """Connect to the nodes; the failures by node."""

    async def ask(self, nodes: tuple[Node, ...], op: str, **request: Any) -> Mapping[Node, dict[str, Any]]:
        """Ask the agents of all these nodes at once; the answers of those that gave one."""

    async def check(self, nodes: tuple[Node, ...], request: dict[str, Any]) -> Mapping[Node, Failure]:
        """Check every node's destination and take its lock, before anything moves; the failures by node."""

    async def begin(self, nodes: tuple[Node, ...], start: Start) -> Feed | None:
        """Begin to send what is about to be read; None when this engine, or these nodes, wait for the whole of it."""

    async def deliver(self, nodes: tuple[Node, ...], shipment: Shipment) -> None:
        """Copy, verify and publish; each node's result is emitted as NodeDone the moment it is known."""

    async def note_failed(self, node: Node, names: tuple[str, ...]) -> str:
        """Write the list of failed nodes on one node that has it; the path there."""

    async def close(self) -> None:
        """Let go of every node."""


ENGINES: Registry[type[Engine]] = Registry("ezpz.yeet.engines", "engine")
