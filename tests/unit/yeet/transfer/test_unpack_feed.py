"""What an archive is unpacked to reaches a node while it is unpacked, and is at the end what staging has become."""

from __future__ import annotations

import io
import os
import random
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezpz.agent.common import tree_version
from ezpz.agent.common.cancel import NEVER, Cancelled, CancelToken
from ezpz.agent.common.manifest import BLOCK
from ezpz.agent.stream.codec import ZSTD, Codec
from ezpz.yeet.engines.stream.sender import StreamSender
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.source.scan import Scan
from ezpz.yeet.strategies.base import CopyJob
from ezpz.yeet.strategies.tarball import Tarball
from ezpz.yeet.transfer.entry_tee import EntryTee
from ezpz.yeet.transfer.unpack_feed import UnpackFeed
from tests.contract.node import SECRET, Node, facts
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WHEN = 1_700_000_000


class Archive:
    """A .tar.gz in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tar = tarfile.open(path, "w:gz", compresslevel=1)  # noqa: SIM115 - closed by Way.go

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        member = self._member(name, mode)
        member.size = len(data)
        self.tar.addfile(member, io.BytesIO(data))

    def folder(self, name: str, mode: int = 0o755) -> None:
        member = self._member(name, mode)
        member.type = tarfile.DIRTYPE
        self.tar.addfile(member)

    def link(self, name: str, to: str, *, hard: bool) -> None:
        member = self._member(name, 0o777)
        member.type, member.linkname = tarfile.LNKTYPE if hard else tarfile.SYMTYPE, to
        self.tar.addfile(member)

    def _member(self, name: str, mode: int) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.mode, member.mtime = mode, WHEN + len(name)
        return member


class Way:
    """An archive on its way into staging and, meanwhile, to a node."""

    def __init__(self, folder: Path) -> None:
        self.archive = Archive(folder / "a.tgz")
        self.staging = folder / "staging"
        self.staging.mkdir(mode=0o700)
        self.root = os.fsencode(self.staging)
        self.feed = StreamSender(SECRET, Codec(), ZSTD, lambda *_: b"", limit=100_000)
        self.cancel = CancelToken()
        self.node = Node(folder / "node", threads=2)
        self.node.from_(self.feed.ring)

    def go(self, change: Callable[[Path], tuple[bytes, ...]] = lambda _: ()) -> None:
        """Unpack it, let `change` relocate it and say what it has dropped, and wait until the node has it."""
        self.archive.tar.close()
        intake = EntryTee((self.feed,))
        feed = UnpackFeed(intake, self.root, self.cancel)
        source = os.fsencode(self.archive.path)
        recorder = RelocationRecorder(Relocation(b"/tmp/dst"))
        job = CopyJob(source, Scan(source), self.root, recorder, self.cancel, lambda _: None, unpack_feeds=(feed,))
        Tarball().fill(job)
        feed.feed_changes(change(self.staging))
        intake.end()
        intake.close()
        self.node.finish()

    def is_as_unpacked(self) -> bool:
        return facts(self.node.root) == facts(self.staging) and self.node.writer.find_damaged(NEVER) == []

    def close(self) -> None:
        self.node.close()
        self.feed.close()


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    made = Way(tmp_path)
    yield made
    made.close()


def rewrite(path: Path, data: bytes) -> None:
    """Put a new file in place of one, as relocation does: of the same mode and time."""
    status = path.stat()
    new = path.with_name("new")
    new.write_bytes(data)
    new.chmod(status.st_mode)
    os.utime(new, ns=(status.st_mtime_ns, status.st_mtime_ns))
    new.replace(path)


def test_what_is_relocated_made_or_dropped_after_it_was_sent_is_put_right(way: Way) -> None:
    large = random.Random(1).randbytes(5 * BLOCK + 7)
    for name in ("bin/tool", "lib/a.py", "lib/__pycache__/a.pyc"):
        way.archive.file(name, name.encode() * 20, 0o755)
    way.archive.file("lib/large", large)
    way.archive.file("lib/changed-large", large)
    way.archive.file("lib/holes", bytes(3 * BLOCK) + b"end")
    way.archive.file("lib/nothing", bytes(2 * BLOCK))
    way.archive.file("lib/empty", b"")
    way.archive.link("bin/link", "tool", hard=False)
    way.archive.link("bin/same", "lib/a.py", hard=True)
    way.archive.folder("lib", 0o555)

    def change(staging: Path) -> tuple[bytes, ...]:
        (staging / "lib").chmod(0o755)
        rewrite(staging / "bin/tool", b"relocated")
        rewrite(staging / "lib/changed-large", large[::-1])
        (staging / "lib/__pycache__/a.pyc").unlink()
        (staging / "lib/__pycache__/a.new.pyc").write_bytes(b"made")
        (staging / "bin/link").unlink()
        (staging / "bin/link").symlink_to("same")
        (staging / "lib").chmod(0o555)
        return (b"lib/__pycache__/a.pyc",)

    way.go(change)
    assert way.is_as_unpacked()
    assert (way.node.root / "lib/large").read_bytes() == large
    assert (way.node.root / "lib/nothing").stat().st_blocks == 0


def test_it_arrives_while_it_is_unpacked(way: Way) -> None:
    data = random.Random(2).randbytes(200_000)
    for number in range(40):
        way.archive.file(f"file{number}", data)
    landed: list[int] = []

    def change(_: Path) -> tuple[bytes, ...]:
        wait_until(lambda: len(list(way.node.root.iterdir())) >= 30)
        landed.append(way.feed.ring.next)
        return ()

    way.go(change)
    assert way.is_as_unpacked()
    assert way.feed.ring.next <= landed[0] + 2  # nothing was sent a second time


class TestTop:
    """A folder around all of it is left out."""

    def test_one_that_is_alone(self, way: Way) -> None:
        way.archive.folder("env", 0o750)
        way.archive.file("env/pyvenv.cfg", b"home = /usr/bin\n")
        way.archive.file("env/.ezpz-yeet-receipt.json", b"{}")
        way.archive.link("env/further", "env/pyvenv.cfg", hard=True)
        way.go()
        assert way.is_as_unpacked()
        assert sorted(path.name for path in way.staging.iterdir()) == ["further", "pyvenv.cfg"]
        assert way.node.root.stat().st_mode & 0o777 == 0o750

    def test_one_that_turns_out_not_to_be_alone(self, way: Way) -> None:
        way.archive.folder("ssl", 0o750)
        for name in ("ssl/cert.pem", "ssl/deep/er/key", "ssl/cert.pem"):
            way.archive.file(name, name.encode())
        way.archive.link("ssl/further", "ssl/deep/er/key", hard=True)
        way.archive.file("bin/python", b"#!")
        way.archive.file("ssl/last", b"last")
        way.go()
        assert way.is_as_unpacked()
        assert {path.name for path in way.staging.iterdir()} == {"ssl", "bin"}
        assert (way.node.root / "ssl").stat().st_mode & 0o777 == 0o750
        assert (way.node.root / "ssl/further").samefile(way.node.root / "ssl/deep/er/key")

    def test_a_root_that_is_named_later(self, way: Way) -> None:
        way.archive.file("env/file", b"1")
        way.archive.folder(".", 0o711)
        way.go()
        assert way.is_as_unpacked()
        assert (way.node.root / "env/file").read_bytes() == b"1"


class TestTwice:
    """Of two members with one name the later counts, and what was linked to the earlier keeps it."""

    def test_a_file(self, way: Way) -> None:
        way.archive.file("a", b"first")
        way.archive.file("a", b"second!", 0o600)
        way.archive.file("b", bytes(range(256)) * 5000)
        way.archive.file("b", b"short")
        way.go()
        assert way.is_as_unpacked()
        assert (way.node.root / "a").read_bytes() == b"second!"

    def test_a_file_that_was_linked_to(self, way: Way) -> None:
        way.archive.file("a", b"first")
        way.archive.link("b", "a", hard=True)
        way.archive.link("c", "a", hard=True)
        way.archive.file("a", b"second!")
        way.go()
        assert way.is_as_unpacked()
        assert (way.node.root / "b").read_bytes() == b"first"

    def test_a_link_in_place_of_a_file_and_a_file_in_place_of_a_link(self, way: Way) -> None:
        way.archive.file("a", b"first")
        way.archive.link("l", "a", hard=False)
        way.archive.file("x", b"x")
        way.archive.link("a", "x", hard=True)
        way.archive.file("l", b"a file")
        way.go()
        assert way.is_as_unpacked()


def test_one_that_is_stopped_says_so(way: Way) -> None:
    way.archive.file("a", b"first")
    way.cancel.cancel()
    with pytest.raises(Cancelled):
        way.go()


NAMES = st.sampled_from(["a", "b", "top/a", "top/b", "top/in/c", "bin/d", "e"])
MEMBERS = st.lists(
    st.tuples(st.sampled_from(["file", "large", "hard", "symbolic", "folder"]), NAMES, NAMES), min_size=1, max_size=9
)


@given(MEMBERS, st.booleans())
@settings(max_examples=min(60, settings().max_examples))
def test_whatever_an_archive_holds_a_node_ends_with_what_staging_has(
    members: list[tuple[str, str, str]],
    changes: bool,  # noqa: FBT001 - drawn
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        way = Way(Path(folder))
        files: set[str] = set()
        for number, (kind, name, other) in enumerate(members):
            if kind in ("file", "large"):
                way.archive.file(name, f"{number}".encode() * (300_000 if kind == "large" else 3))
                files.add(name)
            elif kind == "hard" and other in files and name != other:
                way.archive.link(name, other, hard=True)
                files.add(name)
            elif kind == "symbolic":
                way.archive.link(name, other, hard=False)
                files.discard(name)
            elif kind == "folder":
                way.archive.folder(f"{name}.d")
        way.archive.file("last" if changes else "top/last", b"so that it is not empty")

        def change(staging: Path) -> tuple[bytes, ...]:
            for path, status in list(tree_version.walk(os.fsencode(staging))):
                if changes and status.st_nlink == 1 and status.st_size == 3:
                    rewrite(staging / os.fsdecode(path), b"new")
            return ()

        try:
            way.go(change)
            assert way.is_as_unpacked()
        finally:
            way.close()
