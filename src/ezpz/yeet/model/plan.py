"""Plan: everything that a yeet will do, decided before anything is done; `--dry-run` prints this very object."""

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
    """What the user asked for, exactly; None where they said nothing.

    transport: "auto", or the name of one; encrypt: nothing leaves a host but through ssh
    base: "auto", "embed" or "keep"; editable: "snapshot", "keep" or "refuse"; compile: "auto" or "never"
    orig_prefix: where the environment in an archive stood
    checksum: the source is read again whatever its sizes and times say
    public: the top of a copy has the permissions of the source's, instead of being closed to others
    retries: further attempts for a node after the first; timeout: seconds for one copy to one node, 0 for none
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
    """How much a source holds.

    files and directories are None for an archive, which is read only once; bytes is then an estimate.
    """

    files: int | None
    directories: int | None
    bytes: int
    allocated: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A name and the reason why it was chosen."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A decided yeet.

    id: names the run and its staging directories; in_place: the source already stands at the destination of this host
    threshold: how many nodes must have it, None for all of them
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
        return self.source.node_local and self.source.real == self.destination

    @property
    def remote_nodes(self) -> tuple[Node, ...]:
        return tuple(node for node in self.allocation.nodes if not node.is_local)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON can hold it; see docs/reference/json.md."""
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
    """Decide. Pure: `run` is the run's id, everything else has been looked at already. Raises UsageError.

    relocation: what it will do, in words
    """
    destination = destination_of(request, source)
    return Plan(
        run, request, source, totals, destination, allocation, strategy, engine_choice(request),
        transport or SSH, relocation, threshold(request, len(allocation.nodes)),
    )  # fmt: skip


def destination_of(request: Request, source: Source) -> str:
    """Where it goes on every node. Raises UsageError for what is not an absolute path."""
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
    request: Request, allocation: Allocation, able: tuple[str, ...], usable: tuple[str, ...]
) -> Choice:
    """How agents are started, and the reason. Raises UsageError.

    able: the transports that the engine can do with; usable: those that can be used from here
    """
    if request.transport != AUTO:
        return _asked_for(TRANSPORTS[request.transport], request, able, usable)
    for name, each in TRANSPORTS.items():
        fits = name in able and name in usable and (each.is_private or not request.encrypt)
        if fits and each.reason(allocation):
            return Choice(name, each.reason(allocation))
    return SSH


def _asked_for(wanted: Transport, request: Request, able: tuple[str, ...], usable: tuple[str, ...]) -> Choice:
    """The transport that the user wants. Raises UsageError if something else excludes it, or it cannot work here."""
    name = wanted.name
    if request.encrypt and not wanted.is_private:
        private = " or ".join(each.name for each in TRANSPORTS.values() if each.is_private)
        raise UsageError(f"--transport {name} excludes --encrypt, which needs {private}", hint="leave one of them out")
    if name not in able:
        other = f"--engine {request.engine}, which needs {' or '.join(able)}"
        raise UsageError(f"--transport {name} excludes {other}", hint="leave one of them out")
    if name not in usable:
        hint = f"run it in the job script, or with --transport {SSH.name}"
        raise UsageError(f"--transport {name} works inside {wanted.only_in} only", hint=hint)
    return Choice(name, "asked for")


def engine_choice(request: Request) -> Choice:
    """The engine, and the reason."""
    return Choice(request.engine, "asked for") if request.engine else Choice(DEFAULT_ENGINE, "default")


def threshold(request: Request, nodes: int) -> int | None:
    """How many of `nodes` must have it: N, ceil(F * nodes), or None for all.

    Raises UsageError when that is more than there are.
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


def new_run_id() -> str:
    """An id for a run: when, and something nobody else has."""
    import secrets
    import time

    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
