"""Frames: what is sent is what is read, and nothing else is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common import wire_paths
from ezpz.agent.common.zstd import CorruptData
from ezpz.agent.stream import chunks, frames
from ezpz.agent.stream.chunk_entry import ChunkEntry
from ezpz.agent.stream.codec import PLAIN, ZLIB, ZSTD, Codec
from tests.fuzz.decoders import DECODERS, KEY, NONCES, Source, broken_by


@given(st.sampled_from(frames.KINDS), st.integers(0, 2**64 - 1), st.binary(max_size=2000), st.integers(0, 2))
def test_a_frame_is_read_as_it_was_sealed(kind: int, number: int, payload: bytes, codec: int) -> None:
    raw = frames.encode_frame(KEY, kind, number, payload, codec, frames.BARRIER)
    frame = frames.read_frame(Source(raw), KEY)
    assert (frame.kind, frame.number, bytes(frame.payload), frame.codec, frame.flags) == (
        kind,
        number,
        payload,
        codec,
        1,
    )
    assert bytes(frame.raw) == raw


def test_every_single_flipped_bit_is_noticed() -> None:
    raw = frames.encode_frame(KEY, frames.CHUNK, 3, b"some payload")
    for bit in range(8 * len(raw)):
        bad = bytearray(raw)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises((frames.FrameError, EOFError)):
            frames.read_frame(Source(bytes(bad)), KEY)


def test_a_huge_frame_is_refused_before_room_is_made_for_it() -> None:
    source = Source(frames.HEADER.pack(frames.CHUNK, 0, 0, frames.LIMIT + 1, 0) + bytes(1000))
    with pytest.raises(frames.FrameError):
        frames.read_frame(source, KEY)
    assert source.largest == frames.HEADER.size


@pytest.mark.parametrize(
    ("key", "label", "nonces"), [(b"x" * 32, "dial", NONCES), (KEY, "answer", NONCES), (KEY, "dial", b"m" * 64)]
)
def test_a_hello_counts_for_its_run_its_end_and_its_connection(key: bytes, label: str, nonces: bytes) -> None:
    said = frames.hello(KEY, "dial", {"from": "n001"}, NONCES)
    assert frames.read_hello(Source(said), KEY, "dial", NONCES) == {"from": "n001"}
    with pytest.raises(frames.FrameError):
        frames.read_hello(Source(said), key, label, nonces)


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_whatever_is_mutated_is_taken_or_refused(decoder: object) -> None:
    assert decoder in DECODERS
    rng = random.Random(1)
    for each in DECODERS:
        if each is decoder:
            each.decode(each.valid)
            assert [error for _, error in (broken_by(each, rng) for _ in range(3000)) if error is not None] == []


class TestChunks:
    @given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda path: b"\0" not in path and b"/" not in path)))
    def test_names_that_are_no_utf_8_survive(self, paths: list[bytes]) -> None:
        entries = [ChunkEntry("x", path) for path in paths]
        payload = chunks.pack(entries, b"", Codec(), PLAIN, 1)[1]
        kind, listed, _ = chunks.split(memoryview(payload))
        assert chunks.parse_list(listed, kind, Codec()) == entries

    @pytest.mark.parametrize("path", ["/etc/passwd", "..", "a/../../b", "a\0b"])
    def test_a_path_that_leads_out_is_refused(self, path: str) -> None:
        with pytest.raises(wire_paths.ProtocolError):
            wire_paths.decode_path(path)

    @pytest.mark.parametrize("kind", [ZLIB, ZSTD])
    def test_a_bomb_is_refused(self, kind: int) -> None:
        kind, packed = Codec().pack(bytes(20_000_000), kind, 1)
        assert len(packed) < 100_000
        with pytest.raises(wire_paths.ProtocolError):
            chunks.unpack_content(packed, kind, Codec())


class TestCodecs:
    @given(st.binary(max_size=5000).map(lambda data: data * 7))
    def test_what_is_packed_is_unpacked(self, data: bytes) -> None:
        for wanted in (PLAIN, ZLIB, ZSTD):
            kind, packed = Codec().pack(data, wanted, 1)
            assert bytes(Codec().unpack(packed, kind, len(data))) == data

    def test_damaged_data_is_refused(self) -> None:
        for wanted in (ZLIB, ZSTD):
            kind, packed = Codec().pack(b"abc" * 1000, wanted, 1)
            for cut in (packed[:-3], packed[3:], b""):
                with pytest.raises(CorruptData):
                    Codec().unpack(cut, kind, 3000)
