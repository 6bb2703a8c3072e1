"""stream: chunks go down a tree of agents while the source is still being read; every node passes them on at once."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, ClassVar

from ezpz.child import all_of
from ezpz.cluster.remote import ssh_forward_argv
from ezpz.yeet.fanout.agents import ANSWER_WITHIN, Agents, rate_of
from ezpz.yeet.fanout.rsync import RsyncTree
from ezpz.yeet.fanout.stream.conductor import STALL, Conductor

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from ezpz.cluster.model import Node
    from ezpz.errors import EzpzError
    from ezpz.yeet.events import Emit
    from ezpz.yeet.fanout.base import Feed, Limits, Shipment, Start
    from ezpz.yeet.report import Failure


class Stream(Agents):
    """The engine that needs nothing on a node but python3 (3.6 or newer)."""

    name: ClassVar[str] = "stream"
    tools: ClassVar[tuple[str, ...]] = ("ssh",)

    def __init__(self, limits: Limits, emit: Emit, rng: random.Random) -> None:
        super().__init__(limits, emit, rng)
        self.secret = secrets.token_bytes(32)
        self.listening: dict[Node, dict[str, Any]] = {}
        self.stream: Conductor | None = None
        self.rate = 0.0

    async def check(self, nodes: tuple[Node, ...], request: dict[str, Any]) -> Mapping[Node, Failure]:
        self.request = request
        weighing = asyncio.ensure_future(self._weigh(nodes))
        try:
            return await self.on_each(nodes, self.enlist)
        finally:
            self.rate = await weighing

    async def _weigh(self, nodes: tuple[Node, ...]) -> float:
        """Bytes a second that the network carries, meanwhile, from one node."""
        return await rate_of(self.sessions[nodes[-1]]) if nodes else 0.0

    async def enlist(self, node: Node) -> None:
        """Have a node check its destination and listen. Raises EzpzError."""
        await self.prepare(node)
        session = self.sessions[node]
        session.happened = lambda event: self._happened(node, event)
        session.gone = lambda error: self._gone(node, error)
        if node not in self.listening:
            self.listening[node] = await session.ask(
                "listen", name=node.given, address=node.address, secret=self.secret.hex(), stall=STALL,
                private=self.limits.encrypt, timeout=ANSWER_WITHIN,
            )  # fmt: skip

    async def begin(self, nodes: tuple[Node, ...], start: Start) -> Feed | None:
        known = tuple(node for node in nodes if _stands(self.prepared[node], start.source))
        fresh = tuple(node for node in nodes if node not in known)
        if not fresh:
            return None
        self.stream = stream = Conductor(self, fresh, start, needs_tree=bool(known))
        await stream.begin()
        return stream.feed

    async def deliver(self, nodes: tuple[Node, ...], shipment: Shipment) -> None:
        streamed = self.stream.nodes if self.stream is not None else ()
        rest = tuple(node for node in nodes if node not in streamed)
        acts = []
        if self.stream is not None:
            acts.append(self.stream.finish(shipment))
        if rest:
            acts.append(self._update(rest, shipment))
        await all_of(acts)

    async def _update(self, nodes: tuple[Node, ...], shipment: Shipment) -> None:
        """Bring nodes up to date that have a version of the same source: rsync sends only what changed."""
        rsync = RsyncTree(self.limits, self.emit, self.rng)
        rsync.began, rsync.request = self.began, dict(self.request, tools=[])
        rsync.sessions, rsync.prepared = self.sessions, self.prepared
        await rsync.deliver(nodes, shipment)

    async def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
        await super().close()

    def way_to(self, node: Node) -> dict[str, Any]:
        """How another host connects to a node: where it listens, and the detour through ssh."""
        where = self.listening[node]
        detour = None
        if self.limits.transport == "ssh":
            detour = list(ssh_forward_argv(self.sessions[node].address, where["address"], where["port"]))
        return {**where, "name": node.given, "detour": detour, "direct": not self.limits.encrypt}

    def _happened(self, node: Node, event: dict[str, Any]) -> None:
        if self.stream is not None and "stream" in event:
            self.stream.heard(node, event)

    def _gone(self, node: Node, error: EzpzError) -> None:
        if self.stream is not None:
            self.stream.lost(node, error)


def _stands(prepared: dict[str, Any], source: str) -> bool:
    """Whether a node has a version of this source already."""
    return bool((prepared.get("receipt") or {}).get("source") == source)
