"""Frames on a connection between two hosts of a run. Pure: bytes in, bytes out.

A frame is a header (kind, codec, flags, length, number), the payload, and a keyed digest of both. A chunk keeps its
digest from the root to the last node: hosts forward it as it is. See docs/explanation/stream.md.
"""

import hashlib
import hmac
import json
import struct
from typing import Any, Callable, Dict, List, NamedTuple

CHUNK, END, BEAT, MESSAGE = 1, 2, 3, 4
KINDS = (CHUNK, END, BEAT, MESSAGE)
BARRIER = 1  # flag: all chunks before it have to be written first, because it replaces some of them
HEADER = struct.Struct(">BBHIQ")
MAC = 32  # bytes: HMAC-SHA-256 (RFC 2104)
LIMIT = 1 << 20  # bytes of a payload
MAGIC = b"EZPZ1"
NONCE = 32  # bytes
HELLO_LIMIT = 4096  # bytes of a hello: an unauthenticated peer can make us read no more

Frame = NamedTuple(
    "Frame",
    [("kind", int), ("codec", int), ("flags", int), ("number", int), ("payload", memoryview), ("raw", bytearray)],
)
"""raw: the complete frame, as it was received and is forwarded."""


class FrameError(Exception):
    """Bytes that are no frame of this run: the connection is of no use any more."""


def derive(secret: bytes, label: str, *parts: bytes) -> bytes:
    """Return a key, or a proof, for one purpose; all `parts` but the last are of fixed length."""
    return hmac.new(secret, label.encode() + b"\0" + b"".join(parts), hashlib.sha256).digest()


def encode_frame(key: bytes, kind: int, number: int, payload: bytes, codec: int = 0, flags: int = 0) -> bytes:
    """Return a frame as it is sent."""
    head = HEADER.pack(kind, codec, flags, len(payload), number)
    digest = hmac.new(key, head, hashlib.sha256)
    digest.update(payload)
    return b"".join((head, payload, digest.digest()))


def read_frame(fill: Callable[[memoryview], None], key: bytes) -> Frame:
    """Return the next frame; `fill` fills a buffer from the connection, or raises. Raise FrameError."""
    head = bytearray(HEADER.size)
    fill(memoryview(head))
    kind, codec, flags, length, number = HEADER.unpack(head)
    if kind not in KINDS or length > LIMIT:
        raise FrameError("no frame: kind {}, {} bytes".format(kind, length))
    raw = bytearray(HEADER.size + length + MAC)
    raw[: HEADER.size] = head
    view = memoryview(raw)
    fill(view[HEADER.size :])
    digest = hmac.new(key, view[:-MAC], hashlib.sha256).digest()
    if not hmac.compare_digest(digest, bytes(view[-MAC:])):
        raise FrameError("a frame's digest is wrong: kind {}, number {}".format(kind, number))
    return Frame(kind, codec, flags, number, view[HEADER.size : -MAC], raw)


def hello(secret: bytes, label: str, facts: Dict[str, Any], nonces: bytes) -> bytes:
    """Return what one end says of itself, with the proof that it knows the secret, for this connection only."""
    text = json.dumps(facts).encode()
    return struct.pack(">H", len(text)) + text + derive(secret, label, nonces, text)


def read_hello(fill: Callable[[memoryview], None], secret: bytes, label: str, nonces: bytes) -> Dict[str, Any]:
    """Return what the other end says of itself. Raise FrameError if it does not know the secret."""
    size = bytearray(2)
    fill(memoryview(size))
    length = struct.unpack(">H", size)[0]
    if length > HELLO_LIMIT:
        raise FrameError("no hello: {} bytes".format(length))
    text = bytearray(length + MAC)
    fill(memoryview(text))
    said, proof = bytes(text[:length]), bytes(text[length:])
    if not hmac.compare_digest(derive(secret, label, nonces, said), proof):
        raise FrameError("a stranger, or a connection that was recorded")
    try:
        facts = json.loads(said.decode())
    except ValueError:
        raise FrameError("no hello")
    if not isinstance(facts, dict):
        raise FrameError("no hello")
    return facts


def numbers_of(facts: Dict[str, Any]) -> List[int]:
    """Return the chunks that a hello requests. Raise FrameError."""
    wanted = facts.get("chunks", [])
    if not isinstance(wanted, list) or not all(type(number) is int and number >= 0 for number in wanted):
        raise FrameError("no list of chunks")
    return wanted
