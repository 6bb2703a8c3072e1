"""Report of `ezpz yeet status`: the state of every destination on every node."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.errors import NodesFailed
from ezpz.yeet.inventory.source_changes import UNKNOWN_SOURCE, SourceState

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        answer: what the node reported about it, as `agent.destination.inventory.classify` does, {} for nothing
        why: an explanation of the state, "" if the state needs none
        failure: why the node did not answer, None if it did
    """

    node: Node
    state: CopyState
    answer: Mapping[str, Any]
    why: str = ""
    failure: Failure | None = None

    @property
    def receipt(self) -> dict[str, Any]:
        """Receipt of the copy, {} if there is none."""
        return self.answer.get("receipt") or {}

    @property
    def version(self) -> str:
        """Version of the copy, "" if there is none."""
        return str(self.receipt.get("version", ""))

    def to_dict(self, now: float) -> dict[str, Any]:
        """Return the status for JSON."""
        receipt = self.receipt
        names = ("version", "files", "bytes", "created", "source", "run", "kind")
        created = receipt.get("created")
        return {
            "node": self.node.given,
            "state": self.state.value,
            "why": self.why,
            **{name: receipt.get(name) for name in names},
            "age": None if created is None else max(0, int(now - created)),
            "contents_compared": bool(self.answer.get("contents")),
            "differences": self.answer.get("differences"),
            "lock": self.answer.get("lock"),
            "staging": [
                {name: each[name] for name in ("path", "run", "files", "bytes", "age", "live")}
                for each in self.answer.get("staging", ())
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
    def newest_receipt(self) -> Mapping[str, Any]:
        """Most recent receipt, {} if there is none."""
        return max((each.receipt for each in self.statuses), key=lambda each: each.get("created", -1), default={})

    @property
    def held_locks(self) -> tuple[Mapping[str, Any], ...]:
        """Locks that runs hold on any node."""
        return tuple(each.answer["lock"] for each in self.statuses if each.answer.get("lock"))


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
                        "path": each.newest_receipt.get("source"),
                        "state": each.source.change.value,
                        "changed": each.source.path or None,
                    },
                    "nodes": [status.to_dict(self.now) for status in each.statuses],
                }
                for each in self.destinations
            ],
        }


def failure_document(failure: Failure | None) -> dict[str, str] | None:
    """Return a failure for JSON."""
    return None if failure is None else {"code": failure.code, "message": failure.message, "hint": failure.hint}
