"""Clones: what a new version takes over from the one in place, which is never written to."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezpz.agent.common import manifest
from ezpz.agent.common.cancel import NEVER, CancelToken
from ezpz.agent.common.manifest import BLOCK
from ezpz.agent.destination.reuse import Clone, FileReuser, MissingSource, adopt, copy_content
from ezpz.agent.stream.codec import ZSTD, Codec
from ezpz.yeet.engines.base import RemoteFiles
from ezpz.yeet.engines.stream.sender import StreamSender
from ezpz.yeet.pipeline.replay import ReplayReader, feed_tree
from ezpz.yeet.transfer.entry_tee import EntryTee
from tests.contract.node import SECRET, Node, facts
from tests.contract.support import on_btrfs, photograph

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MTIME = 1_700_000_000_123_456_789
NAMES = ("a", "b", "f/a", "f/b", "f/g/c")
Tree = dict[str, tuple[int, int, int, int]]
"""Of each file: a seed for its content, its size, permissions, seconds."""

trees = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(
        st.integers(0, 2), st.sampled_from((0, 3, 5000, BLOCK + 9)), st.sampled_from((0o644, 0o755)), st.integers(1, 2)
    ),
)


def make(root: Path, tree: Tree) -> Path:
    root.mkdir()
    for name, (seed, size, mode, seconds) in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(seed).randbytes(size))
        path.chmod(mode)
        os.utime(path, (seconds, seconds))
    return root


def manifest_of(root: Path) -> list[manifest.ManifestEntry]:
    with contextlib.closing(EntryTee()) as intake:
        feed_tree(os.fsencode(root), intake, CancelToken())
        return manifest.read(intake.end().manifest)


class Place:
    """An old tree, and a new one that is empty."""

    def __init__(self, folder: Path) -> None:
        self.old = folder / "old"
        self.new = folder / "new"
        self.old.mkdir()
        self.new.mkdir()
        self.cloner = FileReuser(os.open(self.old, os.O_RDONLY), os.open(self.new, os.O_RDONLY))

    def file(self, name: str, data: bytes) -> None:
        (self.old / name).write_bytes(data)
        (self.old / name).chmod(0o644)
        os.utime(self.old / name, ns=(MTIME, MTIME))

    def take(self, name: str, data: bytes, old: str, mode: int = 0o644, mtime_ns: int = MTIME) -> None:
        digest = manifest.digest(data)
        self.cloner.take(Clone(name.encode(), mode, mtime_ns, len(data), digest, old.encode(), MTIME))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    os.close(made.cloner.old)
    os.close(made.cloner.new)


class TestTake:
    def test_an_unchanged_file_becomes_a_further_name(self, place: Place) -> None:
        place.file("a", b"data")
        place.take("b", b"data", "a")
        assert (place.new / "b").samefile(place.old / "a")

    def test_two_files_stay_two(self, place: Place) -> None:
        place.file("a", b"data")
        place.take("b", b"data", "a")
        place.take("c", b"data", "a")
        assert not (place.new / "b").samefile(place.new / "c")
        assert (place.new / "c").read_bytes() == b"data"

    @pytest.mark.parametrize("facts", [{"mode": 0o600}, {"mtime_ns": MTIME + 10**9}])
    def test_one_that_changes_is_a_copy_and_the_old_one_stays(self, place: Place, facts: dict[str, int]) -> None:
        place.file("a", b"data")
        before = photograph(place.old)
        place.take("b", b"data", "a", **facts)
        assert photograph(place.old) == before
        status = (place.new / "b").stat()
        assert (status.st_mode & 0o777, status.st_mtime_ns) == (
            facts.get("mode", 0o644), facts.get("mtime_ns", MTIME),
        )  # fmt: skip

    @pytest.mark.parametrize("change", ["gone", "size", "time", "link", "folder", "content"])
    def test_what_is_not_as_it_was_is_refused(self, place: Place, change: str) -> None:
        place.file("a", b"data")
        path = place.old / "a"
        if change == "gone":
            path.unlink()
        elif change == "size":
            place.file("a", b"data and more")
        elif change == "time":
            os.utime(path)
        elif change == "link":
            path.rename(place.old / "b")
            path.symlink_to("b")
        elif change == "folder":
            path.unlink()
            path.mkdir()
        else:
            place.file("a", b"atad")
        with pytest.raises(MissingSource):
            place.take("new", b"data", "a", mode=0o600)  # a copy, whose content is looked at
        assert list(place.new.iterdir()) == []

    def test_holes_stay_holes(self, place: Place) -> None:
        path = place.old / "sparse"
        with path.open("wb") as file:
            file.seek(40 << 20)
            file.write(b"end")
        with path.open("rb") as source, (place.new / "sparse").open("wb") as sink:
            copy_content(source.fileno(), sink.fileno(), path.stat().st_size)
        assert (place.new / "sparse").read_bytes() == path.read_bytes()
        assert (place.new / "sparse").stat().st_blocks * 512 < 1 << 20


SHARED = """
import os, sys
from ezpz.agent.common import manifest
from ezpz.agent.destination.reuse import Clone, FileReuser
os.chdir(sys.argv[1])
os.mkdir("old"), os.mkdir("new")
data = os.urandom(30 << 20)
with open("old/a", "wb") as file:
    file.write(data)
