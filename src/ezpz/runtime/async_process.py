"""Local processes for asyncio: a two-way connection to each, many at once, and calls that block in threads."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ezpz.errors import EzpzError, LimitReached
from ezpz.runtime.process import GRACE, PIPE, STDERR_LINES, exit_status, signal_group, start
from ezpz.runtime.threads import BackgroundThread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from ezpz.runtime.process import Argument, Running

T = TypeVar("T")
PATIENCE = 3.0  # seconds that something which was cancelled waits for its thread
LINE_LIMIT = 1 << 24  # bytes; an agent's longest line


async def gather_or_cancel(acts: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at once and return their results in order.

    When one fails or this is cancelled, all are cancelled, and have ended before this ends.
    """
    tasks = [asyncio.ensure_future(act) for act in acts]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_in_thread(act: Callable[[], T], give_up: Callable[[], object] = lambda: None) -> T:
    """Call `act`, which blocks, in a thread of its own and return its result.

    When this is cancelled, it calls `give_up`, which should make `act` end soon, and waits at most `PATIENCE` seconds
    for that. `act` may hang on a filesystem; its thread does not keep the process from ending then.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(how: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before the thread
            loop.call_soon_threadsafe(lambda: None if future.done() else how(value))

    BackgroundThread(act, partial(settle, future.set_exception), partial(settle, future.set_result))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        give_up()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody will retrieve it
        await asyncio.wait([future], timeout=PATIENCE)
        raise


class AsyncProcess:
    """A process for asyncio: write bytes to it, read lines from it; the end of its stderr is kept."""

    def __init__(self, process: Running, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self.reader = reader
        self.writer = writer
        self._stderr: deque[bytes] = deque(maxlen=STDERR_LINES)
        self._stderr_done: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, argv: Sequence[Argument], *, env: Mapping[str, str] | None = None) -> AsyncProcess:
        """Start `argv` with its stdin and stdout on one socket (one descriptor here). Raises as `process.start`."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as e:
            raise LimitReached(f"no socket can be made on this host: {e.strerror}", hint="see `ulimit -a`") from e
        with theirs:
            try:
                process = start(argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=PIPE, env=env)
            except EzpzError:
                ours.close()
                raise
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT)
        except asyncio.CancelledError:
            ours.close()
            signal_group(process.pid, signal.SIGKILL)
            process.wait()
            raise
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
        while (status := exit_status(self.process)) is None:
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
        if self.process.returncode is None:
            signal_group(self.process.pid, signal.SIGKILL)  # what its leader has left behind
            self.process.poll()  # what hangs in a call to a filesystem is beyond SIGKILL, and not waited for
        self.writer.close()
        if self._stderr_done is not None:
            self._stderr_done.cancel()
        return status
