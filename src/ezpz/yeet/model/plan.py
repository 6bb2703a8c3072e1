"""The plan of a run, decided before anything is done; `--dry-run` prints it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.cluster.hostnames import fold
from ezpz.errors import UsageError
from ezpz.remote.transports import AUTO, TRANSPORTS
from ezpz.yeet.model.source import Source, default_destination

if TYPE_CHECKING:
    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.remote.transports import Transport

UNQUOTABLE = '":\\\n'
DEFAULT_ENGINE = "stream"


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the user, None for those that were not given.

    Attributes:
        src: Source.
        dst: Destination.
        hostfile: File with the names of the nodes.
        hosts: Names of the nodes.
        hsn: Names to reach the nodes by: "auto", "off", or the suffix of the high-speed names.
        strategy: How to read the source.
        engine: How to reach the nodes.
        transport: "auto", or the name of a transport.
        encrypt: Whether everything leaves a host through ssh only.
        exclude: Patterns of entries to leave out.
        min_success_nodes: Number of nodes that must have the copy.
        min_success_fraction: Fraction of nodes that must have the copy.
        retries: Attempts for a node after the first.
        timeout: Seconds for one copy to one node, 0 for no limit.
        replace: Whether to replace a directory that was not created by ezpz.
        base: "auto", "embed", or "keep".
        editable: "snapshot", "keep", or "refuse".
        compile: "auto" or "never".
        orig_prefix: Path of the environment before it was packed into the archive.
        skip_unreadable: Whether to leave out what cannot be read.
        checksum: Whether to read the source again although sizes and times are equal.
        public: Whether the top of the copy gets the permissions of the source, instead of being closed to others.
    """

    src: str | None = None
    dst: str | None = None
    hostfile: str | None = None
    hosts: str | None = None
    hsn: str = "auto"
    strategy: str | None = None
    engine: str | None = None
    transport: str = "auto"
    encrypt: bool = False
    exclude: tuple[str, ...] = ()
    min_success_nodes: int | None = None
    min_success_fraction: float | None = None
    retries: int = 2
    timeout: float = 3600.0
    replace: bool = False
    base: str = "auto"
    editable: str = "snapshot"
    compile: str = "auto"
    orig_prefix: str | None = None
    skip_unreadable: bool = False
    checksum: bool = False
    public: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Size of a source.

    Attributes:
        files: Number of files, None for an archive, which is read only once.
        directories: Number of directories, None for an archive.
        bytes: Content, estimated for an archive.
        allocated: Bytes on disk.
        left_out: Number of entries that are left out.
    """

    files: int | None
    directories: int | None
    bytes: int
    allocated: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A name, and the reason for choosing it."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions about one run.

    Attributes:
        id: Identifier of the run and part of the names of its staging directories.
        request: Options of the user.
        source: What is copied.
        totals: Size of the source.
        destination: Path on every node.
        allocation: Nodes of the job.
        strategy: How the source is read.
        engine: How the copy reaches the nodes.
        transport: How agents are started.
        relocation: Description of the relocation.
        threshold: Number of nodes that must have the copy, None for all.
    """

    id: str
    request: Request
    source: Source
    totals: Totals
    destination: str
    allocation: Allocation
    strategy: Choice
    engine: Choice
    transport: Choice
    relocation: str
    threshold: int | None

    @property
    def in_place(self) -> bool:
        """Whether the source is at the destination of this host already."""
        return self.source.node_local and self.source.real == self.destination

    @property
    def remote_nodes(self) -> tuple[Node, ...]:
        return tuple(node for node in self.allocation.nodes if not node.is_local)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as it is in JSON; docs/reference/json.md has its schema."""
        nodes = self.allocation.nodes
        return {
            "id": self.id,
            "source": {
                "path": self.source.path,
                "kind": self.source.kind.value if self.source.kind else "archive",
                "node_local": self.source.node_local,
                "in_place": self.in_place,
                "files": self.totals.files,
                "directories": self.totals.directories,
                "bytes": self.totals.bytes,
                "left_out": self.totals.left_out,
            },
            "destination": self.destination,
            "allocation": {
                "scheduler": self.allocation.scheduler,
                "job_id": self.allocation.job_id,
                "nodes": [node.given for node in nodes],
                "folded": fold(tuple(node.name for node in nodes)),
                "addresses": {node.given: node.address for node in nodes},
                "local": self.allocation.local.given if self.allocation.local else None,
                "evidence": list(self.allocation.evidence),
                "warnings": list(self.allocation.warnings),
            },
            "strategy": {"name": self.strategy.name, "reason": self.strategy.reason},
            "engine": {"name": self.engine.name, "reason": self.engine.reason},
            "transport": {"name": self.transport.name, "reason": self.transport.reason},
            "encrypt": self.request.encrypt,
            "public": self.request.public,
            "relocation": self.relocation,
            "threshold": self.threshold,
            "retries": self.request.retries,
            "timeout": self.request.timeout,
            "exclude": list(self.request.exclude),
            "base": self.request.base,
            "editable": self.request.editable,
            "compile": self.request.compile,
        }


SSH = Choice("ssh", "default")


def make_plan(
    run: str,
    request: Request,
    source: Source,
    totals: Totals,
    allocation: Allocation,
    strategy: Choice,
    relocation: str = "",
    transport: Choice | None = None,
) -> Plan:
    """Return the plan. Pure: all arguments have been read from the disk and the environment before.

    Args:
        run: Identifier of the run.
        request: Options of the user.
        source: What is copied.
        totals: Size of the source.
        allocation: Nodes of the job.
        strategy: How the source is read.
        relocation: Description of the relocation.
        transport: How agents are started; ssh by default.

    Raises:
        UsageError: The options contradict each other or the allocation.
    """
    destination = destination_of(request, source)
    return Plan(
        run, request, source, totals, destination, allocation, strategy, engine_choice(request),
        transport or SSH, relocation, threshold(request, len(allocation.nodes)),
    )  # fmt: skip


def destination_of(request: Request, source: Source) -> str:
    """Return the destination. Raises UsageError if it is not absolute, or not usable for an environment."""
    wanted = default_destination(source) if request.dst is None else request.dst
    destination = wanted.rstrip("/") or ("/" if wanted else "")
    if not destination.startswith("/"):
        raise UsageError(
            f"--dst '{request.dst}' is not an absolute path",
            hint="it names a place on every node, as in --dst /tmp/NAME",
        )
    bad = [character for character in UNQUOTABLE if character in destination]
    if bad and (source.kind is None or source.kind.is_environment):
        raise UsageError(
            f"--dst {destination!r} has a {bad[0]!r}, which the scripts of an environment or PATH cannot hold",
            hint="choose a plainer name",
        )
    return destination


def transport_choice(
    request: Request, allocation: Allocation, supported: tuple[str, ...], usable: tuple[str, ...]
) -> Choice:
    """Return how agents are started, and the reason.

    Args:
        request: Options of the user.
        allocation: Nodes of the job.
        supported: Transports that the engine supports.
        usable: Transports that are usable from this host.

    Raises:
        UsageError: The requested transport cannot be used.
    """
    if request.transport != AUTO:
        return _requested(TRANSPORTS[request.transport], request, supported, usable)
    for name, each in TRANSPORTS.items():
        fits = name in supported and name in usable and (each.is_private or not request.encrypt)
        if fits and each.reason(allocation):
            return Choice(name, each.reason(allocation))
    return SSH


def _requested(wanted: Transport, request: Request, supported: tuple[str, ...], usable: tuple[str, ...]) -> Choice:
    """Return the transport that the user requests. Raises UsageError if it is not usable."""
    name = wanted.name
    if request.encrypt and not wanted.is_private:
        private = " or ".join(each.name for each in TRANSPORTS.values() if each.is_private)
        raise UsageError(f"--transport {name} excludes --encrypt, which needs {private}", hint="leave one of them out")
    if name not in supported:
        other = f"--engine {request.engine}, which needs {' or '.join(supported)}"
        raise UsageError(f"--transport {name} excludes {other}", hint="leave one of them out")
    if name not in usable:
        hint = f"run it in the job script, or with --transport {SSH.name}"
        raise UsageError(f"--transport {name} works inside {wanted.only_in} only", hint=hint)
    return Choice(name, "asked for")


def engine_choice(request: Request) -> Choice:
    """Return the engine, and the reason."""
    return Choice(request.engine, "asked for") if request.engine else Choice(DEFAULT_ENGINE, "default")


def threshold(request: Request, nodes: int) -> int | None:
    """Return how many of `nodes` must have the copy: N, ceil(F * nodes), or None for all.

    Raises:
        UsageError: That is more than there are.
    """
    if request.min_success_nodes is not None:
        if request.min_success_nodes > nodes:
            raise UsageError(
                f"--min-success-nodes {request.min_success_nodes} is more than the {nodes} nodes of the allocation"
            )
        return request.min_success_nodes
    if request.min_success_fraction is not None:
        return max(1, math.ceil(round(request.min_success_fraction * nodes, 9)))
    return None