os.chmod("old/a", 0o644)
os.utime("old/a", (1, 1))
def used():
    os.sync()
    room = os.statvfs(".")
    return (room.f_blocks - room.f_bfree) * room.f_frsize
before = used()
cloner = FileReuser(os.open("old", os.O_RDONLY), os.open("new", os.O_RDONLY))
for name, mode in ((b"one", 0o755), (b"two", 0o600)):
    cloner.take(Clone(name, mode, 2 * 10**9, len(data), manifest.digest(data), b"a", 10**9))
took = used() - before
with open("new/one", "r+b") as file:
    file.write(b"changed")
found = [open(path, "rb").read() == data for path in ("old/a", "new/one", "new/two")]
print(took < 1 << 20, found, os.stat("old/a").st_nlink)
"""


@pytest.mark.processes
def test_where_blocks_can_be_shared_a_copy_takes_no_room_and_is_one_of_its_own(tmp_path: Path) -> None:
    done = on_btrfs(SHARED, tmp_path / "disk")
    assert (done.stdout, done.stderr) == ("True [True, False, True] 1\n", "")


@settings(max_examples=min(60, settings().max_examples))
@given(old=trees, new=trees, touched=st.sets(st.sampled_from(NAMES)))
def test_from_any_version_to_any_other_through_the_stream(
    tmp_path_factory: pytest.TempPathFactory, old: Tree, new: Tree, touched: set[str]
) -> None:
    """Files that were touched on the node are known to be, and come with their content."""
    folder = tmp_path_factory.mktemp("stream")
    standing, source = make(folder / "old", old), make(folder / "new", new)
    base = RemoteFiles(manifest_of(standing), (name.encode() for name in touched))
    for name in touched & old.keys():
        (standing / name).write_bytes(b"touched")
    before = photograph(standing, inode=False)
    again = ReplayReader(os.fsencode(source), lambda: None)
    with contextlib.closing(StreamSender(SECRET, Codec(), ZSTD, again.read, base=base)) as feed:
        node = Node(folder / "node", threads=2, old=standing)
        try:
            node.from_(feed.ring)
            with contextlib.closing(EntryTee((feed,))) as intake:
                feed_tree(os.fsencode(source), intake, CancelToken())
                intake.end()
            node.finish()
            assert photograph(standing, inode=False) == before
            shutil.rmtree(standing)  # as a node does, so that nothing has two names any more
            assert facts(node.root) == facts(source)
            assert node.writer.find_damaged(NEVER) == []
        finally:
            node.close()
            again.close()
    known = {data[:2] for name, data in old.items() if name not in touched and data[1]}
    assert feed.files == sum(data[1] > 0 and data[:2] not in known for data in new.values())


@settings(max_examples=min(60, settings().max_examples))
@given(old=trees, new=trees, touched=st.sets(st.sampled_from(NAMES)))
def test_what_is_adopted_is_of_the_new_version(
    tmp_path_factory: pytest.TempPathFactory, old: Tree, new: Tree, touched: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("adopt")
    standing, source, target = make(folder / "old", old), make(folder / "new", new), make(folder / "target", {})
    have, wanted = manifest_of(standing), manifest_of(source)
    for name in touched & old.keys():
        (standing / name).write_bytes(b"touched")
    fds = [os.open(path, os.O_RDONLY) for path in (standing, target)]
    count = adopt(have, sorted(touched), wanted, FileReuser(fds[0], fds[1]))
    for fd in fds:
        os.close(fd)
    found = [path for path in target.rglob("*") if path.is_file()]
    assert len(found) == count
    for path in found:
        same = source / path.relative_to(target)
        assert (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) == (
            same.read_bytes(), same.stat().st_mode, same.stat().st_mtime_ns,
        )  # fmt: skip
