"""The part of one node in a stream: it receives, writes, and forwards."""

import os
import threading
import time
from typing import Any, Callable, Dict, Optional, Set

from ..common.cancel import NEVER, CancelToken, ProgressToken
from ..common.errors import AgentError, from_os_error
from ..common.messages import events
from ..common.messages.envelope import Failing
from ..common.messages.parts import PeerAddress
from ..common.messages.requests import ExpectRequest, ListeningRequest, ServeRequest
from ..destination.deployment import Deployment
from . import frames
from .chunk_buffer import ChunkBuffer
from .chunk_index import ChunkIndex
from .codec import Codec, keep_memory
from .connection import Connection, Listener
from .relay import Downstream, Emit, Upstream
from .tree_writer import TreeWriter

POSITION_INTERVAL = 0.25  # seconds between two reports of how far it is
ADVANCED_INTERVAL = 1.0  # seconds between two reports of progress that writes nothing
LOG = b"log"  # in staging


class StreamReceiver:
    """Listens from the start; `join` once the destination is prepared; then `expect` a parent and `serve` children."""

    def __init__(
        self, request: ListeningRequest, name: str, address: str, control: Callable[[Connection], None], emit: Emit
    ) -> None:
        """Open the listener. Raise OSError.

        Args:
            request: the secret, and how long a connection may be silent
            name: of this node
            address: to listen on
            control: takes the connection of the launch host
            emit: sends an event to the launch host
        """
        self.name = name
        self.secret = bytes.fromhex(request.secret)
        self.stall = request.stall
        self.emit = emit
        self.control = control
        keep_memory()
        self.codec = Codec()
        self.joined: "Optional[_Joined]" = None
        self.children: "Dict[int, Downstream]" = {}
        self.repairs: "Set[int]" = set()
        self.failure: "Optional[BaseException]" = None
        self.content = 0
        self._position_reported = 0.0
        self._advanced_reported = 0.0
        self._lock = threading.Lock()
        self.listener = Listener(address, self.secret, self._answer, self._on_connection)

    @property
    def where(self) -> PeerAddress:
        """How others connect to this node."""
        return PeerAddress(
            name=self.name, address=self.listener.address, port=self.listener.port, codec=self.codec.best
        )

    def join(self, landing: Deployment) -> None:
        """Take part with a destination that is prepared. Raise OSError."""
        self.joined = _Joined(self, landing)

    def _members(self) -> "_Joined":
        if self.joined is None:
            raise AgentError("error", "agent: it has not joined")
        return self.joined

    def expect(self, request: ExpectRequest) -> None:
        """Expect a parent to connect and to send what is missing, or these chunks again."""
        upstream = self._members().upstream
        self.repairs = set(request.chunks)
        upstream.expect(request.parent, request.serial, request.chunks)

    def serve(self, request: ServeRequest) -> None:
        """Send to a child."""
        self.children[request.serial] = Downstream(
            self._members().buffer, self.secret, self.name, request.serial, request.to, self.stall, self.emit
        )

    def release(self, serial: int) -> None:
        """Stop sending to a child."""
        child = self.children.pop(serial, None)
        if child is not None:
            child.release()

    def wait_until_written(self, cancel: CancelToken) -> None:
        """Wait until all of it is written and is what was sent; request what is damaged again. Raise AgentError."""
        writer = self._members().writer
        checking = ProgressToken(cancel, self.report_advanced)
        while True:
            self._wait(cancel)
            writer.staged.finish(checking)
            damaged = writer.find_damaged(checking)
            if not damaged:
                self.emit(events.ReceivedEvent())
                return
            writer.staged.make_writable()
            self.repairs = set(damaged)
            self.emit(events.DamagedEvent(chunks=damaged))

    def report_advanced(self) -> None:
        """Report progress that writes nothing, such as reading back; may be called as often as there is some."""
        now = time.monotonic()
        with self._lock:
            due = now - self._advanced_reported > ADVANCED_INTERVAL
            if due:
                self._advanced_reported = now
        if due:
            self.emit(events.AdvancedEvent())

    def close(self) -> None:
        """Close every connection and end every thread: nothing is written any more, unless a disk hangs."""
        self.listener.close()
        for child in list(self.children.values()):
            child.release()
        if self.joined is not None:
            self.joined.close()

    def _wait(self, cancel: CancelToken) -> None:
        buffer = self._members().buffer
        while not (buffer.is_written and not self.repairs):
            cancel.raise_if_cancelled()
            if self.failure is not None:
                raise _agent_error(self.failure)
            with buffer.changed:
                buffer.changed.wait(0.2)

    def _answer(self, facts: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        if facts.get("to") != self.name:
            return None
        if facts.get("role") == "control":
            return {"name": self.name}
        return None if self.joined is None else self.joined.upstream.answer(facts)

    def _on_connection(self, link: Connection) -> None:
        if link.facts.get("role") == "control":
            link.limit(0)
            self.control(link)
        elif self.joined is not None:
            self.joined.upstream.receive(link)

    def on_written(self, buffer: ChunkBuffer, number: int, size: int) -> None:
        """Note that a chunk with so many bytes of content is on the disk, and report how far it is."""
        buffer.mark_written(number)
        with self._lock:
            self.content += 0 if number in self.repairs else size
            self.repairs.discard(number)
            now = time.monotonic()
            due = now - self._position_reported > POSITION_INTERVAL or buffer.is_written
            if due:
                self._position_reported = now
        if due:
            self.emit(events.PositionEvent(position=buffer.next, wire=buffer.wire, content=self.content, time=now))

    def on_failure(self, buffer: ChunkBuffer, error: BaseException) -> None:
        """Report that nothing more can be written."""
        self.failure = error
        self.emit(events.FailedEvent(failure=Failing(**_agent_error(error).as_dict())))
        buffer.cancel_all()


class _Joined:
    """What a node takes part with: the buffer, the writer, and the connection from the parent."""

    def __init__(self, receiver: StreamReceiver, landing: Deployment) -> None:
        """Open staging. Raise OSError."""
        key = frames.derive(receiver.secret, "chunks")
        path = os.path.join(landing.staging, LOG)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        tree = os.open(landing.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        index = ChunkIndex(file, receiver.codec, key, self._read)
        self.buffer = buffer = ChunkBuffer(index.rebuild_frame)
        self.writer = TreeWriter(
            tree,
            landing.open_installed(),
            index,
            receiver.codec,
            lambda number, size: receiver.on_written(buffer, number, size),
            lambda error: receiver.on_failure(buffer, error),
            cancel=ProgressToken(NEVER, receiver.report_advanced),
        )
        self.upstream = Upstream(buffer, key, receiver.stall, self.writer.put, receiver.emit)

    def _read(self, path: bytes, offset: int, length: int) -> bytes:
        return self.writer.staged.read(path, offset, length)

    def close(self) -> None:
        """End every thread."""
        self.buffer.cancel_all()
        self.upstream.expect("", -1, [])
        self.writer.stop()
        self.writer.join()


def _agent_error(error: BaseException) -> AgentError:
    """Return what a failure to write means to a user."""
    if isinstance(error, OSError):
        return from_os_error(error, "cannot land '{}'".format(_name_of(error)))
    return AgentError("verify-failed", "what arrived cannot be landed: {}".format(error), "run it again")


def _name_of(error: OSError) -> str:
    name = error.filename
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name or "the stream")
