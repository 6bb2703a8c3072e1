"""Session: a line to the agent on one node, which is sent as source over ssh and goes when the line ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from ezpz.agent.common.messages.base import Message
from ezpz.agent.common.messages.envelope import Failing, Ready
from ezpz.agent.common.messages.events import Event, parse_event
from ezpz.agent.common.wire_paths import ProtocolError
from ezpz.agent.query_server import READY
from ezpz.cluster.ssh import ssh_argv
from ezpz.errors import EzpzError, NodeLost, TimedOut, by_code
from ezpz.remote.bootstrap import bootstrap_command, bundle
from ezpz.remote.channel import Channel, ProcessChannel
from ezpz.remote.shell_probe import ANSWER, SEEN, parse_probe, probe_command
from ezpz.runtime.async_process import AsyncProcess
from ezpz.runtime.process import GRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ezpz.cluster.allocation import Node

T = TypeVar("T")
A = TypeVar("A", bound=Message)
A_co = TypeVar("A_co", bound=Message, covariant=True)
PING_EVERY = 2.0  # seconds
SILENT = 10.0  # seconds without a word after which an agent is taken for dead
READY_WITHIN = 60.0  # seconds; a node that has let us in but starts nothing
CHATTER = 1000  # lines that a .bashrc may print


class Question(Protocol[A_co]):
    """A request to an agent, with the type of its answer; see `agent.common.messages.requests`."""

    @property
    def op(self) -> str:
        """Its name."""

    @property
    def answer(self) -> type[A_co]:
        """What it is answered with."""

    def to_json(self) -> dict[str, Any]:
        """Return its fields."""


class _Pending(NamedTuple):
    """A request that was sent: the type of its answer, the answer, and what takes its events."""

    kind: type[Message]
    answer: asyncio.Future[Any]
    heard: Callable[[Event], None] | None


class NodeSilent(NodeLost):
    """A node from which nothing has come for long, while its line stands: it hangs, or its agent does."""


class AgentSession:
    """Requests to one node's agent, which is started when there is a first one. Every failure is an EzpzError that
    names the node.

    seen: the receipt of an untouched version there, when that could be known without an agent
    happened: takes the events of the agent that belong to no request; gone: is told once when the line ends by itself
    """

    is_agent = True

    def __init__(
        self,
        node: Node,
        line: Channel,
        happened: Callable[[Event], None] = lambda _: None,
        gone: Callable[[EzpzError], None] = lambda _: None,
    ) -> None:
        self.node = node
        self.line = line
        self.address = node.address
        self.happened = happened
        self.gone = gone
        self.host = Ready(ready="")
        self.seen: dict[str, Any] | None = None
        self._starting = asyncio.Lock()
        self._number = 0
        self._heard = time.monotonic()
        self._waiting: dict[int, _Pending] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, node: Node, pythons: tuple[str, ...] = (), destination: str = "") -> AgentSession:
        """Reach a node by its address, and by its plain name if that fails. Raises EzpzError.

        destination: what may stand there untouched, and be `seen`; only then no agent is started yet
        """
        try:
            return await cls._open(node, node.address, pythons, destination)
        except EzpzError:
            if node.address == node.given:
                raise
            return await cls._open(node, node.given, pythons, destination)

    @classmethod
    async def _open(cls, node: Node, address: str, pythons: tuple[str, ...], destination: str) -> AgentSession:
        child = await AsyncProcess.start(ssh_argv(address, bootstrap_command(pythons)))
        session = cls(node, ProcessChannel(child, node))
        session.address = address
        asked = probe_command(destination)
        child.writer.write(asked + b"\n")
        if asked:
            session.seen = await session._in_time(session._glance())
            if session.seen is not None:
                return session
            child.writer.write(b"\n")
        child.writer.write(bundle())
        return await session.started()

    async def wake(self) -> None:
        """Start the agent, if there is none yet. Raises EzpzError."""
        async with self._starting:
            if not self._tasks:
                with contextlib.suppress(ConnectionError):  # whoever listens finds out why
                    self.line.write(b"\n" + bundle())
                await self.started()

    async def started(self) -> AgentSession:
        """This session, once its agent has said that it is there. Raises EzpzError."""
        self.host = await self._in_time(self._ready())
        self._tasks = [asyncio.ensure_future(task) for task in (self._listen(), self._keep_alive())]
        return self

    async def _in_time(self, hearing: Coroutine[Any, Any, T]) -> T:
        """What is heard first; if it is nothing, this session ends. Raises EzpzError."""
        try:
            return await asyncio.wait_for(hearing, READY_WITHIN)
        except asyncio.TimeoutError:
            await self.line.end(GRACE)
            raise NodeLost(
                f"{self.node.given}: no answer within {READY_WITHIN:g} s of connecting",
                hint="is the node overloaded or hung?",
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
        """Have the agent do something and return its answer; `heard` takes its events. `timeout` is in seconds.

        attached: bytes that go along with the request

        Raises the EzpzError that the agent answers with, NodeLost when the line ends, TimedOut.
        """
        await self.wake()
        self._number += 1
        number = self._number
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Pending(request.answer, answer, heard)
        line = json.dumps(dict(request.to_json(), id=number, op=request.op, attached=len(attached))).encode() + b"\n"
        try:
            if self._tasks[0].done():
                raise await self.line.lost()
            self.line.write(line + attached)
            return await asyncio.wait_for(self._drained(answer), timeout)
        except asyncio.TimeoutError:
            raise TimedOut(
                f"{self.node.given}: no answer to '{request.op}' within {timeout:g} s",
                hint="is the node overloaded or its disk hung?",
            ) from None
        finally:
            del self._waiting[number]

    async def _drained(self, answer: asyncio.Future[A]) -> A:
        with contextlib.suppress(ConnectionError):  # whoever listens finds out why
            await self.line.drain()
        return await answer

    @property
    def is_open(self) -> bool:
        return self.line.is_open

    async def close(self, grace: float = 3.0) -> None:
        """End the agent: it removes its staging and goes. Never raises."""
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
        return NodeLost(f"{self.node.given}: its agent sent an invalid message: {error}", hint="run it again")

    async def _glance(self) -> dict[str, Any] | None:
        first = await self._first(lambda line: line.startswith(SEEN))
        return parse_probe([first, *[await self._line() for _ in range(ANSWER - 1)]])

    async def _first(self, is_it: Callable[[bytes], bool]) -> bytes:
        """The line that is waited for, whatever a chatty .bashrc prints before it."""
        for _ in range(CHATTER):
            line = await self._line()
            if is_it(line):
                return line
        raise NodeLost(
            f"{self.node.given}: its shell printed {CHATTER} lines and started no agent", hint="look at its .bashrc"
        )

    async def _listen(self) -> None:
        """Hand every line to whoever waits for it, until there are no more."""
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
                if "error" in message:
                    error = Failing.from_json(message["error"])
                    pending.answer.set_exception(
                        by_code(error.code)(f"{self.node.given}: {error.message}", hint=error.hint)
                    )
                else:
                    pending.answer.set_result(pending.kind.from_json(message.get("result")))
        except ProtocolError as e:
            if pending is None or pending.answer.done():
                raise self._unexpected(e) from e
            pending.answer.set_exception(self._unexpected(e))

    async def _keep_alive(self) -> None:
        """Let the agent know that we live, and find out when it does not."""
        while True:
            with contextlib.suppress(ConnectionError):
                self.line.write(json.dumps({"id": 0, "op": "ping"}).encode() + b"\n")
            await asyncio.sleep(PING_EVERY)
            if time.monotonic() - self._heard > SILENT:
                self._tasks[0].cancel()
                await self.line.end(0.0)
                lost = NodeSilent(f"{self.node.given}: it has not answered for {SILENT:g} s", hint="is the node hung?")
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
            raise await self.line.lost()
        return line


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
