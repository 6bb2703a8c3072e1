"""Relay: one end of each connection that a stream runs over: what comes from the parent, what goes to a child."""

import itertools
import socket
import threading
from typing import Any, Callable, Dict, Iterable, List, Optional

from ezpz.agent.common.cancel import Cancelled
from ezpz.agent.common.wire_paths import ProtocolError
from ezpz.agent.stream import frames
from ezpz.agent.stream.chunk_buffer import ChunkBuffer
from ezpz.agent.stream.connection import Connection, ProcessTunnel, connect, dial

BEAT_EVERY = 1.0  # seconds of silence after which a parent says that it is there
CONNECT_WITHIN = 5.0  # seconds

Say = Callable[[Dict[str, Any]], None]


def words(error: BaseException, otherwise: str) -> str:
    """Why a connection failed, without the number of the error."""
    return getattr(error, "strerror", None) or str(error) or otherwise


class Downstream:
    """Sends the stream to one child, from where the child says, until all of it is sent or `release` is called.

    serial: names this serving; to: where the child listens: name, address, port; detour: argv of a process that carries
    the connection when TCP does not, or instead of it when `direct` is False; say: is told how it went
    """

    def __init__(
        self, ring: ChunkBuffer, secret: bytes, me: str, serial: int, to: Dict[str, Any], stall: float, say: Say
    ) -> None:
        self.ring = ring
        self.secret = secret
        self.key = frames.derive(secret, "chunks")
        self.me = me
        self.serial = serial
        self.to = to
        self.stall = stall
        self.say = say
        self.released = False
        self.link: "Optional[Connection]" = None
        self.detour: "Optional[ProcessTunnel]" = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stop at once."""
        self.released = True
        if self.link is not None:
            self.link.close()
        if self.detour is not None:
            self.detour.close()

    def _run(self) -> None:
        how, why = "", ""
        try:
            link, how = self._dial()
        except (OSError, EOFError, frames.FrameError) as e:
            self._report("refused", words(e, "the connection was closed"))
            self.release()
            return
        self.link = link
        try:
            self.say({"stream": "serving", "serial": self.serial, "how": how})
            self._send_all(link)
        except (OSError, ProtocolError, frames.FrameError, ValueError) as e:
            why = words(e, type(e).__name__)
        except Cancelled:
            self.released = True
        finally:
            self.ring.leave(self)
            link.close()
            if self.detour is not None:
                self.detour.close()
        if why:
            self._report("lost", why)

    def _report(self, what: str, why: str) -> None:
        if not self.released:
            self.say({"stream": what, "serial": self.serial, "why": why})

    def _dial(self) -> Any:
        """A Link to the child, and how it was made."""
        facts = {"role": "stream", "from": self.me, "to": self.to["name"], "serial": self.serial}
        detour: "Optional[List[str]]" = self.to.get("detour")
        if self.to.get("direct", True):
            try:
                return dial(connect(self.to["address"], self.to["port"], CONNECT_WITHIN), self.secret, facts), "tcp"
            except (OSError, EOFError, frames.FrameError):
                if not detour:
                    raise
        if self.released or not detour:
            raise OSError("there is no way to {}".format(self.to["name"]))
        self.detour = ProcessTunnel(detour)
        if self.released:  # meanwhile, so that nobody else closes it
            self.detour.close()
            raise OSError("the run has ended")
        return dial(self.detour.sock, self.secret, facts), "ssh"

    def _send_all(self, link: Connection) -> None:
        link.limit(self.stall)
        chunks = frames.numbers_of(link.facts)
        numbers: "Iterable[int]" = chunks or itertools.count(int(link.facts.get("position", 0)))
        beat = frames.encode_frame(self.key, frames.BEAT, 0, b"")
        for number in numbers:
            frame = self.ring.get(number, self, BEAT_EVERY)
            while frame is None and not self.released:
                link.send(beat)
                frame = self.ring.get(number, self, BEAT_EVERY)
            if not frame or self.released:
                break
            link.send(frame)
        if not self.released:
            link.send(frames.encode_frame(self.key, frames.END, self.ring.total or 0, b""))
            self._see_off(link)

    def _see_off(self, link: Connection) -> None:
        """Wait until the child has closed its end, so that nothing on the way is lost."""
        try:
            link.sock.shutdown(socket.SHUT_WR)
            link.sock.recv(1)
        except OSError:
            pass


class Upstream:
    """Receives the stream from whoever is expected to send it, for as long as something is missing.

    take: is given each chunk that is wanted
    """

    def __init__(
        self, ring: ChunkBuffer, key: bytes, stall: float, take: Callable[[frames.Frame], None], say: Say
    ) -> None:
        self.ring = ring
        self.key = key
        self.stall = stall
        self.take = take
        self.say = say
        self.parent = ""
        self.serial = -1
        self.chunks: "List[int]" = []
        self.link: "Optional[Connection]" = None
        self._lock = threading.Lock()

    def expect(self, parent: str, serial: int, chunks: List[int]) -> None:
        """From now on `parent` sends: what is missing, or these chunks again."""
        with self._lock:
            self.parent, self.serial, self.chunks = parent, serial, chunks
            link, self.link = self.link, None
        if link is not None:
            link.close()

    def answer(self, facts: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        """What to say to who dials: from where on the stream is wanted; None to a peer that is not expected."""
        with self._lock:
            if facts.get("from") != self.parent or facts.get("serial") != self.serial or self.link is not None:
                return None
            return {"position": self.ring.next, "chunks": self.chunks}

    def receive(self, link: Connection) -> None:
        """Take what comes, to the end."""
        with self._lock:
            serial, wanted = self.serial, set(self.chunks)
            if link.facts.get("serial") != serial:
                link.close()
                return
            self.link = link
        why = ""
        try:
            link.limit(self.stall)
            self._take_all(link, wanted)
        except socket.timeout:
            why = "nothing came for {:g} s".format(self.stall)
        except (OSError, EOFError, frames.FrameError, Cancelled) as e:
            why = words(e, "the connection broke")
        link.close()
        with self._lock:
            current = serial == self.serial
            if current:
                self.link = None
        if why and current and not self.ring.cancel.is_cancelled:
            self.say({"stream": "cut", "serial": serial, "why": why})

    def _take_all(self, link: Connection, wanted: "set[int]") -> None:
        repairing = bool(wanted)
        while True:
            frame = frames.read_frame(link.fill, self.key)
            if frame.kind == frames.END:
                self.ring.end(frame.number)
                return
            if frame.kind != frames.CHUNK:
                continue
            if repairing:
                if frame.number not in wanted:
                    raise frames.FrameError("a chunk that nobody asked for")
                wanted.discard(frame.number)
            elif frame.number != self.ring.next:
                raise frames.FrameError("chunk {} instead of {}".format(frame.number, self.ring.next))
            else:
                self.ring.put(frame.number, frame.raw)
            self.take(frame)
