"""Engine: the port that every fan-out engine implements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar

from ezpz.agent.common import manifest
from ezpz.agent.common.messages.base import Message
from ezpz.agent.common.wire_paths import decode_path
from ezpz.cluster.allocation import Node
from ezpz.runtime.plugins import Registry

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from ezpz.remote.session import Question
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.model.events import Emit
    from ezpz.yeet.model.results import Failure


A = TypeVar("A", bound=Message)
Packed: TypeAlias = bytes


@dataclass(frozen=True, slots=True)
class Payload:
    """What an engine delivers.

    path: the tree on this host, "" when it was not kept; destination: where it goes on every node
    version, files, bytes: what it must be there
    receipt: what each node's receipt says besides; executable: it holds an environment
    trial: what its python must say on every node (see `agent.smoke`), None for what has none
    manifest: of it, packed
    refuse_changed: raises SourceChanged when `path` is the source itself and no longer what was read; blocking
    """

    path: str
    destination: str
    version: str
    files: int
    bytes: int
    receipt: dict[str, Any]
    executable: bool
    trial: dict[str, Any] | None = None
    manifest: Packed = b""
    refuse_changed: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """retries: attempts for a node after the first; timeout: seconds for one copy, 0 for none

    transport: the name of what starts agents on nodes; encrypt: nothing leaves a host but through ssh
    pythons: paths of pythons that a node may have if its system has none
    """

    retries: int
    timeout: float
    transport: str = "ssh"
    encrypt: bool = False
    pythons: tuple[str, ...] = ()


class RemoteFile(NamedTuple):
    """A file of a version in place: its path there, its time, its size in bytes."""

    path: bytes
    mtime_ns: int
    size: int


class RemoteFiles:
    """What some nodes all have in a version in place that is as its manifest says, but for `changed`: files by digest.

    Raises Unreadable, Malformed for a manifest that is damaged.
    """

    def __init__(self, entries: Iterable[manifest.ManifestEntry], changed: Iterable[bytes] = ()) -> None:
        gone = frozenset(changed)
        self.files: dict[str, RemoteFile] = {}
        for entry in entries:
            path = decode_path(entry.path)
            if entry.kind == "f" and path not in gone:
                self.files[entry.digest] = RemoteFile(path, entry.mtime_ns, entry.size)
        self.large = frozenset(held.size for held in self.files.values() if held.size > manifest.BLOCK)


class EntrySink(Protocol):
    """Takes the entries of a tree while they are read, from any thread, for an engine that sends them on at once.

    A folder comes before what is in it, and the first name of a file before any further one. What takes the place of
    something that was fed already comes after `barrier` and `remove`; of a folder the last word counts.

    needs_tree: whether `deliver` wants the whole tree on this host besides
    """

    needs_tree: bool

    def may_have(self, size: int) -> bool:
        """Whether the nodes may have a large file of this size already."""

    def has(self, size: int, digest: str) -> bool:
        """Whether the nodes have a file of this content already."""

    def keep(self, entry: Entry, size: int, digest: str) -> bool:
        """A file whose content they have; False, and nothing, if they have it not."""

    def folder(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """A folder; the top is b""."""

    def symlink(self, entry: Entry) -> None: ...

    def further(self, path: bytes, first: bytes) -> None:
        """A further name of a file or link."""

    def file(self, entry: Entry, data: bytes, digest: str) -> None:
        """A file that holds `data`; digest: see `agent.manifest`."""

    def piece(self, entry: Entry, size: int, offset: int, data: bytes) -> None:
        """Some of a file that has `size` bytes; none for its holes, but one at least."""

    def remove(self, path: bytes) -> None:
        """What was fed of a path counts no more; a folder must be empty by then."""

    def barrier(self) -> None: ...

    def end(self) -> None:
        """There is no more."""


@dataclass(frozen=True, slots=True)
class TransferSpec:
    """What is known of a shipment before it is read.

    source: its path, as receipts have it; size: bytes of content, about
    read: what a file of it holds at an offset, for so many bytes, at any time later. Raises OSError.
    bases: what nodes have of it already
    """

    source: str
    size: int
    read: Callable[[bytes, int, int], bytes]
    bases: Mapping[Node, RemoteFiles] = field(default_factory=dict)


class Engine(Protocol):
    """A way to get a tree from this host to every other node; silent: events and results only.

    Call `reach`, `check`, `begin`, `deliver` in this order, each with the nodes that are still wanted; `close` always,
    also after cancellation: it ends every process that was started here and on nodes, and removes staging.
    """

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    """Programs that must be on PATH here, besides the transport's."""
    transports: ClassVar[tuple[str, ...]]
    """What may start agents for it, as in `ezpz.cluster.transports`."""

    def __init__(self, limits: EngineOptions, emit: Emit, rng: random.Random) -> None: ...

    async def reach(self, nodes: tuple[Node, ...], destination: str = "") -> Mapping[Node, Failure]:
        """Connect to the nodes, and have them look at the destination, if one is given; the failures by node."""

    def seen(self) -> Mapping[Node, dict[str, Any]]:
        """Receipts of nodes that were found to have an untouched version; `check` is needed for those that get another.

        None at all is an answer too: what is not seen is asked for.
        """

    async def ask(self, nodes: tuple[Node, ...], request: Question[A]) -> Mapping[Node, A]:
        """Ask the agents of all these nodes at once; the answers of those that gave one."""

    async def check(self, nodes: tuple[Node, ...], request: dict[str, Any]) -> Mapping[Node, Failure]:
        """Check every node's destination and take its lock, before anything moves; the failures by node."""

    async def begin(self, nodes: tuple[Node, ...], start: TransferSpec) -> tuple[EntrySink, ...]:
        """Begin to send what is about to be read; none when this engine, or these nodes, wait for the whole of it."""

    async def deliver(self, nodes: tuple[Node, ...], shipment: Payload) -> None:
        """Copy, verify and publish; each node's result is emitted as NodeDone the moment it is known."""

    async def note_failed(self, node: Node, names: tuple[str, ...]) -> str:
        """Write the list of failed nodes on one node that has it; the path there."""

    async def close(self) -> None:
        """Let go of every node."""


ENGINES: Registry[type[Engine]] = Registry("ezpz.yeet.engines", "engine")


ROOT = Node("this host", address="", given="this host", is_local=True)
STALL = 10.0  # seconds without a byte after which a connection is given up
