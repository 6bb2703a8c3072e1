"""stream: chunks go down a tree of agents while the source is still being read; every node passes them on at once."""

from __future__ import annotations

import secrets
from collections import defaultdict
from typing import TYPE_CHECKING, Any, ClassVar

from ezpz.agent.common.messages.events import Event, StreamEvent
from ezpz.agent.common.messages.parts import PeerAddress
from ezpz.agent.common.messages.requests import ListeningRequest
from ezpz.errors import EzpzError, ToolMissing, by_code
from ezpz.remote.limits import raise_open_files
from ezpz.remote.startup import FAN, AgentStarter, ListenRequest
from ezpz.remote.transports import AGENT_TRANSPORTS
from ezpz.runtime.async_process import gather_or_cancel
from ezpz.yeet.engines.agent_engine import ANSWER_WITHIN, AgentEngine, measure_bandwidth
from ezpz.yeet.engines.base import ROOT, STALL, RemoteFiles
from ezpz.yeet.engines.rsync import RsyncTree
from ezpz.yeet.engines.stream.controller import StreamController
from ezpz.yeet.model.events import NodeDone
from ezpz.yeet.model.results import Failure, NodeResult

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from ezpz.cluster.allocation import Node
    from ezpz.yeet.engines.base import EngineOptions, EntrySink, Payload, TransferSpec
    from ezpz.yeet.model.events import Emit


class Stream(AgentEngine):
    """The engine that needs nothing on a node but python3 (3.6 or newer); one without it is served by rsync."""

    name: ClassVar[str] = "stream"
    tools: ClassVar[tuple[str, ...]] = ()
    transports: ClassVar[tuple[str, ...]] = tuple(AGENT_TRANSPORTS)

    def __init__(self, limits: EngineOptions, emit: Emit, rng: random.Random) -> None:
        super().__init__(limits, emit, rng)
        self.secret = secrets.token_bytes(32)
        invitation = ListenRequest(self.secret, ROOT.given, STALL, limits.pythons)
        fan = 1 << 20 if limits.encrypt else FAN
        self.transport = AGENT_TRANSPORTS[limits.transport]
        self.startup: AgentStarter = self.transport.starter(invitation, self.handshakes, fan)
        self.listening: dict[Node, PeerAddress] = {}
        self.streams: list[StreamController] = []
        self.rate = 0.0

    async def reach(self, nodes: tuple[Node, ...], destination: str = "") -> Mapping[Node, Failure]:
        raise_open_files(len(nodes))
        failures, without_python = {}, {}
        for node, found in (await self.startup.open(nodes, destination)).items():
            if isinstance(found, ToolMissing) and self.transport.has_shell:
                without_python[node] = found
            elif isinstance(found, EzpzError):
                failures[node] = Failure.of(found)
            else:
                self.sessions[node] = found
        self.listening.update(self.startup.where)
        more = await self.on_each(tuple(without_python), lambda node: self.connect_to_shell(node, without_python[node]))
        return {**failures, **more}

    async def check(self, nodes: tuple[Node, ...], request: dict[str, Any]) -> Mapping[Node, Failure]:
        self.request = request
        return await self.on_each(nodes, self.enlist)

    async def enlist(self, node: Node) -> None:
        """Have a node check its destination. Raises EzpzError."""
        await self.prepare(node)
        session = self.sessions[node]
        session.happened = lambda event: self._happened(node, event)
        session.gone = lambda error: self._gone(node, error)

    async def listen(self, node: Node) -> None:
        """Have a node listen, for others and for this host. Raises EzpzError."""
        session = self.sessions[node]
        if node not in self.listening:
            self.listening[node] = await session.ask(
                ListeningRequest(
                    name=node.given, address=node.address, secret=self.secret.hex(), stall=STALL,
                    private=self.limits.encrypt,
                ),
                timeout=ANSWER_WITHIN,
            )  # fmt: skip

    async def bring_back(self, node: Node) -> None:
        """Start a node anew, with nothing. Raises EzpzError."""
        await self.sessions[node].close()
        self.listening.pop(node, None)
        self.startup.where.pop(node, None)
        failures = await self.reach((node,))
        if failures:
            failure = failures[node]
            raise by_code(failure.code)(failure.message, hint=failure.hint)
        await self.enlist(node)
        await self.listen(node)

    async def begin(self, nodes: tuple[Node, ...], start: TransferSpec) -> tuple[EntrySink, ...]:
        """One stream for all nodes that have the same already, and one for those that have nothing."""
        agents = tuple(node for node in nodes if self.sessions[node].is_agent)
        self.rate = await measure_bandwidth([self.sessions[node] for node in agents])
        lost = await self.on_each(agents, self.listen)
        for node, failure in lost.items():
            self.emit(NodeDone(NodeResult(node, failure.outcome, failure=failure, seconds=self.elapsed())))
        by_base: defaultdict[RemoteFiles | None, list[Node]] = defaultdict(list)
        for node in agents:
            if node not in lost:
                by_base[start.bases.get(node)].append(node)
        for base, those in by_base.items():
            stream = StreamController(
                self, tuple(those), start, base or RemoteFiles(()), needs_tree=len(agents) < len(nodes)
            )
            self.streams.append(stream)
            await stream.begin()
        return tuple(stream.feed for stream in self.streams)

    async def deliver(self, nodes: tuple[Node, ...], shipment: Payload) -> None:
        streamed = {node for stream in self.streams for node in stream.nodes}
        rest = tuple(node for node in nodes if node not in streamed)
        by_rsync = [self._by_rsync(rest, shipment)] if rest else []
        await gather_or_cancel([*(stream.finish(shipment) for stream in self.streams), *by_rsync])

    async def _by_rsync(self, nodes: tuple[Node, ...], shipment: Payload) -> None:
        """Serve the nodes without python."""
        rsync = RsyncTree(self.limits, self.emit, self.rng)
        rsync.began, rsync.request = self.began, self.request
        rsync.sessions, rsync.prepared = self.sessions, self.prepared
        await rsync.deliver(nodes, shipment)

    async def close(self) -> None:
        for stream in self.streams:
            await stream.close()
        await super().close()
        await self.startup.close()

    def way_to(self, node: Node) -> PeerAddress:
        """How another host connects to a node: where it listens, and the detour through ssh."""
        where = self.listening[node]
        argv = self.transport.detour(self.sessions[node].address, where.address, where.port)
        return PeerAddress(
            name=node.given, address=where.address, port=where.port, codec=where.codec, detour=argv or None,
            direct=not self.limits.encrypt,
        )  # fmt: skip

    def _happened(self, node: Node, event: Event) -> None:
        for stream in self.streams:
            if isinstance(event, StreamEvent) and node in stream.nodes:
                stream.heard(node, event)

    def _gone(self, node: Node, error: EzpzError) -> None:
        for stream in self.streams:
            stream.lost(node, error)
