"""Sessions with agents. The agent is sent as source over ssh, and ends when the channel ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from ezpz.agent.common.messages.base import Message
from ezpz.agent.common.messages.envelope import Failing, Ready
from ezpz.agent.common.messages.events import Event, parse_event
from ezpz.agent.common.messages.queries import HeartbeatRequest
from ezpz.agent.common.wire_paths import ProtocolError
from ezpz.agent.query_server import READY
from ezpz.cluster.ssh import ssh_argv
from ezpz.errors import EzpzError, NodeLost, TimedOut, by_code
from ezpz.remote.bootstrap import bootstrap_command, bundle
from ezpz.remote.channel import Channel, ProcessChannel
from ezpz.remote.shell_probe import ANSWER_LINES, SEEN, parse_probe, probe_command
from ezpz.runtime.async_process import AsyncProcess
from ezpz.runtime.process import GRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ezpz.agent.common.messages.receipt import Receipt
    from ezpz.cluster.allocation import Node

T = TypeVar("T")
A = TypeVar("A", bound=Message)
A_co = TypeVar("A_co", bound=Message, covariant=True)
HEARTBEAT_INTERVAL = 2.0  # seconds
HEARTBEAT_TIMEOUT = 10.0  # seconds without a message after which an agent counts as lost
READY_TIMEOUT = 60.0  # seconds for a node that accepts the login to start the agent
MAX_LOGIN_LINES = 1000  # lines that a .bashrc may print


class Question(Protocol[A_co]):
    """A request to an agent, with the type of its answer; see `agent.common.messages.requests`."""

    @property
    def op(self) -> str:
        """The name of the operation."""

    @property
    def answer(self) -> type[A_co]:
        """The type of its answer."""

    def to_json(self) -> dict[str, Any]:
        """Return its fields."""


class _Pending(NamedTuple):
    """A request that was sent: the type of its answer, the answer, and what takes its events."""

    kind: type[Message]
    answer: asyncio.Future[Any]
    heard: Callable[[Event], None] | None


class NodeSilent(NodeLost):
    """A node from which nothing is received although the channel is open: the node or its agent hangs."""


class AgentSession:
    """Requests to the agent of one node. Every failure is an EzpzError that names the node.

    The agent is started by the first request.

    Attributes:
        seen: the receipt of an unchanged version on the node, if the shell could prove it without an agent
        happened: called with each event that belongs to no request
        gone: called once if the channel ends by itself
        ready_within: seconds that connecting and starting the agent may take
    """

    def __init__(
        self,
        node: Node,
        line: Channel,
        happened: Callable[[Event], None] = lambda _: None,
        gone: Callable[[EzpzError], None] = lambda _: None,
        ready_within: float = READY_TIMEOUT,
    ) -> None:
        self.node = node
        self.line = line
        self.address = node.address
        self.happened = happened
        self.gone = gone
        self.ready_within = ready_within
        self.host = Ready(ready="")
        self.seen: Receipt | None = None
        self._starting = asyncio.Lock()
        self._number = 0
        self._heard = time.monotonic()
        self._waiting: dict[int, _Pending] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        node: Node,
        pythons: tuple[str, ...] = (),
        destination: str = "",
        ready_within: float = READY_TIMEOUT,
    ) -> AgentSession:
        """Reach a node by its address, and by its plain name if that fails. Raises EzpzError.

        Args:
            node: the node
            pythons: paths to try if the system has no python
            destination: a path that may hold an unchanged version, which is `seen` then, and no agent is started yet
            ready_within: seconds that connecting and starting the agent may take
        """
        try:
            return await cls._open(node, node.address, pythons, destination, ready_within)
        except EzpzError:
            if node.address == node.given:
                raise
            return await cls._open(node, node.given, pythons, destination, ready_within)

    @classmethod
    async def _open(
        cls, node: Node, address: str, pythons: tuple[str, ...], destination: str, ready_within: float
    ) -> AgentSession:
        child = await AsyncProcess.start(ssh_argv(address, bootstrap_command(pythons)))
        session = cls(node, ProcessChannel(child, node), ready_within=ready_within)
        session.address = address
        asked = probe_command(destination)
        child.writer.write(asked + b"\n")
        if asked:
            session.seen = await session._in_time(session._read_probe())
            if session.seen is not None:
                return session
            child.writer.write(b"\n")
        child.writer.write(bundle())
        return await session.started()

    async def wake(self) -> None:
        """Start the agent if it is not running. Raises EzpzError."""
        async with self._starting:
            if not self._tasks:
                with contextlib.suppress(ConnectionError):  # the reader finds the reason
                    self.line.write(b"\n" + bundle())
                await self.started()

    async def started(self) -> AgentSession:
        """Wait until the agent is ready and return this session. Raises EzpzError."""
        self.host = await self._in_time(self._ready())
        self._tasks = [asyncio.ensure_future(task) for task in (self._listen(), self._send_heartbeats())]
        return self

    async def _in_time(self, hearing: Coroutine[Any, Any, T]) -> T:
        """Wait for the first answer and return it. End this session if there is none. Raises EzpzError."""
        try:
            return await asyncio.wait_for(hearing, self.ready_within)
        except asyncio.TimeoutError:
            await self.line.end(GRACE)
            raise NodeLost(
                f"no answer within {self.ready_within:g} s of connecting",
                hint="is the node overloaded or hung?",
                node=self.node.given,
            ) from None
        except (EzpzError, OSError, asyncio.CancelledError):
            await self.line.end(0.2)
            raise

    async def ask(
        self,
        request: Question[A],
        *,
        timeout: float | None = None,
        attached: bytes = b"",
        heard: Callable[[Event], None] | None = None,
    ) -> A:
        """Send a request to the agent and return its answer.

        Args:
            request: What the agent is to do.
            timeout: Seconds, None for no limit.
            attached: Bytes that are sent after the request.
            heard: Takes the events of the request.

        Raises:
            EzpzError: What the agent answers with, NodeLost if the channel ends, or TimedOut.
        """
        await self.wake()
        self._number += 1
        number = self._number
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Pending(request.answer, answer, heard)
        line = json.dumps(dict(request.to_json(), id=number, op=request.op, attached=len(attached))).encode() + b"\n"
        try:
            if self._tasks[0].done():
                raise await self.line.failure()
            self.line.write(line + attached)
            return await asyncio.wait_for(self._drained(answer), timeout)
        except asyncio.TimeoutError:
            raise TimedOut(
                f"no answer to '{request.op}' within {timeout:g} s",
                hint="is the node overloaded or its disk hung?",
                node=self.node.given,
            ) from None
        finally:
            del self._waiting[number]

    async def _drained(self, answer: asyncio.Future[A]) -> A:
        with contextlib.suppress(ConnectionError):  # the reader finds the reason
            await self.line.drain()
        return await answer

    @property
    def is_open(self) -> bool:
        return self.line.is_open

    async def close(self, grace: float = 3.0) -> None:
        """End the agent, which removes its staging. Never raises."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.line.end(grace)

    async def _ready(self) -> Ready:
        line = await self._first(lambda line: _parsed(line).get("ready") == READY)
        try:
            return Ready.from_json(_parsed(line))
        except ProtocolError as e:
            raise self._unexpected(e) from e

    def _unexpected(self, error: ProtocolError) -> NodeLost:
        return NodeLost(f"its agent sent an invalid message: {error}", hint="run it again", node=self.node.given)

    async def _read_probe(self) -> Receipt | None:
        first = await self._first(lambda line: line.startswith(SEEN))
        return parse_probe([first, *[await self._line() for _ in range(ANSWER_LINES - 1)]])

    async def _first(self, is_it: Callable[[bytes], bool]) -> bytes:
        """Return the first line that fits, and skip lines that a .bashrc prints before it."""
        for _ in range(MAX_LOGIN_LINES):
            line = await self._line()
            if is_it(line):
                return line
        raise NodeLost(
            f"its shell printed {MAX_LOGIN_LINES} lines and started no agent",
            hint="look at its .bashrc",
            node=self.node.given,
        )

    async def _listen(self) -> None:
        """Pass each message to the request that waits for it, until the channel ends."""
        try:
            while True:
                self._take(_parsed(await self._line()))
        except EzpzError as e:
            waiting = [each.answer for each in self._waiting.values() if not each.answer.done()]
            for answer in waiting:
                answer.set_exception(e)
            self.gone(e)

    def _take(self, message: dict[str, Any]) -> None:
        self._heard = time.monotonic()
        number = message.get("id", 0)
        pending = self._waiting.get(number) if type(number) is int else None
        try:
            if "event" in message:
                tell = self.happened if pending is None else pending.heard
                event = parse_event(message["event"])
                if tell is not None:
                    tell(event)
            elif pending is not None and not pending.answer.done():
                self._answer(pending, message)
        except ProtocolError as e:
            if pending is None or pending.answer.done():
                raise self._unexpected(e) from e
            pending.answer.set_exception(self._unexpected(e))

    def _answer(self, pending: _Pending, message: dict[str, Any]) -> None:
        """Give a request its answer. Raise ProtocolError for an answer of another type."""
        if "error" in message:
            error = Failing.from_json(message["error"])
            pending.answer.set_exception(by_code(error.code)(error.message, hint=error.hint, node=self.node.given))
        else:
            pending.answer.set_result(pending.kind.from_json(message.get("result")))

    async def _send_heartbeats(self) -> None:
        """Send heartbeats to the agent, and end the session if it sends nothing for HEARTBEAT_TIMEOUT."""
        while True:
            with contextlib.suppress(ConnectionError):
                self.line.write(json.dumps({"id": 0, "op": HeartbeatRequest.op}).encode() + b"\n")
            await asyncio.sleep(HEARTBEAT_INTERVAL)
            if time.monotonic() - self._heard > HEARTBEAT_TIMEOUT:
                self._tasks[0].cancel()
                await self.line.end(0.0)
                lost = NodeSilent(
                    f"it has not answered for {HEARTBEAT_TIMEOUT:g} s", hint="is the node hung?", node=self.node.given
                )
                for each in self._waiting.values():
                    if not each.answer.done():
                        each.answer.set_exception(lost)
                self.gone(lost)
                return

    async def _line(self) -> bytes:
        try:
            line = await self.line.readline()
        except (ConnectionError, ValueError):
            line = b""
        if not line:
            raise await self.line.failure()
        return line


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
