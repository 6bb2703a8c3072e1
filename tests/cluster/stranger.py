"""A stranger who connects to an agent that listens: run by test_stream.py on a host.

It prints a line when it is ready, and takes one: the address and the port. Then it says what makes no sense, holds more
idle connections than a listener keeps, and prints a line again. After the end of stdin it prints what it got on each
connection, as hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys

IDLE = 40
PATIENCE = 8.0  # seconds; more than a listener has with a stranger
START = 37  # bytes that a listener says first
NONCE = os.urandom(32)


def hello(text: bytes, length: int | None = None) -> bytes:
    """What somebody says of himself who has no proof."""
    return NONCE + struct.pack(">H", len(text) if length is None else length) + text + bytes(32)


SAYINGS = {
    "garbage": NONCE + b"\xff" + os.urandom(200),
    "a request": b'{"id": 1, "op": "heartbeat"}\n' * 10,
    "a huge hello": hello(b"x" * 60_000, length=65_535),
    "a huge frame": NONCE + struct.pack(">BBHIQ", 1, 0, 0, 0xFFFFFFFF, 0) + bytes(100_000),
    "no facts": hello(b"{}"),
    "a parent": hello(b'{"role": "stream", "from": "n001", "to": "n002", "serial": 2}'),
    "whoever launched it": hello(b'{"role": "control", "from": "this host", "to": "n002"}'),
}
"""What is said on connections of their own; the listener has to end each of them."""


def connect(where: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(where, PATIENCE)
    sock.settimeout(PATIENCE)
    return sock


def heard(sock: socket.socket, most: int = 1 << 20) -> bytes:
    """What comes, up to so many bytes or the end."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while len(data) < most and (more := sock.recv(most - len(data))):
            data += more
    return data


def main() -> None:
    tell("ready")
    address, port = sys.stdin.readline().split()
    where = address, int(port)
    got: dict[str, str] = {}
    for what, saying in SAYINGS.items():
        with connect(where) as sock:
            start = heard(sock, START)
            with contextlib.suppress(ConnectionError):
                sock.sendall(saying)
            got[what] = (start + heard(sock)).hex()
    idle = [connect(where) for _ in range(IDLE)]
    starts = [heard(sock, START) for sock in idle]
    tell("said")
    sys.stdin.read()
    for number, (sock, start) in enumerate(zip(idle, starts, strict=True)):
        got[f"nothing, {number}"] = (start + heard(sock)).hex()
        sock.close()
    tell(json.dumps(got))


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
