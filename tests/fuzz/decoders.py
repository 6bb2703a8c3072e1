"""The decoders that are fuzzed, valid input for each, and a mutator of bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ezpz.agent import spawner
from ezpz.agent.common import wire_paths
from ezpz.agent.common.zstd import CorruptData
from ezpz.agent.stream import chunks, frames
from ezpz.agent.stream.chunk_entry import ChunkEntry
from ezpz.agent.stream.codec import PLAIN, ZSTD, Codec

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

KEY, NONCES = b"k" * 32, b"n" * 64
REFUSALS = (frames.FrameError, wire_paths.ProtocolError, CorruptData, EOFError)
CODEC = Codec()
LISTED = [
    ChunkEntry("d", b"a", 0o755, 1),
    ChunkEntry("f", b"a/b", 0o644, 2, 5, "0" * 64, 0, 5),
    ChunkEntry("l", b"c", mtime_ns=3, target=b"a/b"),
    ChunkEntry("h", b"d", target=b"a/b"),
    ChunkEntry("k", b"e", 0o644, 2, 5, "0" * 64, target=b"old", target_mtime_ns=4),
    ChunkEntry("x", b"f"),
]


@dataclass(frozen=True)
class Decoder:
    """What takes bytes, and an input that it takes."""

    name: str
    decode: Callable[[bytes], object]
    valid: bytes


class Source:
    """Fills buffers from bytes, and notes the largest that was wanted."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.largest = 0

    def __call__(self, view: memoryview) -> None:
        self.largest = max(self.largest, len(view))
        if len(self.data) < len(view):
            raise EOFError
        view[:] = self.data[: len(view)]
        self.data = self.data[len(view) :]


def _frame(data: bytes) -> object:
    source = Source(data)
    found = frames.read_frame(source, KEY)
    assert source.largest <= frames.LIMIT + frames.MAC
    return found


def _hello(data: bytes) -> object:
    source = Source(data)
    found = frames.numbers_of(frames.read_hello(source, KEY, "dial", NONCES))
    assert source.largest <= frames.HELLO_LIMIT + frames.MAC
    return found


def _chunk(data: bytes, codec: int = ZSTD) -> object:
    kind, listed, content = chunks.split(memoryview(data))
    entries = chunks.parse_list(listed, kind, CODEC)
    assert not any(entry.path.startswith(b"/") for entry in entries)
    return entries, chunks.unpack_content(content, codec, CODEC)


DECODERS = (
    Decoder("read_frame", _frame, frames.encode_frame(KEY, frames.CHUNK, 7, b"payload" * 9, 2, 1)),
    Decoder("read_hello", _hello, frames.hello(KEY, "dial", {"role": "stream", "chunks": [1, 2]}, NONCES)),
    Decoder("chunk", _chunk, chunks.pack(LISTED, b"hello" * 99, CODEC, ZSTD, 1)[1]),
    Decoder("plain chunk", partial(_chunk, codec=PLAIN), chunks.pack(LISTED, b"hello", CODEC, PLAIN, 1)[1]),
    Decoder("parse_address", spawner.parse_address, json.dumps({"id": 1, "result": {"port": 1}}).encode()),
)


def broken_by(decoder: Decoder, rng: random.Random) -> tuple[bytes, Exception | None]:
    """One mutated input, and what the decoder raised for it that it should not."""
    data = mutated(decoder.valid, rng)
    try:
        decoder.decode(data)
    except REFUSALS:
        return data, None
    except Exception as e:  # noqa: BLE001 - which is what is looked for
        return data, e
    return data, None


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The same with a few bytes changed, removed, repeated or added."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(found) + 1)
        what = rng.randrange(5)
        if what == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del found[at : at + rng.randint(1, 8)]
        elif what == 2:
            found[at:at] = rng.randbytes(rng.randint(1, 8))
        elif what == 3:
            found[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
        else:
            found[at:at] = found[max(0, at - 8) : at] * rng.randint(1, 3)
    return bytes(found)
