"""Links: an authenticated connection between two hosts of a run, over TCP or through ssh.

The end that dials sends the stream; the end that listens says from where on it wants it. Both prove that they know the
run's secret, for this very connection. See docs/explanation/stream.md.
"""

import os
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from typing import Any, Callable, Dict, List, Optional, Union

from ezpz.agent.stream import frames

HANDSHAKE = 5.0  # seconds that a stranger may take
LOW = 16 << 10  # bytes that should have come before a thread is woken; well below the smallest window
TICK = 1  # seconds after which it looks by itself
STRANGERS = 16  # connections that have not proved anything yet; the oldest goes when there are more


class Connection:
    """One connection whose other end is known; `facts` is what it says of itself."""

    def __init__(self, sock: socket.socket, facts: Dict[str, Any], nonces: bytes) -> None:
        self.sock = sock
        self.facts = facts
        self.nonces = nonces
        self.patience = 0.0
        self._low = 1

    def limit(self, seconds: float) -> None:
        """How long nothing may come, or be taken, before that is a `socket.timeout`; 0 for as long as it likes.

        The kernel's own limits (socket(7), SO_RCVTIMEO), because Python's cost a system call for each packet.
        """
        self.patience = seconds
        self.sock.settimeout(None)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", TICK, 0))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), 0))

    def fill(self, view: memoryview) -> None:
        """Fill a buffer, woken only for a good deal of it. Raises EOFError at the end, OSError."""
        left = len(view)
        began = time.monotonic()
        while left:
            wanted = left - LOW if left > LOW else left
            self._wake_at(min(left, LOW))
            try:
                count = self.sock.recv_into(view[len(view) - left :], wanted, socket.MSG_WAITALL)
            except BlockingIOError:
                if self.patience and time.monotonic() - began > self.patience:
                    raise socket.timeout("timed out")
                continue
            if count == 0:
                raise EOFError
            left -= count
            began = time.monotonic()

    def _wake_at(self, low: int) -> None:
        """Let this thread sleep until so many bytes have come (socket(7), SO_RCVLOWAT)."""
        if low != self._low:
            self._low = low
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low)

    def send(self, data: Union[bytes, bytearray]) -> None:
        """Send all of it. Raises OSError."""
        try:
            self.sock.sendall(data)
        except BlockingIOError:
            raise socket.timeout("it took nothing for {:g} s".format(self.patience))

    def close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


def recv_exactly(sock: socket.socket, view: memoryview) -> None:
    """Fill a buffer from a socket. Raises EOFError at the end, OSError."""
    got = 0
    while got < len(view):
        count = sock.recv_into(view[got:])
        if count == 0:
            raise EOFError
        got += count


class Listener:
    """Takes connections on one address; only who knows the secret and is expected gets past the handshake.

    arrived: is called in a thread of its own with each Link; answer: what we say to who dials, given what it said, None
    to turn it away
    """

    def __init__(
        self,
        address: str,
        secret: bytes,
        answer: Callable[[Dict[str, Any]], Optional[Dict[str, Any]]],
        arrived: Callable[[Connection], None],
    ) -> None:
        self.secret = secret
        self.answer = answer
        self.arrived = arrived
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self.sock.bind((address, 0))
            self.sock.listen(STRANGERS)
        except OSError:
            self.sock.close()
            raise
        self.address = address
        self.port = self.sock.getsockname()[1]
        self._strangers: "List[socket.socket]" = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            with self._lock:
                self._strangers.append(sock)
                oldest = self._strangers.pop(0) if len(self._strangers) > STRANGERS else None
            if oldest is not None:
                oldest.close()
            threading.Thread(target=self._meet, args=(sock,), daemon=True).start()

    def _meet(self, sock: socket.socket) -> None:
        try:
            link = self._shake(sock)
        except (OSError, EOFError, frames.FrameError):
            link = None
        with self._lock:
            if sock in self._strangers:
                self._strangers.remove(sock)
        if link is None:
            sock.close()
        else:
            self.arrived(link)

    def _shake(self, sock: socket.socket) -> Optional[Connection]:
        sock.settimeout(HANDSHAKE)
        ours = os.urandom(frames.NONCE)
        sock.sendall(frames.MAGIC + ours)
        theirs = bytearray(frames.NONCE)
        recv_exactly(sock, memoryview(theirs))
        nonces = ours + bytes(theirs)
        facts = frames.read_hello(lambda view: recv_exactly(sock, view), self.secret, "dial", nonces)
        answer = self.answer(facts)
        if answer is None:
            return None
        sock.sendall(frames.hello(self.secret, "answer", answer, nonces))
        tune(sock)
        return Connection(sock, facts, nonces)


