"""Local processes and threads for asyncio: a line to a process, many at once, something that blocks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ezpz.errors import EzpzError, Interrupted, LimitReached
from ezpz.process import GRACE, PIPE, STDERR_LINES, collected_signals, exit_status, signal_group, start

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from ezpz.process import Argument, Running, Signals

T = TypeVar("T")
PATIENCE = 3.0  # seconds that something which was cancelled waits for its thread
LINE_LIMIT = 1 << 24  # bytes; an agent's longest line
TO_END = (signal.SIGINT, signal.SIGTERM)


def run_until_signal(act: Coroutine[Any, Any, T], numbers: Iterable[int] = TO_END) -> T:
    """Run a coroutine in an event loop of its own and return its result; a signal cancels it.

    A signal handler that raises does so in whatever runs at that moment: within the work for one node, the exception
    would count as that node's failure. For the main thread only. Raises Interrupted when one of the signals came.
    """
    with collected_signals(numbers) as signals:
        return asyncio.run(_cancel_on_signal(act, signals))


async def _cancel_on_signal(act: Coroutine[Any, Any, T], signals: Signals) -> T:
    task = asyncio.ensure_future(act)
    came: list[int] = []

    def look() -> None:
        came.extend(signals.within(0.0))
        if came:
            task.cancel()

    loop = asyncio.get_running_loop()
    loop.add_reader(signals.fileno(), look)
    try:
        await asyncio.wait([task])
    finally:
        loop.remove_reader(signals.fileno())
    if came:
        raise Interrupted("interrupted", signal=came[0])
    return task.result()


async def all_of(acts: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of them return, in order. When this is cancelled, all of them are, and have ended before it ends."""
    tasks = [asyncio.ensure_future(act) for act in acts]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Work(threading.Thread, Generic[T]):
    """Something that blocks, and the future of what it returns or raises."""

    def __init__(self, act: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self.act = act
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()

    def run(self) -> None:
        with self:
            self._settle(self.future.set_result, self.act())

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self._settle(self.future.set_exception, error)
        return True  # it is raised again where the future is awaited

    def _settle(self, how: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended without us
            self.loop.call_soon_threadsafe(lambda: None if self.future.done() else how(value))


async def in_thread(act: Callable[[], T], give_up: Callable[[], object] = lambda: None) -> T:
    """Run `act`, which blocks, in a thread and return its result.

    When this is cancelled, it calls `give_up`, which should make `act` end soon, and waits `PATIENCE` seconds for that.
    On a filesystem that hangs `act` may never end; its thread does not keep the process from ending then.
    """
    work = _Work(act)
    work.start()
    try:
        return await asyncio.shield(work.future)
    except asyncio.CancelledError:
        give_up()
        work.future.add_done_callback(
            lambda future: future.cancelled() or future.exception()
        )  # of no interest any more
        await asyncio.wait([work.future], timeout=PATIENCE)
        raise


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
