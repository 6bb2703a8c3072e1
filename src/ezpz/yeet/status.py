"""Status: what stands at a destination on every node, as its receipt tells."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.child import all_of
from ezpz.errors import EzpzError, NodesFailed
from ezpz.yeet.agent.landing import look
from ezpz.yeet.fanout.machine import handshakes, raise_open_files
from ezpz.yeet.report import Failure
from ezpz.yeet.session import Session

if TYPE_CHECKING:
    from ezpz.cluster.model import Allocation, Node

SCHEMA = "ezpz/yeet-status/1"
ANSWER_WITHIN = 30.0  # seconds for an agent to look at its disk


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands on one node: state is "present", "foreign" (no receipt of ours), "absent" or "unreachable"."""

    node: Node
    state: str
    receipt: dict[str, Any] | None = None
    failure: Failure | None = None

    def to_dict(self) -> dict[str, Any]:
        receipt = self.receipt or {}
        failure = self.failure
        return {
            "node": self.node.given,
            "state": self.state,
            **{name: receipt.get(name) for name in ("version", "files", "bytes", "created", "source", "run", "kind")},
            "failure": None
            if failure is None
            else {"code": failure.code, "message": failure.message, "hint": failure.hint},
        }


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What stands at `destination` on every node of the allocation."""

    destination: str
    standings: tuple[Standing, ...]

    @property
    def exit_code(self) -> int:
        """0 only if every node has one and the same version."""
        versions = {(standing.receipt or {}).get("version") for standing in self.standings}
        return 0 if len(versions) == 1 and None not in versions else NodesFailed.exit_code

    def to_dict(self) -> dict[str, Any]:
        """The status as JSON; schema in docs/reference/json.md."""
        nodes = [standing.to_dict() for standing in self.standings]
        return {
            "schema": SCHEMA,
            "ezpz": __version__,
            "destination": self.destination,
            "exit_code": self.exit_code,
            "nodes": nodes,
        }


def ask_all(allocation: Allocation, destination: str) -> StatusReport:
    """Ask every node at once what stands at `destination`. A node that cannot be reached is an answer, not an error."""
    return StatusReport(destination, asyncio.run(_ask_all(allocation.nodes, destination)))


async def _ask_all(nodes: tuple[Node, ...], destination: str) -> tuple[Standing, ...]:
    raise_open_files(len(nodes))
    gate = handshakes()
    return tuple(await all_of(_ask(node, destination, gate) for node in nodes))


async def _ask(node: Node, destination: str, gate: asyncio.Semaphore) -> Standing:
    if node.is_local:
        return _standing(node, look(destination.encode(errors="surrogateescape")))
    try:
        async with gate:
            session = await Session.open(node)
        try:
            answer = await session.ask("look", dst=destination, timeout=ANSWER_WITHIN)
        finally:
            await session.close()
    except EzpzError as e:
        return Standing(node, "unreachable", failure=Failure.of(e))
    return _standing(node, answer["standing"])


def _standing(node: Node, found: dict[str, Any] | None) -> Standing:
    if found is None:
        return Standing(node, "absent")
    return Standing(node, "foreign" if found["receipt"] is None else "present", found["receipt"])
