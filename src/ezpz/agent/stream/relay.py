"""The two ends of a connection that a stream runs over: from the parent, and to a child."""

import itertools
import socket
import threading
from typing import Any, Callable, Dict, Iterable, Optional, Sequence, Set, Tuple

from ..common.cancel import Cancelled
from ..common.messages import events
from ..common.messages.parts import PeerAddress
from ..common.wire_paths import ProtocolError
from . import frames
from .chunk_buffer import ChunkBuffer
from .connection import Connection, ProcessTunnel, connect, dial

BEAT_INTERVAL = 1.0  # seconds of silence after which a parent sends a heartbeat
CONNECT_TIMEOUT = 5.0  # seconds

Emit = Callable[[events.Event], None]


def reason_of(error: BaseException, otherwise: str) -> str:
    """Return why a connection failed, without the number of the error."""
    return getattr(error, "strerror", None) or str(error) or otherwise


class Downstream:
    """Sends the stream to one child, from where the child says, until all of it is sent or `release` is called."""

    def __init__(
        self, buffer: ChunkBuffer, secret: bytes, me: str, serial: int, to: PeerAddress, stall: float, emit: Emit
    ) -> None:
        """Start to connect and to send, in a thread.

        Args:
            buffer: the chunks
            secret: of the run
            me: the name of this host
            serial: identifies this connection
            to: where the child listens
            stall: seconds after which a child that takes nothing is lost
            emit: is told how it went
        """
        self.buffer = buffer
        self.secret = secret
        self.key = frames.derive(secret, "chunks")
        self.me = me
        self.serial = serial
        self.to = to
        self.stall = stall
        self.emit = emit
        self.is_released = False
        self.link: "Optional[Connection]" = None
        self.tunnel: "Optional[ProcessTunnel]" = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stop at once."""
        self.is_released = True
        if self.link is not None:
            self.link.close()
        if self.tunnel is not None:
            self.tunnel.close()

    def _run(self) -> None:
        try:
            link, how = self._dial()
        except (OSError, EOFError, frames.FrameError) as e:
            self._report(events.RefusedEvent, reason_of(e, "the connection was closed"))
            self.release()
            return
        self.link = link
        why = ""
        try:
            self.emit(events.ServingEvent(serial=self.serial, how=how))
            self._send_all(link)
        except (OSError, ProtocolError, frames.FrameError, ValueError) as e:
            why = reason_of(e, type(e).__name__)
        except Cancelled:
            self.is_released = True
        finally:
            self.buffer.leave(self)
            link.close()
            if self.tunnel is not None:
                self.tunnel.close()
        if why:
            self._report(events.LostEvent, why)

    def _report(self, kind: Any, why: str) -> None:
        if not self.is_released:
            self.emit(kind(serial=self.serial, why=why))

    def _dial(self) -> "Tuple[Connection, str]":
        """Return a connection to the child, and how it was made: "tcp" or "ssh". Raise an error of `dial`."""
        facts = {"role": "stream", "from": self.me, "to": self.to.name, "serial": self.serial}
        if self.to.direct:
            try:
                return dial(connect(self.to.address, self.to.port, CONNECT_TIMEOUT), self.secret, facts), "tcp"
            except (OSError, EOFError, frames.FrameError):
                if not self.to.detour:
                    raise
        if self.is_released or not self.to.detour:
            raise OSError("there is no way to {}".format(self.to.name))
        self.tunnel = ProcessTunnel(self.to.detour)
        if self.is_released:  # meanwhile, so that `release` has not closed it
            self.tunnel.close()
            raise OSError("the run has ended")
        return dial(self.tunnel.sock, self.secret, facts), "ssh"

    def _send_all(self, link: Connection) -> None:
        link.limit(self.stall)
        chunks = frames.numbers_of(link.facts)
        numbers: "Iterable[int]" = chunks or itertools.count(int(link.facts.get("position", 0)))
        beat = frames.encode_frame(self.key, frames.BEAT, 0, b"")
        for number in numbers:
            frame = self.buffer.get(number, self, BEAT_INTERVAL)
            while frame is None and not self.is_released:
                link.send(beat)
                frame = self.buffer.get(number, self, BEAT_INTERVAL)
            if not frame or self.is_released:
                break
            link.send(frame)
        if not self.is_released:
            link.send(frames.encode_frame(self.key, frames.END, self.buffer.total or 0, b""))
            self._wait_for_end(link)

    def _wait_for_end(self, link: Connection) -> None:
        """Wait until the child has closed its end, so that nothing on the way is lost."""
        try:
            link.sock.shutdown(socket.SHUT_WR)
            link.sock.recv(1)
        except OSError:
            pass


class Upstream:
    """Receives the stream from the parent that is expected, as long as something is missing."""

    def __init__(
        self, buffer: ChunkBuffer, key: bytes, stall: float, on_chunk: Callable[[frames.Frame], None], emit: Emit
    ) -> None:
        """Wait for a parent.

        Args:
            buffer: takes the chunks
            key: of the digests of chunks
            stall: seconds without a byte after which a parent is lost
            on_chunk: takes each chunk that is wanted
            emit: is told when a connection breaks
        """
        self.buffer = buffer
        self.key = key
        self.stall = stall
        self.on_chunk = on_chunk
        self.emit = emit
        self.parent = ""
        self.serial = -1
        self.chunks: "Sequence[int]" = ()
        self.link: "Optional[Connection]" = None
        self._lock = threading.Lock()

    def expect(self, parent: str, serial: int, chunks: "Sequence[int]") -> None:
        """Expect a parent that sends what is missing, or these chunks again; close any other connection."""
        with self._lock:
            self.parent, self.serial, self.chunks = parent, serial, chunks
            link, self.link = self.link, None
        if link is not None:
            link.close()

    def answer(self, facts: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        """Answer a connecting peer: the first chunk that is needed, or None to reject a peer that is not expected."""
        with self._lock:
            if facts.get("from") != self.parent or facts.get("serial") != self.serial or self.link is not None:
                return None
            return {"position": self.buffer.next, "chunks": list(self.chunks)}

    def receive(self, link: Connection) -> None:
        """Receive until the end of a connection."""
        with self._lock:
            serial, wanted = self.serial, set(self.chunks)
            if link.facts.get("serial") != serial:
                link.close()
                return
            self.link = link
        why = ""
        try:
            link.limit(self.stall)
            self._receive_all(link, wanted)
        except socket.timeout:
            why = "nothing came for {:g} s".format(self.stall)
        except (OSError, EOFError, frames.FrameError, Cancelled) as e:
            why = reason_of(e, "the connection broke")
        link.close()
        with self._lock:
            current = serial == self.serial
            if current:
                self.link = None
        if why and current and not self.buffer.cancel.is_cancelled:
            self.emit(events.CutEvent(serial=serial, why=why))

    def _receive_all(self, link: Connection, wanted: "Set[int]") -> None:
        repairing = bool(wanted)
        while True:
            frame = frames.read_frame(link.fill, self.key)
            if frame.kind == frames.END:
                self.buffer.end(frame.number)
                return
            if frame.kind != frames.CHUNK:
                continue
            if repairing:
                if frame.number not in wanted:
                    raise frames.FrameError("a chunk that nobody asked for")
                wanted.discard(frame.number)
            elif frame.number != self.buffer.next:
                raise frames.FrameError("chunk {} instead of {}".format(frame.number, self.buffer.next))
            else:
                self.buffer.put(frame.number, frame.raw)
            self.on_chunk(frame)
