"""Frames: what travels on a connection between two hosts of a run. Pure: bytes in, bytes out.

A frame is a header (kind, codec, flags, length, number), so many bytes of payload, and a keyed digest of both. Chunks
keep theirs from the root to the last node: whoever passes one on does not touch it. See docs/explanation/stream.md.
"""

import hashlib
import hmac
import json
import struct
from typing import Any, Callable, Dict, List, NamedTuple

CHUNK, END, BEAT, MESSAGE = 1, 2, 3, 4
KINDS = (CHUNK, END, BEAT, MESSAGE)
BARRIER = 1  # flag: all chunks before it have to be landed first, because it replaces some of them
HEADER = struct.Struct(">BBHIQ")
MAC = 32  # bytes: HMAC-SHA-256 (RFC 2104)
LIMIT = 1 << 20  # bytes of a payload
MAGIC = b"EZPZ1"
NONCE = 32  # bytes
HELLO_LIMIT = 4096  # bytes of a hello: what a stranger may make us read

Frame = NamedTuple(
    "Frame",
    [("kind", int), ("codec", int), ("flags", int), ("number", int), ("payload", memoryview), ("raw", bytearray)],
)
"""raw: the whole of it, as it was received and is passed on."""


class FrameError(Exception):
    """What arrived is no frame of this run: the connection is of no use any more."""


def derive(secret: bytes, label: str, *parts: bytes) -> bytes:
    """A key, or a proof, for one purpose from the run's secret; `parts` are of fixed length, but for the last."""
    return hmac.new(secret, label.encode() + b"\0" + b"".join(parts), hashlib.sha256).digest()


def encode_frame(key: bytes, kind: int, number: int, payload: bytes, codec: int = 0, flags: int = 0) -> bytes:
    """A frame, ready to be sent."""
    head = HEADER.pack(kind, codec, flags, len(payload), number)
    digest = hmac.new(key, head, hashlib.sha256)
    digest.update(payload)
    return b"".join((head, payload, digest.digest()))


def read_frame(fill: Callable[[memoryview], None], key: bytes) -> Frame:
    """The next frame; `fill` fills a buffer from the connection, or raises. Raises Broken."""
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
    """What one end says of itself, with the proof that it knows the secret and means this very connection."""
    text = json.dumps(facts).encode()
    return struct.pack(">H", len(text)) + text + derive(secret, label, nonces, text)


def read_hello(fill: Callable[[memoryview], None], secret: bytes, label: str, nonces: bytes) -> Dict[str, Any]:
    """What the other end says of itself. Raises Broken for a stranger."""
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
    """The chunks that a hello asks for. Raises Broken."""
    wanted = facts.get("chunks", [])
    if not isinstance(wanted, list) or not all(type(number) is int and number >= 0 for number in wanted):
        raise FrameError("no list of chunks")
    return wanted
