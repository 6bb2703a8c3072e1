"""Packed blocks are one file to every program; what is damaged, cut short or takes too much memory is refused."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import subprocess
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common.cancel import CancelToken
from ezpz.errors import NoSpace
from ezpz.yeet.archive import tar_header
from ezpz.yeet.archive.compress import compressor_for
from ezpz.yeet.archive.decompress import Prefetcher, decompress
from ezpz.yeet.archive.tar_reader import TarReader
from ezpz.yeet.archive.zstd import ArchiveZstdLibrary, ArchiveZstdProgram, Damaged, Zstd
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.source.archive_formats import FORMATS, GZIP, TAR, ZSTD, ArchiveFormat
from ezpz.yeet.source.scan import Scan
from ezpz.yeet.strategies.base import CopyJob
from ezpz.yeet.strategies.tarball import Tarball

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

every_format = pytest.mark.parametrize("kind", [ZSTD, GZIP, TAR], ids=lambda kind: kind.name)
every_zstd = pytest.mark.parametrize("make", [ArchiveZstdLibrary, ArchiveZstdProgram])
NOISE = random.Random(5).randbytes(300_000)
UNPACKERS = {ZSTD: ["zstd", "-dc"], GZIP: ["gzip", "-dc"], TAR: ["cat"]}


def unpacked(data: bytes, kind: ArchiveFormat) -> bytes:
    return b"".join(decompress(io.BytesIO(data), kind))


def packed(kind: ArchiveFormat, *blocks: bytes, stored: bytes = b"head") -> bytes:
    packing = compressor_for(kind, kind.default_level)
    return packing.store(stored) + b"".join(map(packing.compress, blocks))


@every_format
@given(stored=st.binary(max_size=500), blocks=st.lists(st.binary(max_size=500), max_size=4))
def test_what_is_packed_in_blocks_is_one_file(kind: ArchiveFormat, stored: bytes, blocks: list[bytes]) -> None:
    assert unpacked(packed(kind, *blocks, stored=stored), kind) == stored + b"".join(blocks)


@pytest.mark.processes
@every_format
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 131_072, 131_073, 300_000])
def test_other_programs_unpack_it(kind: ArchiveFormat, size: int) -> None:
    data = packed(kind, NOISE[:size], b"", NOISE, stored=NOISE[:size])
    done = subprocess.run(UNPACKERS[kind], input=data, capture_output=True, check=True)
    assert done.stdout == NOISE[:size] * 2 + NOISE


@every_format
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 131_072, 131_073, 300_000])
def test_what_is_stored_is_as_long_whatever_it_is(kind: ArchiveFormat, size: int) -> None:
    packing = compressor_for(kind, kind.default_level)
    assert len(packing.store(NOISE[:size])) == len(packing.store(bytes(size)))


@pytest.mark.parametrize("kind", [ZSTD, GZIP], ids=lambda kind: kind.name)
def test_cut_short_anywhere(kind: ArchiveFormat) -> None:
    data = packed(kind, NOISE[:2000], NOISE[2000:3000])
    begins = {0, len(packed(kind)), len(packed(kind, NOISE[:2000]))}  # of its blocks, each of which is a file
    for cut in set(range(len(data))) - begins:
        with pytest.raises(Damaged):
            unpacked(data[:cut], kind)


@pytest.mark.parametrize("kind", [ZSTD, GZIP], ids=lambda kind: kind.name)
def test_rubbish_behind_it(kind: ArchiveFormat) -> None:
    with pytest.raises(Damaged):
        unpacked(packed(kind, NOISE) + b"rubbish", kind)


def test_zeros_behind_a_gzip_mean_nothing() -> None:
    assert unpacked(gzip.compress(b"a") + gzip.compress(b"b") + bytes(700), GZIP) == b"ab"


@pytest.mark.processes
@every_zstd
def test_every_way_to_pack_zstd(make: Callable[[], Zstd]) -> None:
    zstd = make()
    data = zstd.pack(NOISE, 1) + zstd.pack(b"", 3) + zstd.pack(NOISE * 12, 1)
    assert b"".join(ArchiveZstdLibrary().unpack_file(io.BytesIO(data))) == NOISE * 13
    assert subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout == NOISE * 13


@pytest.mark.processes
def test_the_program_unpacks_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.zst"
    path.write_bytes(ArchiveZstdLibrary().pack(NOISE, 1) + ArchiveZstdLibrary().pack(NOISE, 1))
    with path.open("rb") as file:
        assert b"".join(ArchiveZstdProgram().unpack_file(file)) == NOISE * 2
    path.write_bytes(ArchiveZstdLibrary().pack(NOISE, 1)[:-9])
    with path.open("rb") as file, pytest.raises(Damaged):
        b"".join(ArchiveZstdProgram().unpack_file(file))


@pytest.mark.processes
def test_a_window_that_would_take_memory_is_refused() -> None:
    data = subprocess.run(
        ["zstd", "-q", "-c", "--ultra", "--long=30", "--no-check"],
        input=bytes(1 << 20),
        capture_output=True,
        check=True,
    ).stdout
    with pytest.raises(Damaged):
        unpacked(data, ZSTD)


def test_a_flipped_bit_in_a_block_is_noticed() -> None:
    data = bytearray(packed(ZSTD, NOISE))
    data[-1000] ^= 4
    with pytest.raises(Damaged):
        unpacked(bytes(data), ZSTD)


def test_ahead_hands_on_what_went_wrong() -> None:
    def broken() -> Iterator[bytes]:
        yield b"one"
        raise Damaged("broken")

    pieces = Prefetcher(broken())
    found = iter(pieces)
    assert next(found) == b"one"
    with pytest.raises(Damaged, match="broken"):
        next(found)
    pieces.close()


def test_ahead_ends_when_nobody_wants_more() -> None:
    pieces = Prefetcher(iter(lambda: b"for ever", b""))
    assert next(iter(pieces)) == b"for ever"
    pieces.close()
    assert not pieces._worker.is_alive()


def test_every_format_is_known_by_its_name() -> None:
    assert {name: each.name for name, each in FORMATS.items()} == {name: name for name in FORMATS}


def many(count: int, made: bytes) -> Iterator[bytes]:
    for _ in range(0, count, 100):
        yield made * 100
    yield tar_header.END


@pytest.mark.scale
def test_many_members_take_no_memory() -> None:
    made = tar_header.member(Entry(b"some/empty file", stat.S_IFREG | 0o644, 1_700_000_000_123_456_789, 0))
    tracemalloc.start()
    try:
        assert sum(1 for _ in TarReader(many(30_000, made))) == 30_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("holes", [False, True])
def test_a_bomb_is_refused_and_takes_no_room(tmp_path: Path, *, holes: bool) -> None:
    """A petabyte of zeros, as such or as a hole."""
    entry = Entry(b"bomb", stat.S_IFREG | 0o644, 0, 1 << 50)
    packing = compressor_for(ZSTD, 1)
    begin = tar_header.sparse_member(entry, []) + tar_header.END if holes else tar_header.member(entry)
    (tmp_path / "x.tar.zst").write_bytes(packing.compress(begin) + packing.compress(bytes(4 << 20)) * 8)
    staging = tmp_path / "staging"
    staging.mkdir()
    job = CopyJob(
        os.fsencode(tmp_path / "x.tar.zst"), Scan(b""), os.fsencode(staging), RelocationRecorder(Relocation(b"/tmp/x")),
        CancelToken(), lambda _: None,
    )  # fmt: skip
    with pytest.raises(NoSpace, match="bomb"):
        Tarball().fill(job)
    assert (staging / "bomb").stat().st_blocks == 0
    assert sorted(os.listdir(tmp_path)) == ["staging", "x.tar.zst"]
