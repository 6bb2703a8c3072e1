"""The part that engines share which work through an agent on every node: reach, check, ask, close."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ezpz.agent.common.messages.base import Message
from ezpz.agent.common.messages.queries import HeartbeatRequest
from ezpz.agent.common.messages.requests import NoteRequest, PrepareRequest
from ezpz.errors import EzpzError
from ezpz.remote.limits import connection_limit, raise_open_files
from ezpz.remote.session import AgentSession
from ezpz.runtime.async_process import gather_or_cancel
from ezpz.yeet.engines.pacing import PROBE_BYTES
from ezpz.yeet.model.results import Failure

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from ezpz.agent.common.messages.answers import PrepareAnswer
    from ezpz.agent.common.messages.receipt import Receipt
    from ezpz.cluster.allocation import Node
    from ezpz.remote.session import Question
    from ezpz.yeet.engines.base import EngineOptions
    from ezpz.yeet.model.events import Emit

A = TypeVar("A", bound=Message)
ANSWER_TIMEOUT = 120.0  # seconds for an agent to read its disk
PREPARE_TIMEOUT = 30.0  # seconds for it to make its staging, for which all other nodes wait
PROBE_TIMEOUT = 3.0  # seconds for the bytes that measure the bandwidth
PERMANENT_FAILURES = (
    "no-space",
    "destination-unwritable",
    "destination-refused",
    "destination-not-ours",
    "destination-busy",
    "noexec",
    "smoke-failed",
    "tool-missing",
)
"""Codes of failures that another attempt cannot avoid."""


class AgentEngine:
    """Base of engines that work through agents."""

    needs: tuple[str, ...] = ()
    """Programs that every node must have."""

    def __init__(self, options: EngineOptions, emit: Emit, rng: random.Random) -> None:
        self.options = options
        self.emit = emit
        self.rng = rng
        self.started_at = time.monotonic()
        self.sessions: dict[Node, AgentSession] = {}
        self.prepared: dict[Node, PrepareAnswer] = {}
        self.request: dict[str, Any] = {}
        self.handshakes = connection_limit()

    async def reach(self, nodes: tuple[Node, ...], destination: str = "") -> Mapping[Node, Failure]:
        raise_open_files(len(nodes))
        return await self.on_each(nodes, lambda node: self.connect(node, destination))

    def seen(self) -> Mapping[Node, Receipt]:
        return {node: session.seen for node, session in self.sessions.items() if session.seen is not None}

    async def check(self, nodes: tuple[Node, ...], request: dict[str, Any]) -> Mapping[Node, Failure]:
        self.request = dict(request, tools=list(self.needs))
        return await self.on_each(nodes, self.prepare)

    async def ask(self, nodes: tuple[Node, ...], request: Question[A]) -> Mapping[Node, A]:
        asked = (answer_or_none(self.sessions[node].ask(request, timeout=ANSWER_TIMEOUT)) for node in nodes)
        answers = await gather_or_cancel(asked)
        return {node: answer for node, answer in zip(nodes, answers, strict=True) if answer is not None}

    async def note_failed(self, node: Node, names: tuple[str, ...]) -> str:
        if node not in self.prepared:
            await self.prepare(node)
        answer = await self.sessions[node].ask(NoteRequest(names=names), timeout=ANSWER_TIMEOUT)
        return answer.path

    async def close(self) -> None:
        await asyncio.gather(*(session.close() for session in self.sessions.values()))
        self.sessions.clear()

    async def renew(self, node: Node) -> None:
        """Open and prepare a new session to a node if the old one has ended. Raises EzpzError."""
        session = self.sessions.get(node)
        if session is None or not session.is_open:
            if session is not None:
                await session.close()
            await self.connect(node)
            await self.prepare(node)

    async def connect(self, node: Node, destination: str = "") -> None:
        """Open a session to a node, and read the receipt of its destination, if one is given. Raises EzpzError."""
        async with self.handshakes:
            self.sessions[node] = await AgentSession.open(node, self.options.pythons, destination)

    async def prepare(self, node: Node) -> None:
        """Let a node check its destination, and make its staging. Raises EzpzError."""
        await self.sessions[node].wake()
        request = PrepareRequest.from_json(self.request)
        self.prepared[node] = await self.sessions[node].ask(request, timeout=PREPARE_TIMEOUT)

    async def on_each(
        self, nodes: tuple[Node, ...], act: Callable[[Node], Coroutine[Any, Any, None]]
    ) -> Mapping[Node, Failure]:
        """Run `act` for all nodes at once and return the failures by node."""
        outcomes = await gather_or_cancel(_failure_of(act(node)) for node in nodes)
        return {node: failure for node, failure in zip(nodes, outcomes, strict=True) if failure is not None}

    def elapsed(self) -> float:
        """Return the seconds since the start of the run."""
        return time.monotonic() - self.started_at


async def answer_or_none(request: Coroutine[Any, Any, A]) -> A | None:
    """Return the answer, or None if the request fails: the next request fails as well, and is handled."""
    try:
        return await request
    except EzpzError:
        return None


async def _failure_of(act: Coroutine[Any, Any, None]) -> Failure | None:
    try:
        await act
    except EzpzError as e:
        return Failure.of(e)
    return None


async def measure_bandwidth(sessions: Sequence[AgentSession]) -> float:
    """Return the bytes per second that the network carries, 0 if unknown.

    The better of two nodes counts, since one may be slow. They are measured one after the other, best while nothing
    else is running: what shares the wire or the processor is measured as well.
    """
    return max([await _measure(session) for session in {*sessions[:1], *sessions[-1:]}], default=0.0)


async def _measure(session: AgentSession) -> float:
    async def seconds(size: int) -> float:
        started_at = time.monotonic()
        await session.ask(HeartbeatRequest(), timeout=PROBE_TIMEOUT, attached=bytes(size))
        return time.monotonic() - started_at

    try:
        empty = await seconds(0)
        loaded = await seconds(PROBE_BYTES)
    except EzpzError:
        return 0.0
    return PROBE_BYTES / max(loaded - empty, loaded / 10)