def dial(sock: socket.socket, secret: bytes, facts: Dict[str, Any]) -> Connection:
    """Introduce ourselves on a connection that we have made; the Link has what the other end says.

    Raises Broken, EOFError, OSError; then the connection is closed.
    """
    try:
        return _introduced(sock, secret, facts)
    except (OSError, EOFError, frames.FrameError):
        sock.close()
        raise


def _introduced(sock: socket.socket, secret: bytes, facts: Dict[str, Any]) -> Connection:
    sock.settimeout(HANDSHAKE)
    start = bytearray(len(frames.MAGIC) + frames.NONCE)
    recv_exactly(sock, memoryview(start))
    if not start.startswith(frames.MAGIC):
        raise frames.FrameError("nobody of this run listens there")
    ours = os.urandom(frames.NONCE)
    nonces = bytes(start[len(frames.MAGIC) :]) + ours
    sock.sendall(ours + frames.hello(secret, "dial", facts, nonces))
    said = frames.read_hello(lambda view: recv_exactly(sock, view), secret, "answer", nonces)
    return Connection(sock, said, nonces)


def connect(address: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection. Raises OSError."""
    sock = socket.create_connection((address, port), timeout)
    tune(sock)
    return sock


class ProcessTunnel:
    """A connection whose bytes a process carries, such as `ssh -W`. Raises OSError."""

    def __init__(self, argv: List[str]) -> None:
        self.sock, theirs = socket.socketpair()
        try:
            fd = theirs.fileno()
            self._process = subprocess.Popen(
                argv, stdin=fd, stdout=fd, stderr=subprocess.DEVNULL, start_new_session=True
            )
        except OSError:
            self.sock.close()
            raise
        finally:
            theirs.close()

    def close(self) -> None:
        """End the process."""
        self.sock.close()
        self._process.kill()
        self._process.wait()


def tune(sock: socket.socket) -> None:
    """Send small frames at once."""
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class MessageChannel:
    """A Link as the two ends of a line: what is written to it is framed, what is framed is read from it.

    outgoing, incoming: the labels of the keys of both directions
    """

    def __init__(self, link: Connection, secret: bytes, outgoing: str, incoming: str) -> None:
        self.link = link
        self._out = frames.derive(secret, outgoing, link.nonces)
        self._in = frames.derive(secret, incoming, link.nonces)
        self._sent = self._received = 0
        self._heard = b""
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        with self._lock:
            for start in range(0, len(data), frames.LIMIT):
                piece = data[start : start + frames.LIMIT]
                self.link.send(frames.encode_frame(self._out, frames.MESSAGE, self._sent, piece))
                self._sent += 1

    def flush(self) -> None:
        """Nothing is held back."""

    def readline(self) -> bytes:
        while b"\n" not in self._heard:
            more = self._more()
            if not more:
                line, self._heard = self._heard, b""
                return line
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return line + b"\n"

    def read(self, size: int) -> bytes:
        while len(self._heard) < size:
            more = self._more()
            if not more:
                break
            self._heard += more
        data, self._heard = self._heard[:size], self._heard[size:]
        return data

    def _more(self) -> bytes:
        try:
            frame = frames.read_frame(self.link.fill, self._in)
        except (EOFError, OSError, frames.FrameError):
            return b""
        if frame.kind != frames.MESSAGE or frame.number != self._received:
            return b""
        self._received += 1
        return bytes(frame.payload)
