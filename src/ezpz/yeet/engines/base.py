"""The interface that every engine implements, and the data that it gets."""

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

    from ezpz.agent.common.messages.receipt import Receipt
    from ezpz.remote.session import Question
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.model.events import Emit
    from ezpz.yeet.model.results import Failure


A = TypeVar("A", bound=Message)
Packed: TypeAlias = bytes


@dataclass(frozen=True, slots=True)
class Payload:
    """What an engine delivers.

    Attributes:
        path: The tree on this host, "" if it was not kept.
        destination: Path on every node.
        version: Version that each copy must have.
        files: Number of files that each copy must have.
        bytes: Content that each copy must have.
        receipt: The receipt of each copy, without what each node adds.
        executable: Whether it is an environment, so that its filesystem must allow execution.
        smoke_test: What its python must print on every node (see `agent.destination.smoke_test`), None without one.
        manifest: Its manifest, packed.
        check_source: Raises SourceChanged if `path` is the source itself and has changed since; it blocks.
    """

    path: str
    destination: str
    version: str
    files: int
    bytes: int
    receipt: Receipt
    executable: bool
    smoke_test: dict[str, Any] | None = None
    manifest: Packed = b""
    check_source: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of a run that concern its engine.

    Attributes:
        retries: Attempts for a node after the first.
        timeout: Seconds for one copy, 0 for no limit.
        transport: Name of the transport that starts agents on nodes.
        encrypt: Whether everything leaves a host through ssh only.
        pythons: Paths of pythons that a node may have if its system has none.
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
    """Takes the entries of a tree while they are read, from any thread, for an engine that sends them at once.

    A directory comes before its contents, and a file before its hard links. A replacement of an entry that was passed
    before comes after `barrier` and `remove`. The last call for a directory counts.
    """

    def may_have(self, size: int) -> bool:
        """Return whether the nodes may already have a large file of this size."""

    def has(self, size: int, digest: str) -> bool:
        """Return whether the nodes already have a file with this content."""

    def keep(self, entry: Entry, size: int, digest: str) -> bool:
        """Tell the nodes to reuse a file they already have. Return False, sending nothing, if they do not have it."""

    def directory(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """Take a directory. The path of the top is b""."""

    def symlink(self, entry: Entry) -> None:
        """Take a symbolic link."""

    def hard_link(self, path: bytes, first: bytes) -> None:
        """Take a hard link to the file or symbolic link `first`."""

    def file(self, entry: Entry, data: bytes, digest: str) -> None:
        """Take a file with its content and digest; see `ezpz.agent.common.manifest`."""

    def piece(self, entry: Entry, size: int, offset: int, data: bytes) -> None:
        """Take a piece of a file of `size` bytes. Holes are not passed, but every file has at least one piece."""

    def remove(self, path: bytes) -> None:
        """Forget an entry that was passed. A directory must be empty by then."""

    def barrier(self) -> None:
        """Write what was passed so far before anything that follows."""

    def end(self) -> None:
        """Take no more entries."""


@dataclass(frozen=True, slots=True)
class TransferSpec:
    """What is known of a source before it is read.

    Attributes:
        source: Its path, as receipts have it.
        size: Approximate bytes of content.
        read: Returns the content of a file from an offset, up to a number of bytes, at any later time. Raises OSError.
        bases: Files of it that nodes have already.
    """

    source: str
    size: int
    read: Callable[[bytes, int, int], bytes]
    bases: Mapping[Node, RemoteFiles] = field(default_factory=dict)


class Engine(Protocol):
    """A way to copy a tree from this host to every other node. It prints nothing: it emits events and returns results.

    Call `reach`, `check`, `begin`, `deliver` in this order, each with the nodes that are still wanted. Call `close`
    always, also after cancellation: it ends every process that was started here and on nodes, and removes staging.
    """

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    """Programs that must be on PATH on this host, in addition to those of the transport."""
    transports: ClassVar[tuple[str, ...]]
    """Names of the transports that can start its agents, as in `ezpz.cluster.transports`."""

    def __init__(self, options: EngineOptions, emit: Emit, rng: random.Random) -> None: ...

    async def reach(self, nodes: tuple[Node, ...], destination: str = "") -> Mapping[Node, Failure]:
        """Connect to the nodes, and read the receipt of the destination, if one is given; return the failures."""

    def seen(self) -> Mapping[Node, Receipt]:
        """Return the receipts of nodes that are known to have an unmodified version.

        `check` is needed for those of them that get another version. The result may be empty: nodes that are not in it
        are asked.
        """

    async def ask(self, nodes: tuple[Node, ...], request: Question[A]) -> Mapping[Node, A]:
        """Ask the agents of all these nodes at once and return the answers; nodes that fail have none."""

    async def check(self, nodes: tuple[Node, ...], request: dict[str, Any]) -> Mapping[Node, Failure]:
        """Check every node's destination and take its lock before anything is sent; return the failures."""

    async def begin(self, nodes: tuple[Node, ...], start: TransferSpec) -> tuple[EntrySink, ...]:
        """Return sinks for the source that is about to be read; none if the nodes need the complete tree."""

    async def deliver(self, nodes: tuple[Node, ...], payload: Payload) -> None:
        """Copy, verify, and publish; emit each node's result as NodeDone as soon as it is known."""

    async def note_failed(self, node: Node, names: tuple[str, ...]) -> str:
        """Write the list of failed nodes on one node that has the copy, and return its path there."""

    async def close(self) -> None:
        """End the sessions to all nodes."""


ENGINES: Registry[type[Engine]] = Registry("ezpz.yeet.engines", "engine")


ROOT = Node("this host", address="", given="this host", is_local=True)
"""This host as the first source, whether or not it is a node of the job."""
STALL_TIMEOUT = 10.0  # seconds without a byte after which a connection is closed
