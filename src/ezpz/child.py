"""A local process with a two-way line to it, for asyncio; started by `ezpz.process` as all are."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING

from ezpz.errors import ToolMissing
from ezpz.process import GRACE, PIPE, STDERR_LINES, signal_group, start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ezpz.process import Argument, Running

LINE_LIMIT = 1 << 24  # bytes; an agent's longest line


class Child:
    """A process with a two-way line to it, for asyncio: write bytes, read lines, keep the end of its stderr."""

    def __init__(self, process: Running, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self.reader = reader
        self.writer = writer
        self._stderr: deque[bytes] = deque(maxlen=STDERR_LINES)
        self._stderr_done: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, argv: Sequence[Argument], *, env: Mapping[str, str] | None = None) -> Child:
        """Start `argv` with its stdin and stdout on one socket (one descriptor here). Raises ToolMissing."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = start(argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=PIPE, env=env)
            except ToolMissing:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT)
        child = cls(process, reader, writer)
        child._stderr_done = asyncio.ensure_future(child._keep_stderr())
        return child

    async def _keep_stderr(self) -> None:
        assert self.process.stderr is not None
        reader = asyncio.StreamReader(limit=LINE_LIMIT)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self.process.stderr)
        try:
            while line := await reader.readline():
                self._stderr.append(line)
        except ValueError:
            self._stderr.append(b"(a line of stderr was too long to keep)\n")
        finally:
            transport.close()

    async def wait(self) -> int:
        """The exit status, once the process has ended (after its stdout was read to the end)."""
        pause = 0.005
        while (status := self.process.poll()) is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)
        if self._stderr_done is not None:
            await asyncio.wait([self._stderr_done], timeout=1.0)
        return status

    @property
    def err(self) -> str:
        """The last lines of stderr as text."""
        return b"".join(self._stderr).decode(errors="replace").strip()

    async def end(self, grace: float = GRACE) -> int:
        """End the whole tree: close its stdin, wait `grace` seconds, SIGTERM, SIGKILL; return the exit status."""
        with contextlib.suppress(OSError, RuntimeError):
            if self.writer.can_write_eof():
                self.writer.write_eof()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                signal_group(self.process.pid, number)
            try:
                status = await asyncio.wait_for(self.wait(), grace)
                break
            except asyncio.TimeoutError:
                continue
        else:
            status = -signal.SIGKILL
        self.writer.close()
        if self._stderr_done is not None:
            self._stderr_done.cancel()
        return status
