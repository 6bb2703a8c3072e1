"""Session: a line to the agent on one node, which is sent as source over ssh and goes when the line ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
from typing import TYPE_CHECKING, Any

from ezpz.child import Child
from ezpz.cluster.remote import explain, ssh_argv
from ezpz.errors import EzpzError, NodeLost, TimedOut, by_code
from ezpz.process import exit_status
from ezpz.yeet.agent.serve import READY

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.cluster.model import Node

MODULES = ("refusal", "tree", "place", "lock", "interpreter", "smoke", "landing", "transfer", "leaks", "serve")
"""The agent's modules: each needs only those before it."""
PYTHONS = "/usr/bin/python3 python3 /usr/libexec/platform-python"
READY_WITHIN = 60.0  # seconds; a node that has let us in but starts nothing
CHATTER = 1000  # lines that a .bashrc may print
MISSING = "python3: not found"
SETUP = """\
import sys, types
def install(name, text):
    module = sys.modules[name] = types.ModuleType(name)
    if text:
        module.__package__ = name.rpartition(".")[0]
    else:
        module.__path__ = []
    exec(compile(text, "<ezpz agent: " + name + ">", "exec"), module.__dict__)
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
for name, text in %r:
    install(name, text)
sys.modules["ezpz.yeet.agent.serve"].main()
"""


@functools.cache
def bundle() -> bytes:
    """The agent as one program, preceded by its length on a line of its own."""
    folder = os.path.join(os.path.dirname(__file__), "agent")
    sources = [(package, "") for package in ("ezpz", "ezpz.yeet", "ezpz.yeet.agent")]
    for module in MODULES:
        with open(os.path.join(folder, module + ".py"), encoding="utf-8") as file:
            sources.append((f"ezpz.yeet.agent.{module}", file.read()))
    program = (SETUP % (sources,)).encode()
    return b"%d\n%b" % (len(program), program)


def bootstrap() -> str:
    """The remote command that starts the agent; the same text for sh, csh and fish as login shells."""
    read = "import sys;b=sys.stdin.buffer;exec(b.read(int(b.readline())))"
    look = f'for p in {PYTHONS}; do $p -IS -c "" >/dev/null 2>&1 && exec $p -IS -c "{read}"; done'
    return f"exec /bin/sh -c '{look}; echo {MISSING} >&2; exit 127'"


class Session:
    """Requests to one node's agent, one at a time. Every failure is an EzpzError that names the node."""

    def __init__(self, node: Node, address: str, child: Child) -> None:
        self.node = node
        self.address = address
        self._child = child
        self._number = 0
        self.host: dict[str, Any] = {}

    @classmethod
    async def open(cls, node: Node) -> Session:
        """Reach a node by its address, and by its plain name if that fails. Raises EzpzError."""
        try:
            return await cls._open(node, node.address)
        except EzpzError:
            if node.address == node.given:
                raise
            return await cls._open(node, node.given)

    @classmethod
    async def _open(cls, node: Node, address: str) -> Session:
        child = await Child.start(ssh_argv(address, bootstrap()))
        session = cls(node, address, child)
        try:
            child.writer.write(bundle())
            session.host = await asyncio.wait_for(session._ready(), READY_WITHIN)
        except asyncio.TimeoutError:
            await child.end()
            raise NodeLost(
                f"{node.given}: no answer within {READY_WITHIN:g} s of connecting",
                hint="is the node overloaded or hung?",
            ) from None
        except (EzpzError, OSError, asyncio.CancelledError):
            await child.end(0.2)
            raise
        return session

    async def ask(
        self,
        op: str,
        *,
        timeout: float | None = None,
        ballast: bytes = b"",
        heard: Callable[[dict[str, Any]], None] | None = None,
        **request: Any,
    ) -> dict[str, Any]:
        """Have the agent do something and return its answer; `heard` takes its events. `timeout` is in seconds.

        ballast: bytes that the agent reads and forgets before it answers

        Raises the EzpzError that the agent answers with, NodeLost when the line ends, TimedOut.
        """
        self._number += 1
        line = json.dumps(dict(request, id=self._number, op=op, ballast=len(ballast))).encode() + b"\n"
        try:
            self._child.writer.write(line + ballast)
            await self._child.writer.drain()
            return await asyncio.wait_for(self._answer(heard), timeout)
        except ConnectionError:
            raise await self._lost() from None
        except asyncio.TimeoutError:
            raise TimedOut(
                f"{self.node.given}: no answer to '{op}' within {timeout:g} s",
                hint="is the node overloaded or its disk hung?",
            ) from None

    @property
    def is_open(self) -> bool:
        return exit_status(self._child.process) is None

    async def close(self, grace: float = 3.0) -> None:
        """End the agent: it removes its staging and goes. Never raises."""
        with contextlib.suppress(OSError):
            await self._child.end(grace)

    async def _ready(self) -> dict[str, Any]:
        for _ in range(CHATTER):
            found = _parsed(await self._line())
            if found.get("ready") == READY:
                return found
        raise NodeLost(
            f"{self.node.given}: its shell printed {CHATTER} lines and started no agent", hint="look at its .bashrc"
        )

    async def _answer(self, heard: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
        while True:
            message = _parsed(await self._line())
            if message.get("id") != self._number:
                continue
            if "event" in message:
                if heard is not None:
                    heard(message["event"])
            elif "error" in message:
                error = message["error"]
                raise by_code(error["code"])(f"{self.node.given}: {error['message']}", hint=error["hint"])
            else:
                result: dict[str, Any] = message["result"]
                return result

    async def _line(self) -> bytes:
        try:
            line = await self._child.reader.readline()
        except (ConnectionError, ValueError):
            line = b""
        if not line:
            raise await self._lost()
        return line

    async def _lost(self) -> EzpzError:
        status = await asyncio.wait_for(self._child.wait(), 5.0) if not self.is_open else await self._child.end(1.0)
        return explain(self._child.err, status, self.node.given)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
