"""The stream engine: chunks flow through a tree of agents while the source is read."""

from __future__ import annotations

import secrets
from collections import defaultdict
from typing import TYPE_CHECKING, Any, ClassVar

from ezpz.agent.common.messages.events import Event, StreamEvent
from ezpz.agent.common.messages.parts import PeerAddress
from ezpz.agent.common.messages.requests import ListeningRequest
from ezpz.errors import EzpzError
from ezpz.remote.limits import raise_open_files
from ezpz.remote.startup import FANOUT, AgentStarter, ListenRequest
from ezpz.remote.transports import TRANSPORTS
from ezpz.runtime.async_process import gather_or_cancel
from ezpz.yeet.engines.agent_engine import ANSWER_TIMEOUT, AgentEngine, measure_bandwidth
from ezpz.yeet.engines.base import ROOT, STALL_TIMEOUT, RemoteFiles
from ezpz.yeet.engines.stream.context import StreamContext
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
    """The engine that needs nothing on a node but python3 (3.6 or newer)."""

    name: ClassVar[str] = "stream"
    tools: ClassVar[tuple[str, ...]] = ()
    transports: ClassVar[tuple[str, ...]] = tuple(TRANSPORTS)

    def __init__(self, options: EngineOptions, emit: Emit, rng: random.Random) -> None:
        super().__init__(options, emit, rng)
        self.secret = secrets.token_bytes(32)
        invitation = ListenRequest(self.secret, ROOT.given, STALL_TIMEOUT, options.pythons)
        fan = 1 << 20 if options.encrypt else FANOUT
        self.transport = TRANSPORTS[options.transport]
        self.starter: AgentStarter = self.transport.starter(invitation, self.handshakes, fan)
        self.listening: dict[Node, PeerAddress] = {}
        self.streams: list[StreamController] = []

    async def reach(self, nodes: tuple[Node, ...], destination: str = "") -> Mapping[Node, Failure]:
        raise_open_files(len(nodes))
        failures = {}
        for node, found in (await self.starter.open(nodes, destination)).items():
            if isinstance(found, EzpzError):
                failures[node] = Failure.of(found)
            else:
                self.sessions[node] = found
        self.listening.update(self.starter.where)
        return failures

    async def check(self, nodes: tuple[Node, ...], request: dict[str, Any]) -> Mapping[Node, Failure]:
        self.request = request
        return await self.on_each(nodes, self.prepare_node)

    async def prepare_node(self, node: Node) -> None:
        """Let a node check its destination, and listen to what its agent reports. Raises EzpzError."""
        await self.prepare(node)
        session = self.sessions[node]
        session.happened = lambda event: self._on_event(node, event)
        session.gone = lambda error: self._on_lost(node, error)

    async def listen(self, node: Node) -> None:
        """Let a node's agent listen, for other nodes and for this host. Raises EzpzError."""
        session = self.sessions[node]
        if node not in self.listening:
            request = ListeningRequest(
                name=node.given, address=node.address, secret=self.secret.hex(), stall=STALL_TIMEOUT,
                private=self.options.encrypt,
            )  # fmt: skip
            self.listening[node] = await session.ask(request, timeout=ANSWER_TIMEOUT)

    async def restart(self, node: Node) -> None:
        """Start a node's agent again, with nothing. Raises EzpzError."""
        await self.sessions[node].close()
        self.listening.pop(node, None)
        self.starter.where.pop(node, None)
        failures = await self.reach((node,))
        if failures:
            raise failures[node].to_error()
        await self.prepare_node(node)
        await self.listen(node)

    async def begin(self, nodes: tuple[Node, ...], start: TransferSpec) -> tuple[EntrySink, ...]:
        """Start one stream for each group of nodes that have the same version, and one for those that have none."""
        rate = await measure_bandwidth([self.sessions[node] for node in nodes])
        lost = await self.on_each(nodes, self.listen)
        for node, failure in lost.items():
            self.emit(NodeDone(NodeResult(node, failure.outcome, failure=failure, seconds=self.elapsed())))
        by_base: defaultdict[RemoteFiles | None, list[Node]] = defaultdict(list)
        for node in nodes:
            if node not in lost:
                by_base[start.bases.get(node)].append(node)
        context = self._context(rate)
        for base, group in by_base.items():
            stream = StreamController(context, tuple(group), start, base or RemoteFiles(()))
            self.streams.append(stream)
            await stream.begin()
        return tuple(stream.sender for stream in self.streams)

    def _context(self, rate: float) -> StreamContext:
        return StreamContext(
            self.options, self.emit, self.rng, self.secret, rate, self.sessions, self.listening,
            self.peer_address, self.restart, self.elapsed,
        )  # fmt: skip

    async def deliver(self, _nodes: tuple[Node, ...], payload: Payload) -> None:
        await gather_or_cancel(stream.finish(payload) for stream in self.streams)

    async def close(self) -> None:
        for stream in self.streams:
            await stream.close()
        await super().close()
        await self.starter.close()

    def peer_address(self, node: Node) -> PeerAddress:
        """Return how another host connects to a node: where its agent listens, and the detour through ssh."""
        where = self.listening[node]
        argv = self.transport.detour(self.sessions[node].address, where.address, where.port)
        return PeerAddress(
            name=node.given, address=where.address, port=where.port, codec=where.codec, detour=argv or None,
            direct=not self.options.encrypt,
        )  # fmt: skip

    def _on_event(self, node: Node, event: Event) -> None:
        for stream in self.streams:
            if isinstance(event, StreamEvent) and node in stream.nodes:
                stream.on_event(node, event)

    def _on_lost(self, node: Node, error: EzpzError) -> None:
        for stream in self.streams:
            stream.on_lost(node, error)
