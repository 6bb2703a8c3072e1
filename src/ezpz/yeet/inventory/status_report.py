"""Report of `ezpz yeet status`: the state of every destination on every node."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.errors import NodesFailed
from ezpz.yeet.inventory.source_changes import UNKNOWN_SOURCE, SourceState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ezpz.agent.common.messages.queries import ChangedPaths, CopyOnNode, LockHolder, StagingState
    from ezpz.agent.common.messages.receipt import Receipt
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.model.results import Failure

SCHEMA = "ezpz/yeet-status/2"


class CopyState(Enum):
    """State of a destination on one node."""

    CURRENT = "current"
    STALE = "stale"
    MODIFIED = "modified"
    PARTIAL = "partial"
    ABSENT = "absent"
    FOREIGN = "foreign"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Status of a destination on one node.

    Attributes:
        node: the node
        state: the state of the destination
        found: what the node reported about it, None for nothing
        why: an explanation of the state, "" if the state needs none
        failure: why the node did not answer, None if it did
    """

    node: Node
    state: CopyState
    found: CopyOnNode | None = None
    why: str = ""
    failure: Failure | None = None

    @property
    def receipt(self) -> Receipt | None:
        """Receipt of the copy, None if there is none."""
        return None if self.found is None else self.found.receipt

    @property
    def lock(self) -> LockHolder | None:
        """The run that holds the destination, None if no run does."""
        return None if self.found is None else self.found.lock

    @property
    def differences(self) -> ChangedPaths | None:
        """How the copy differs from its manifest, None if it does not or was not compared."""
        return None if self.found is None else self.found.differences

    @property
    def staging(self) -> Sequence[StagingState]:
        """Staging directories next to the destination."""
        return () if self.found is None else self.found.staging

    @property
    def is_modified(self) -> bool:
        """Whether the copy is not what was published, whatever else it is."""
        return self.found is not None and self.found.state == "modified"

    @property
    def version(self) -> str:
        """Version of the copy, "" if there is none."""
        return "" if self.receipt is None else self.receipt.version

    def to_dict(self, now: float) -> dict[str, Any]:
        """Return the status for JSON."""
        receipt, found = self.receipt, self.found
        return {
            "node": self.node.given,
            "state": self.state.value,
            "why": self.why,
            **receipt_fields(receipt),
            "kind": None if receipt is None else receipt.kind,
            "age": None if receipt is None else max(0, int(now - receipt.created)),
            "contents_compared": found is not None and found.contents,
            "differences": None if self.differences is None else self.differences.to_json(),
            "lock": None if self.lock is None else self.lock.to_json(),
            "staging": [
                {name: getattr(each, name) for name in ("path", "run", "files", "bytes", "age", "live")}
                for each in self.staging
            ],
            "failure": failure_document(self.failure),
        }


@dataclass(frozen=True, slots=True)
class Destination:
    """A destination on every node that was queried.

    Attributes:
        path: the destination
        statuses: its status on each node
        source: whether the source of its newest version changed
    """

    path: str
    statuses: tuple[NodeStatus, ...]
    source: SourceState = UNKNOWN_SOURCE

    @property
    def newest_receipt(self) -> Receipt | None:
        """Most recent receipt, None if there is none."""
        receipts = (each.receipt for each in self.statuses if each.receipt is not None)
        return max(receipts, key=lambda each: each.created, default=None)

    @property
    def held_locks(self) -> tuple[LockHolder, ...]:
        """Locks that runs hold on any node."""
        return tuple(each.lock for each in self.statuses if each.lock is not None)


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Status of the destination that was named, or of all that were found.

    Attributes:
        destinations: the destinations
        failures: the nodes that were queried, each with the reason why it did not answer, or None
        now: seconds since 1970
    """

    destinations: tuple[Destination, ...]
    failures: Mapping[Node, Failure | None]
    now: float

    @property
    def exit_code(self) -> int:
        """0 if there is a destination, and every copy is current on every node."""
        states = {each.state for destination in self.destinations for each in destination.statuses}
        return 0 if states == {CopyState.CURRENT} else NodesFailed.exit_code

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON; the schema is in docs/reference/json.md."""
        return {
            "schema": SCHEMA,
            "ezpz": __version__,
            "exit_code": self.exit_code,
            "nodes": [node.given for node in self.failures],
            "destinations": [
                {
                    "destination": each.path,
                    "source": {
                        "path": None if each.newest_receipt is None else each.newest_receipt.source,
                        "state": each.source.change.value,
                        "changed": each.source.path or None,
                    },
                    "nodes": [status.to_dict(self.now) for status in each.statuses],
                }
                for each in self.destinations
            ],
        }


def receipt_fields(receipt: Receipt | None) -> dict[str, Any]:
    """Return the fields of a receipt that reports have in JSON, all None without one."""
    names = ("version", "files", "bytes", "created", "source", "run")
    return {name: None if receipt is None else getattr(receipt, name) for name in names}


def failure_document(failure: Failure | None) -> dict[str, str] | None:
    """Return a failure for JSON."""
    return None if failure is None else {"code": failure.code, "message": failure.message, "hint": failure.hint}
