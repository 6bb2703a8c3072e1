"""Byte streams to and from the agent of a node: the pipes of the process that started it, or TCP."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Protocol

from ezpz.agent.stream import frames
from ezpz.cluster.ssh_errors import classify_failure
from ezpz.errors import EzpzError, NodeLost
from ezpz.runtime.process import exit_status

if TYPE_CHECKING:
    from ezpz.cluster.allocation import Node
    from ezpz.runtime.async_process import AsyncProcess

CONNECT_TIMEOUT = 5.0  # seconds


class Channel(Protocol):
    """A byte stream to an agent: write requests, read answers by line. `failure` returns why it ended."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    async def readline(self) -> bytes: ...

    @property
    def is_open(self) -> bool: ...

    async def failure(self) -> EzpzError: ...

    async def end(self, grace: float) -> None: ...


class ProcessChannel:
    """The stdin and stdout of a process, such as ssh, that runs the agent."""

    def __init__(self, child: AsyncProcess, node: Node) -> None:
        self.child = child
        self.node = node

    def write(self, data: bytes) -> None:
        self.child.writer.write(data)

    async def drain(self) -> None:
        await self.child.writer.drain()

    async def readline(self) -> bytes:
        return await self.child.reader.readline()

    @property
    def is_open(self) -> bool:
        return exit_status(self.child.process) is None

    async def failure(self) -> EzpzError:
        status = await asyncio.wait_for(self.child.wait(), 5.0) if not self.is_open else await self.child.end(1.0)
        return classify_failure(self.child.err, status, self.node.given)

    async def end(self, grace: float) -> None:
        with contextlib.suppress(OSError):
            await self.child.end(grace)


class TcpChannel:
    """A TCP connection to an agent that listens, in authenticated frames (see `ezpz.agent.stream.frames`)."""

    def __init__(
        self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: bytes, nonces: bytes
    ) -> None:
        self.node = node
        self._reader = reader
        self._writer = writer
        self._out = frames.derive(secret, "from root", nonces)
        self._in = frames.derive(secret, "to root", nonces)
        self._sent = self._received = 0
        self._heard = asyncio.StreamReader(limit=1 << 24)
        self._why = "the connection ended"
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def dial(cls, node: Node, address: str, port: int, secret: bytes, me: str) -> TcpChannel:
        """Connect to the agent of a node that listens at an address. Raises NodeLost."""
        try:
            return await asyncio.wait_for(cls._dial(node, address, port, secret, me), CONNECT_TIMEOUT)
        except (OSError, EOFError, frames.FrameError, asyncio.TimeoutError) as e:
            why = str(e) or "no answer"
            raise NodeLost(
                f"its agent, at {address} port {port}, cannot be reached: {why}",
                hint="does a firewall stand between the nodes? try --transport ssh",
                node=node.given,
            ) from e

    @classmethod
    async def _dial(cls, node: Node, address: str, port: int, secret: bytes, me: str) -> TcpChannel:
        reader, writer = await asyncio.open_connection(address, port)
        with contextlib.ExitStack() as unless_it_works:
            unless_it_works.callback(writer.close)
            start = await reader.readexactly(len(frames.MAGIC) + frames.NONCE)
            if not start.startswith(frames.MAGIC):
                raise frames.FrameError("something else listens there")
            ours = secrets.token_bytes(frames.NONCE)
            nonces = start[len(frames.MAGIC) :] + ours
            facts = {"role": "control", "from": me, "to": node.given}
            writer.write(ours + frames.hello(secret, "dial", facts, nonces))
            head = await reader.readexactly(2)
            rest = await reader.readexactly(min(int.from_bytes(head, "big"), frames.HELLO_LIMIT) + frames.MAC)
            frames.read_hello(_BytesReader(head + rest), secret, "answer", nonces)
            unless_it_works.pop_all()
        return cls(node, reader, writer, secret, nonces)

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), frames.LIMIT):
            self._writer.write(
                frames.encode_frame(self._out, frames.MESSAGE, self._sent, data[start : start + frames.LIMIT])
            )
            self._sent += 1

    async def drain(self) -> None:
        await self._writer.drain()

    async def readline(self) -> bytes:
        return await self._heard.readline()

    @property
    def is_open(self) -> bool:
        return not self._listening.done()

    async def failure(self) -> EzpzError:
        return NodeLost(self._why, hint="is the node up and in your job?", node=self.node.given)

    async def end(self, grace: float) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()
        await asyncio.wait([self._listening], timeout=grace)
        self._listening.cancel()
        self._writer.close()

    async def _listen(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(frames.HEADER.size)
                length = frames.HEADER.unpack(head)[3]
                if length > frames.LIMIT:
                    raise frames.FrameError(f"a frame of {length} bytes")
                frame = frames.read_frame(
                    _BytesReader(head + await self._reader.readexactly(length + frames.MAC)), self._in
                )
                if frame.kind != frames.MESSAGE or frame.number != self._received:
                    raise frames.FrameError("a message that was not expected")
                self._received += 1
                self._heard.feed_data(bytes(frame.payload))
        except (OSError, EOFError, frames.FrameError) as e:
            self._why = str(e) or self._why
        finally:
            self._heard.feed_eof()


class _BytesReader:
    """A reader of bytes in memory that fills the buffers of `frames`."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)

    def __call__(self, view: memoryview) -> None:
        if len(self.data) < len(view):
            raise EOFError
        view[:] = self.data[: len(view)]
        self.data = self.data[len(view) :]
