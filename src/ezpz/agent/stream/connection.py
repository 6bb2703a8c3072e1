"""Authenticated connections between two hosts of a run, over TCP or through ssh.

The end that dials sends the stream; the end that listens says from where it is needed. Both prove that they know the
secret of the run, for this connection only. See docs/explanation/stream.md.
"""

import os
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

from . import frames

HANDSHAKE_TIMEOUT = 5.0  # seconds
LOW_WATER = 16 << 10  # bytes that wake a thread; well below the smallest window
TICK = 1  # seconds after which it checks without being woken
MAX_UNAUTHENTICATED = 16  # connections before their proof; the oldest is dropped if there are more


class Connection:
    """One authenticated connection; `facts` is what the other end says of itself."""

    def __init__(self, sock: socket.socket, facts: Dict[str, Any], nonces: bytes) -> None:
        self.sock = sock
        self.facts = facts
        self.nonces = nonces
        self.timeout = 0.0
        self._low = 1

    def limit(self, seconds: float) -> None:
        """Set after how many seconds of silence receiving and sending raise `socket.timeout`; 0 for never.

        These are the kernel's limits (socket(7), SO_RCVTIMEO): Python's cost a system call for each packet.
        """
        self.timeout = seconds
        self.sock.settimeout(None)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", TICK, 0))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), 0))

    def fill(self, view: memoryview) -> None:
        """Fill a buffer, woken as rarely as possible. Raise EOFError at the end, or OSError."""
        left = len(view)
        began = time.monotonic()
        while left:
            wanted = left - LOW_WATER if left > LOW_WATER else left
            self._wake_at(min(left, LOW_WATER))
            try:
                count = self.sock.recv_into(view[len(view) - left :], wanted, socket.MSG_WAITALL)
            except BlockingIOError:
                if self.timeout and time.monotonic() - began > self.timeout:
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
        """Send all of some data. Raise OSError."""
        try:
            self.sock.sendall(data)
        except BlockingIOError:
            raise socket.timeout("it took nothing for {:g} s".format(self.timeout))

    def close(self) -> None:
        """Close the connection."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


def recv_exactly(sock: socket.socket, view: memoryview) -> None:
    """Fill a buffer from a socket. Raise EOFError at the end, or OSError."""
    got = 0
    while got < len(view):
        count = sock.recv_into(view[got:])
        if count == 0:
            raise EOFError
        got += count


class Listener:
    """Accepts connections on one address from peers that know the secret and are expected."""

    def __init__(
        self,
        address: str,
        secret: bytes,
        answer: Callable[[Dict[str, Any]], Optional[Dict[str, Any]]],
        on_connection: Callable[[Connection], None],
    ) -> None:
        """Listen. Raise OSError.

        Args:
            address: of this host
            secret: of the run
            answer: returns what a peer is told, given what it says of itself, or None to reject it
            on_connection: is called in a thread of its own with each connection
        """
        self.secret = secret
        self.answer = answer
        self.on_connection = on_connection
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self.sock.bind((address, 0))
            self.sock.listen(MAX_UNAUTHENTICATED)
        except OSError:
            self.sock.close()
            raise
        self.address = address
        self.port = self.sock.getsockname()[1]
        self._unauthenticated: "List[socket.socket]" = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
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
                self._unauthenticated.append(sock)
                oldest = self._unauthenticated.pop(0) if len(self._unauthenticated) > MAX_UNAUTHENTICATED else None
            if oldest is not None:
                oldest.close()
            threading.Thread(target=self._authenticate, args=(sock,), daemon=True).start()

    def _authenticate(self, sock: socket.socket) -> None:
        try:
            link = self._shake_hands(sock)
        except (OSError, EOFError, frames.FrameError):
            link = None
        with self._lock:
            if sock in self._unauthenticated:
                self._unauthenticated.remove(sock)
        if link is None:
            sock.close()
        else:
            self.on_connection(link)

    def _shake_hands(self, sock: socket.socket) -> Optional[Connection]:
        sock.settimeout(HANDSHAKE_TIMEOUT)
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
    """Authenticate this end of a connection, and the other one.

    Raises FrameError, EOFError, or OSError; then the connection is closed.
    """
    try:
        return _authenticated(sock, secret, facts)
    except (OSError, EOFError, frames.FrameError):
        sock.close()
        raise


def _authenticated(sock: socket.socket, secret: bytes, facts: Dict[str, Any]) -> Connection:
    sock.settimeout(HANDSHAKE_TIMEOUT)
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
    """Return a TCP connection. Raise OSError."""
    sock = socket.create_connection((address, port), timeout)
    tune(sock)
    return sock


class ProcessTunnel:
    """A connection whose bytes a process carries, such as `ssh -W`."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Start the process. Raise OSError."""
        self.sock, theirs = socket.socketpair()
        try:
            fd = theirs.fileno()
            self._process = subprocess.Popen(
                list(argv), stdin=fd, stdout=fd, stderr=subprocess.DEVNULL, start_new_session=True
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
    """Let a socket send small frames at once."""
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class MessageChannel:
    """A connection as a pair of binary files, whose bytes are sent in frames."""

    def __init__(self, link: Connection, secret: bytes, outgoing: str, incoming: str) -> None:
        """Take a connection, the secret of the run, and the labels of the keys of both directions."""
        self.link = link
        self._out = frames.derive(secret, outgoing, link.nonces)
        self._in = frames.derive(secret, incoming, link.nonces)
        self._sent = self._received = 0
        self._buffered = b""
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Send some bytes. Raise OSError."""
        with self._lock:
            for start in range(0, len(data), frames.LIMIT):
                piece = data[start : start + frames.LIMIT]
                self.link.send(frames.encode_frame(self._out, frames.MESSAGE, self._sent, piece))
                self._sent += 1

    def flush(self) -> None:
        """Do nothing, as nothing is held back."""

    def readline(self) -> bytes:
        """Return the next line, incomplete or b"" at the end."""
        while b"\n" not in self._buffered:
            more = self._more()
            if not more:
                line, self._buffered = self._buffered, b""
                return line
            self._buffered += more
        line, _, self._buffered = self._buffered.partition(b"\n")
        return line + b"\n"

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        while len(self._buffered) < size:
            more = self._more()
            if not more:
                break
            self._buffered += more
        data, self._buffered = self._buffered[:size], self._buffered[size:]
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
