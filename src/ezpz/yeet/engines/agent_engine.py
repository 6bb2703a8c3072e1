"""Agents: a session to the agent on every node, which engines share: reach, check, ask, close."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ezpz.agent.common.messages.base import Message
from ezpz.agent.common.messages.queries import PingRequest
from ezpz.agent.common.messages.requests import NoteRequest, PrepareRequest
from ezpz.errors import EzpzError, ToolMissing
from ezpz.remote.limits import connection_limit, raise_open_files
from ezpz.remote.session import AgentSession
from ezpz.remote.shell_session import ShellSession
from ezpz.runtime.async_process import gather_or_cancel
from ezpz.yeet.engines.pacing import PROBE_BYTES
from ezpz.yeet.model.events import WarningRaised
from ezpz.yeet.model.results import Failure

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from ezpz.agent.common.messages.answers import PrepareAnswer
    from ezpz.cluster.allocation import Node
    from ezpz.remote.session import Question
    from ezpz.yeet.engines.base import EngineOptions
    from ezpz.yeet.model.events import Emit

A = TypeVar("A", bound=Message)
ANSWER_WITHIN = 120.0  # seconds for an agent to look at its disk
PREPARED_WITHIN = 30.0  # seconds for it to make its staging, for which all others wait
WEIGHED_WITHIN = 3.0  # seconds for the bytes that are sent to learn the rate
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
"""Failures that a further attempt meets again."""


class AgentEngine:
    """The part of an engine that is the same for all which work through agents."""

    needs: tuple[str, ...] = ()
    """Programs that every node must have."""

    def __init__(self, limits: EngineOptions, emit: Emit, rng: random.Random) -> None:
        self.limits = limits
        self.emit = emit
        self.rng = rng
        self.began = time.monotonic()
        self.sessions: dict[Node, AgentSession | ShellSession] = {}
        self.prepared: dict[Node, PrepareAnswer] = {}
        self.request: dict[str, Any] = {}
        self.handshakes = connection_limit()

    async def reach(self, nodes: tuple[Node, ...], destination: str = "") -> Mapping[Node, Failure]:
        raise_open_files(len(nodes))
        return await self.on_each(nodes, lambda node: self.connect(node, destination))

    def seen(self) -> Mapping[Node, dict[str, Any]]:
        return {node: session.seen for node, session in self.sessions.items() if session.seen is not None}

    async def check(self, nodes: tuple[Node, ...], request: dict[str, Any]) -> Mapping[Node, Failure]:
        self.request = dict(request, tools=list(self.needs))
        return await self.on_each(nodes, self.prepare)

    async def ask(self, nodes: tuple[Node, ...], request: Question[A]) -> Mapping[Node, A]:
        asked = (attempt(self.sessions[node].ask(request, timeout=ANSWER_WITHIN)) for node in nodes)
        answers = await gather_or_cancel(asked)
        return {node: answer for node, answer in zip(nodes, answers, strict=True) if answer is not None}

    async def note_failed(self, node: Node, names: tuple[str, ...]) -> str:
        if node not in self.prepared:
            await self.prepare(node)
        answer = await self.sessions[node].ask(NoteRequest(names=names), timeout=ANSWER_WITHIN)
        return answer.path

    async def close(self) -> None:
        await asyncio.gather(*(session.close() for session in self.sessions.values()))
        self.sessions.clear()

    async def renew(self, node: Node) -> None:
        """A prepared session to a node, a new one if the old one has ended. Raises EzpzError."""
        session = self.sessions.get(node)
        if session is None or not session.is_open:
            if session is not None:
                await session.close()
            await self.connect(node)
            await self.prepare(node)

    async def connect(self, node: Node, destination: str = "") -> None:
        """Open a session to a node, and have it look at the destination, if one is given. Raises EzpzError."""
        try:
            async with self.handshakes:
                self.sessions[node] = await AgentSession.open(node, self.limits.pythons, destination)
        except ToolMissing as e:
            await self.connect_to_shell(node, e)

    async def connect_to_shell(self, node: Node, why: ToolMissing) -> None:
        """Open a session to a node that has no python, for rsync to serve it. Raises EzpzError."""
        if shutil.which("rsync") is None:
            raise why
        async with self.handshakes:
            self.sessions[node] = await ShellSession.open(node)
        self.emit(
            WarningRaised(f"{node.given} has no python3: rsync serves it from this host; nothing is tried out there")
        )

    async def prepare(self, node: Node) -> None:
        """Have a node check its destination, and make its staging. Raises EzpzError."""
        try:
            await self.sessions[node].wake()
        except ToolMissing as e:
            await self.connect_to_shell(node, e)
        request = PrepareRequest.from_json(self.request)
        self.prepared[node] = await self.sessions[node].ask(request, timeout=PREPARED_WITHIN)

    async def on_each(
        self, nodes: tuple[Node, ...], act: Callable[[Node], Coroutine[Any, Any, None]]
    ) -> Mapping[Node, Failure]:
        """Do it on all nodes at once; the failures by node."""
        outcomes = await gather_or_cancel(_failure_of(act(node)) for node in nodes)
        return {node: failure for node, failure in zip(nodes, outcomes, strict=True) if failure is not None}

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began


async def attempt(asking: Coroutine[Any, Any, A]) -> A | None:
    """The answer, or nothing: whatever went wrong, what follows meets it too."""
    try:
        return await asking
    except EzpzError:
        return None


async def _failure_of(act: Coroutine[Any, Any, None]) -> Failure | None:
    try:
        await act
    except EzpzError as e:
        return Failure.of(e)
    return None


async def measure_bandwidth(sessions: Sequence[AgentSession | ShellSession]) -> float:
    """Bytes a second that the network carries, by the better of two nodes, since one may be slow; 0 for unknown.

    One after the other, and best while nothing else goes on: what shares the wire or the processor is measured too.
    """
    return max([await _rate_of(session) for session in {*sessions[:1], *sessions[-1:]}], default=0.0)


async def _rate_of(session: AgentSession | ShellSession) -> float:
    async def seconds(ballast: int) -> float:
        began = time.monotonic()
        await session.ask(PingRequest(), timeout=WEIGHED_WITHIN, attached=bytes(ballast))
        return time.monotonic() - began

    try:
        empty = await seconds(0)
        loaded = await seconds(PROBE_BYTES)
    except EzpzError:
        return 0.0
    return PROBE_BYTES / max(loaded - empty, loaded / 10)
