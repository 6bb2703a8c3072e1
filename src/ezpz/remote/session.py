"""Sessions with agents. The agent is sent as source over ssh, and ends when the channel ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ezpz.agent.server import READY
from ezpz.cluster.ssh import ssh_argv
from ezpz.errors import EzpzError, NodeLost, TimedOut, by_code
from ezpz.remote.bootstrap import bootstrap_command, bundle
from ezpz.remote.channel import Channel, ProcessChannel
from ezpz.remote.shell_probe import ANSWER_LINES, SEEN, parse_probe, probe_command
from ezpz.runtime.async_process import AsyncProcess
from ezpz.runtime.process import GRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ezpz.cluster.allocation import Node

T = TypeVar("T")
PING_INTERVAL = 2.0  # seconds
SILENCE_TIMEOUT = 10.0  # seconds without a message after which an agent counts as lost
READY_TIMEOUT = 60.0  # seconds for a node that accepts the login to start the agent
MAX_LOGIN_LINES = 1000  # lines that a .bashrc may print


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
        happened: Callable[[dict[str, Any]], None] = lambda _: None,
        gone: Callable[[EzpzError], None] = lambda _: None,
        ready_within: float = READY_TIMEOUT,
    ) -> None:
        self.node = node
        self.line = line
        self.address = node.address
        self.happened = happened
        self.gone = gone
        self.ready_within = ready_within
        self.host: dict[str, Any] = {}
        self.seen: dict[str, Any] | None = None
        self._starting = asyncio.Lock()
        self._number = 0
        self._heard = time.monotonic()
        self._waiting: dict[int, tuple[asyncio.Future[dict[str, Any]], Callable[[dict[str, Any]], None] | None]] = {}
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
        self._tasks = [asyncio.ensure_future(task) for task in (self._listen(), self._keep_alive())]
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
        op: str,
        *,
        timeout: float | None = None,
        attached: bytes = b"",
        heard: Callable[[dict[str, Any]], None] | None = None,
        **request: Any,
    ) -> dict[str, Any]:
        """Have the agent do something and return its answer; `heard` takes its events. `timeout` is in seconds.

        attached: bytes that go along with the request

        Raises the EzpzError that the agent answers with, NodeLost when the line ends, TimedOut.
        """
        await self.wake()
        self._number += 1
        number = self._number
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer, heard
        line = json.dumps(dict(request, id=number, op=op, attached=len(attached))).encode() + b"\n"
        try:
            if self._tasks[0].done():
                raise await self.line.failure()
            self.line.write(line + attached)
            return await asyncio.wait_for(self._drained(answer), timeout)
        except asyncio.TimeoutError:
            raise TimedOut(
                f"no answer to '{op}' within {timeout:g} s",
                hint="is the node overloaded or its disk hung?",
                node=self.node.given,
            ) from None
        finally:
            del self._waiting[number]

    async def _drained(self, answer: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
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

    async def _ready(self) -> dict[str, Any]:
        line = await self._first(lambda line: _parsed(line).get("ready") == READY)
        return _parsed(line)

    async def _read_probe(self) -> dict[str, Any] | None:
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
            waiting = [answer for answer, _ in self._waiting.values() if not answer.done()]
            for answer in waiting:
                answer.set_exception(e)
            self.gone(e)

    def _take(self, message: dict[str, Any]) -> None:
        self._heard = time.monotonic()
        answer, heard = self._waiting.get(message.get("id", 0), (None, None))
        if "event" in message:
            tell = self.happened if answer is None else heard
            if tell is not None:
                tell(message["event"])
        elif answer is not None and not answer.done():
            if "error" in message:
                error = message["error"]
                answer.set_exception(by_code(error["code"])(error["message"], hint=error["hint"], node=self.node.given))
            else:
                answer.set_result(message["result"])

    async def _keep_alive(self) -> None:
        """Send pings to the agent, and end the session if it sends nothing for SILENCE_TIMEOUT."""
        while True:
            with contextlib.suppress(ConnectionError):
                self.line.write(json.dumps({"id": 0, "op": "ping"}).encode() + b"\n")
            await asyncio.sleep(PING_INTERVAL)
            if time.monotonic() - self._heard > SILENCE_TIMEOUT:
                self._tasks[0].cancel()
                await self.line.end(0.0)
                lost = NodeSilent(
                    f"it has not answered for {SILENCE_TIMEOUT:g} s", hint="is the node hung?", node=self.node.given
                )
                for answer, _ in self._waiting.values():
                    if not answer.done():
                        answer.set_exception(lost)
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
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
