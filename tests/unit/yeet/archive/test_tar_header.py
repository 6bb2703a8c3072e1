"""Headers and maps of holes are what tarfile, tar and our own reader read, whatever an entry is called."""

from __future__ import annotations

import io
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.archive import tar_fields, tar_header
from ezpz.yeet.archive.tar_reader import MemberType, TarMember, TarReader
from ezpz.yeet.archive.zstd import Damaged
from ezpz.yeet.model.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = st.binary(min_size=1, max_size=120).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))
PATHS = st.lists(PARTS, min_size=1, max_size=6).map(b"/".join)
TIMES = st.integers(-(10**18), 2**70 // 1000)
FILES = st.builds(
    lambda path, mode, mtime: Entry(path, stat.S_IFREG | mode, mtime, 0), PATHS, st.integers(0, 0o777), TIMES
)


def read(data: bytes) -> list[TarMember]:
    return list(TarReader([data + tar_header.END]))


@given(FILES, st.binary(max_size=2000))
def test_a_file_is_read_as_it_was_written(entry: Entry, data: bytes) -> None:
    whole = entry._replace(size=len(data))
    packed = tar_header.member(whole) + data + tar_header.padding(len(data)) + tar_header.END
    members = TarReader([packed])
    member = next(iter(members))
    assert member[:6] == (b"./" + entry.path, MemberType.FILE, entry.permissions, entry.mtime_ns, len(data), b"")
    assert members.read(member) == data


@given(FILES, st.binary(max_size=300))
def test_tarfile_reads_the_same(entry: Entry, data: bytes) -> None:
    whole = entry._replace(size=len(data))
    packed = tar_header.member(whole) + data + tar_header.padding(len(data)) + tar_header.END
    settings = {"encoding": "utf-8", "errors": "surrogateescape"}
    with tarfile.open(fileobj=io.BytesIO(packed), **settings) as archive:  # type: ignore[call-overload]
        member = archive.getmembers()[0]
        assert member.name.encode("utf-8", "surrogateescape") == b"./" + entry.path
        assert (member.mode, member.size) == (entry.permissions, len(data))
        file = archive.extractfile(member)
        assert file is not None
        assert file.read() == data


@given(PATHS, PATHS, TIMES)
def test_links_and_folders_are_read_as_they_were_written(path: bytes, target: bytes, mtime: int) -> None:
    entries = (
        Entry(path, stat.S_IFDIR | 0o751, mtime, 0),
        Entry(path, stat.S_IFLNK | 0o777, mtime, 0, b"/" + target),
        Entry(path, stat.S_IFREG | 0o640, mtime, 9, link=target),
    )
    folder, symlink, hard = read(b"".join(map(tar_header.member, entries)))
    assert folder[1:] == (MemberType.DIRECTORY, 0o751, mtime, 0, b"", None)
    assert folder.name == b"./" + path + b"/"
    assert symlink[:6] == (b"./" + path, MemberType.SYMLINK, 0o777, mtime, 0, b"/" + target)
    assert (hard.type, hard.target, hard.size) == (MemberType.HARD_LINK, b"./" + target, 0)


def test_a_size_beyond_eight_gigabytes() -> None:
    entry = Entry(b"large", stat.S_IFREG | 0o644, 0, 9 << 30)
    members = TarReader([tar_header.member(entry) + tar_header.END])
    assert next(iter(members)).size == 9 << 30


@st.composite
def maps(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """The size of a file, and where it has something."""
    steps = draw(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), max_size=8))
    extents, at = [], 0
    for hole, length in steps:
        extents.append((at + hole, length))
        at += hole + length
    return at + draw(st.integers(1, 5000)), extents


@given(FILES, maps())
def test_holes_are_read_as_they_were_written(entry: Entry, holes: tuple[int, Sequence[tuple[int, int]]]) -> None:
    size, extents = holes
    whole = entry._replace(size=size)
    content = bytearray(size)
    for start, length in extents:
        content[start : start + length] = b"x" * length
    pieces = b"x" * sum(length for _, length in extents)
    packed = (
        tar_header.sparse_member(whole, extents) + pieces + tar_header.padding(tar_header.sparse_size(whole, extents))
    )
    members = TarReader([packed + tar_header.END])
    member = next(iter(members))
    assert (member.name, member.size, member.extents) == (b"./" + entry.path, size, list(extents))
    assert members.read(member) == bytes(content)
    settings = {"encoding": "utf-8", "errors": "surrogateescape"}
    with tarfile.open(fileobj=io.BytesIO(packed + tar_header.END), **settings) as archive:  # type: ignore[call-overload]
        file = archive.extractfile(archive.getmembers()[0])
        assert file is not None
        assert file.read() == bytes(content)


@given(st.binary(max_size=3000))
def test_no_bytes_are_more_than_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        list(TarReader([data]))


@given(st.data())
def test_a_header_with_any_byte_changed_is_read_or_damaged(data: st.DataObject) -> None:
    entry = Entry(b"some/file", stat.S_IFREG | 0o644, 1_700_000_000_123_456_789, 4)
    packed = bytearray(tar_header.member(entry) + b"data" + tar_header.padding(4) + tar_header.END)
    packed[data.draw(st.integers(0, len(packed) - 1025))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        members = read(bytes(packed))
    except Damaged:
        return
    assert len(members) <= 1


@pytest.mark.parametrize(
    ("extents", "content", "size"),
    [([(5, 5), (3, 2)], 7, 20), ([(0, 30)], 30, 20), ([(0, 5)], 6, 20), ([(0, 10), (5, 5)], 15, 20)],
    ids=["backwards", "beyond the end", "more than there is", "twice the same"],
)
def test_a_map_that_contradicts_itself(extents: list[tuple[int, int]], content: int, size: int) -> None:
    with pytest.raises(Damaged):
        tar_fields.check_extents(extents, content, size)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_that_would_take_memory_is_refused(kind: bytes) -> None:
    bomb = tar_header._ustar(b"bomb", b"", kind, 0o644, 1 << 30, 0, b"")
    with pytest.raises(Damaged, match="too large"):
        list(TarReader([bomb, *(bytes(1 << 20) for _ in range(4))]))


@pytest.mark.parametrize("field", [b"0000017\0", b"     17\0", b"17 \0\0\0\0\0", b"\x80\0\0\0\0\0\0\x0f"])
def test_every_way_to_write_a_number(field: bytes) -> None:
    assert tar_fields.parse_number(field) == 15


def test_a_negative_number_in_binary() -> None:
    assert tar_fields.parse_number(b"\xff" * 12) == -1
