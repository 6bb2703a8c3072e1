"""Zstandard: every binding understands every other one, and damaged data is refused."""

from __future__ import annotations

import random
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common.zstd import CorruptData, Data, ZstdLibrary, ZstdModule, ZstdProgram, first_available
from ezpz.agent.stream.codec import Codec
from ezpz.yeet.archive.zstd import ArchiveZstdLibrary, ArchiveZstdProgram

DATA = b"the same " * 1000
NOISE = random.Random(7).randbytes(10_000)


class Binding(Protocol):
    def pack(self, data: bytes, level: int) -> bytes: ...

    def unpack(self, data: bytes, limit: int) -> Data: ...


@pytest.mark.processes
def test_every_binding_understands_every_other_one() -> None:
    bindings: list[Binding] = [ZstdLibrary(), ZstdProgram(), ArchiveZstdLibrary(), ArchiveZstdProgram()]
    for packing in bindings:
        for unpacking in bindings:
            for data in (DATA, NOISE, b""):
                assert bytes(unpacking.unpack(packing.pack(data, 3), len(data))) == data


def test_frames_of_an_archive_have_a_checksum() -> None:
    checksum = 0x04  # RFC 8878, 3.1.1.1.1: a bit of the byte after the magic number
    assert ArchiveZstdLibrary().pack(DATA, 1)[4] & checksum
    assert not ZstdLibrary().pack(DATA, 1)[4] & checksum


@given(st.binary(max_size=3000), st.integers(1, 9))
def test_what_is_packed_is_unpacked(data: bytes, level: int) -> None:
    library = ZstdLibrary()
    assert bytes(library.unpack(library.pack(data, level), len(data))) == data


@pytest.mark.processes
@pytest.mark.parametrize("binding", [ZstdLibrary, ZstdProgram])
def test_damaged_or_too_much_data_is_refused(binding: type[ZstdLibrary] | type[ZstdProgram]) -> None:
    packed = binding().pack(NOISE, 1)
    for damaged in (packed[:-3], packed[3:], b"rubbish"):
        with pytest.raises(CorruptData):
            binding().unpack(damaged, len(NOISE))
    with pytest.raises(CorruptData):
        binding().unpack(packed, len(NOISE) - 1)


def test_a_host_without_zstd_has_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ezpz.agent.common.zstd.LIBRARY", "libnone.so.1")
    monkeypatch.setenv("PATH", "/nonexistent")
    kinds: tuple[type[ZstdLibrary] | type[ZstdProgram], ...] = (ZstdLibrary, ZstdProgram)
    assert first_available(kinds) is None
    if first_available((ZstdModule,)) is None:
        assert Codec().best == 1
