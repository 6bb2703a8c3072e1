"""Report of `ezpz yeet clean`: what was selected for removal, and what happened to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.errors import DestinationBusy, NodesFailed, UsageError, by_code
from ezpz.yeet.inventory.status_report import failure_document, receipt_fields
from ezpz.yeet.model.results import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.messages.queries import StagingState
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.inventory.status_report import Destination, NodeStatus

SCHEMA = "ezpz/yeet-clean/1"


@dataclass(frozen=True, slots=True)
class Removal:
    """Removal at one destination on one node.

    Attributes:
        status: the destination on the node
        version: whether its version is removed
        staging: the staging directories of dead runs that are removed
        freed: bytes, None before the removal
        removed: the paths that are gone
        failure: why it failed, or why it is not allowed
    """

    status: NodeStatus
    version: bool
    staging: tuple[StagingState, ...]
    freed: int | None = None
    removed: tuple[str, ...] = ()
    failure: Failure | None = None

    @property
    def node(self) -> Node:
        """Node of the removal."""
        return self.status.node

    @property
    def freeable(self) -> int:
        """Bytes of disk that it is expected to free."""
        own = self.status.found.disk if self.version and self.status.found is not None else 0
        return own + sum(each.disk for each in self.staging)

    def to_dict(self) -> dict[str, Any]:
        """Return the removal for JSON."""
        return {
            "node": self.node.given,
            **receipt_fields(self.status.receipt if self.version else None),
            "modified": self.version and self.status.is_modified,
            "staging": [each.path for each in self.staging],
            "frees": self.freeable,
            "freed": self.freed,
            "removed": list(self.removed),
            "failure": failure_document(self.failure),
        }


@dataclass(frozen=True, slots=True)
class CleanSelection:
    """Selection of what is removed from one destination.

    Attributes:
        destination: the destination
        removals: what is removed
        kept: the nodes that keep their version
        unowned: the nodes where ezpz is not proven to have created what is at the destination
        busy: why nothing is removed, "" if no run holds the destination
        refused: what would be removed but must not be, each with its failure
    """

    destination: Destination
    removals: tuple[Removal, ...]
    kept: tuple[NodeStatus, ...]
    unowned: tuple[NodeStatus, ...]
    busy: str = ""
    refused: tuple[Removal, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the selection for JSON."""
        return {
            "destination": self.destination.path,
            "busy": self.busy or None,
            "kept": [status.node.given for status in self.kept],
            "foreign": [status.node.given for status in self.unowned],
            "removals": [removal.to_dict() for removal in (*self.removals, *self.refused)],
        }


@dataclass(frozen=True, slots=True)
class CleanReport:
    """Everything that is removed, or would be.

    Attributes:
        selections: one for each destination
        nodes: the nodes that were queried, each with the reason why it did not answer, or None
        is_named: whether the user named the destination
        confirmed: whether the user agreed to the removal
        dry_run: whether the user asked for a preview only
    """

    selections: tuple[CleanSelection, ...]
    nodes: Mapping[Node, Failure | None]
    is_named: bool
    confirmed: bool = False
    dry_run: bool = False

    @property
    def removals(self) -> tuple[Removal, ...]:
        """Removals at all destinations."""
        return tuple(removal for each in self.selections for removal in each.removals)

    @property
    def freeable(self) -> int:
        """Bytes of disk that the removals are expected to free."""
        return sum(removal.freeable for removal in self.removals)

    @property
    def freed(self) -> int:
        """Bytes of disk that were freed."""
        return sum(removal.freed or 0 for removal in self.removals)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """All reasons why something was not removed."""
        refused = [removal for each in self.selections for removal in each.refused]
        found = [failure for failure in self.nodes.values() if failure is not None]
        found += [each.failure for each in (*self.removals, *refused) if each.failure is not None]
        found += [Failure(DestinationBusy.code, each.busy) for each in self.selections if each.busy]
        if self.is_named:
            unowned = (status for each in self.selections for status in each.unowned)
            found += [Failure("destination-not-ours", status.why) for status in unowned]
        return tuple(found)

    @property
    def exit_code(self) -> int:
        """0 if everything selected is removed, 2 if the user did not agree, and 1 or that of the cause if it failed."""
        if self.removals and not self.confirmed and not self.dry_run:
            return UsageError.exit_code
        codes = {failure.code for failure in self.failures}
        if codes:
            return by_code(codes.pop()).exit_code if len(codes) == 1 else NodesFailed.exit_code
        return 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON; the schema is in docs/reference/json.md."""
        return {
            "schema": SCHEMA,
            "ezpz": __version__,
            "exit_code": self.exit_code,
            "done": self.confirmed,
            "frees": self.freeable,
            "freed": self.freed,
            "nodes": [
                {"node": node.given, "failure": failure_document(failure)} for node, failure in self.nodes.items()
            ],
            "destinations": [each.to_dict() for each in self.selections],
        }
