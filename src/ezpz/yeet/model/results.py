"""Results of one node: outcome, failure, timings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ezpz.cluster.allocation import Node
    from ezpz.errors import EzpzError


class Outcome(Enum):
    """How it ended for one node."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a node does not have it: a code of `ezpz.errors`, one line, the next step."""

    code: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, error: EzpzError) -> Failure:
        return cls(error.code, error.message, error.hint)

    @property
    def outcome(self) -> Outcome:
        if self.code == "timed-out":
            return Outcome.TIMED_OUT
        unreachable = ("ssh-refused", "host-key-unknown", "login-refused", "host-unknown", "node-lost")
        return Outcome.UNREACHABLE if self.code in unreachable else Outcome.FAILED


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What happened on one node.

    attempts: copies that were tried; via: the host it was copied from, "" for none
    sent_files, sent_bytes: content that had to move; removed: files that the new version no longer has
    replaced: the version that stood there, "" for none; unchanged: it already had this version
    seconds: from the start of the run to the end for this node
    """

    node: Node
    outcome: Outcome
    attempts: int = 0
    via: str = ""
    sent_files: int = 0
    sent_bytes: int = 0
    removed: int = 0
    replaced: str = ""
    unchanged: bool = False
    seconds: float = 0.0
    failure: Failure | None = None

    def to_dict(self) -> dict[str, Any]:
        failure = self.failure
        return {
            "node": self.node.given,
            "outcome": self.outcome.value,
            "attempts": self.attempts,
            "via": self.via,
            "sent_files": self.sent_files,
            "sent_bytes": self.sent_bytes,
            "removed": self.removed,
            "replaced": self.replaced,
            "unchanged": self.unchanged,
            "seconds": round(self.seconds, 3),
            "failure": None
            if failure is None
            else {"code": failure.code, "message": failure.message, "hint": failure.hint},
        }
