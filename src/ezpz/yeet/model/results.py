"""The result of a run for one node: outcome, failure, timings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ezpz.errors import by_code, with_node

if TYPE_CHECKING:
    from ezpz.cluster.allocation import Node
    from ezpz.errors import EzpzError


class Outcome(Enum):
    """Outcome of a run for one node."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a node does not have the copy.

    Attributes:
        code: A code of `ezpz.errors`.
        text: What happened, in one line.
        hint: The next step, or "".
        node: The node on which it happened, or "" if the text is not about one.
    """

    code: str
    text: str
    hint: str = ""
    node: str = ""

    @classmethod
    def of(cls, error: EzpzError) -> Failure:
        return cls(error.code, error.text, error.hint, error.node)

    @property
    def message(self) -> str:
        """The text, with the name of the node if there is one."""
        return with_node(self.node, self.text)

    def text_next_to(self, name: str) -> str:
        """Return the text to print where the name of a node is printed already."""
        return self.text if self.node == name else self.message

    def to_error(self) -> EzpzError:
        """Return the failure as an exception."""
        return by_code(self.code)(self.text, hint=self.hint, node=self.node)

    def to_dict(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "hint": self.hint}

    @property
    def outcome(self) -> Outcome:
        """The outcome for the node."""
        if self.code == "timed-out":
            return Outcome.TIMED_OUT
        unreachable = ("ssh-refused", "host-key-unknown", "login-refused", "host-unknown", "node-lost")
        return Outcome.UNREACHABLE if self.code in unreachable else Outcome.FAILED


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What happened on one node.

    Attributes:
        node: The node.
        outcome: How it ended.
        attempts: Copies that were tried.
        via: Name of the host that it was copied from, "" for none.
        sent_files: Files whose content had to be sent.
        sent_bytes: Bytes of this content.
        removed: Files that the new version no longer has.
        replaced: The version that was replaced, "" for none.
        unchanged: Whether the node had this version already.
        seconds: From the start of the run to the end for this node.
        failure: Why it failed, None if it has the copy or was not tried.
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
            "failure": None if self.failure is None else self.failure.to_dict(),
        }
