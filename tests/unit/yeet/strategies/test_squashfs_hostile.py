"""squashfs images that lie, are damaged or merely odd: refused or made harmless; nothing changes outside staging."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import threading
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common import layout
from ezpz.agent.common.cancel import Cancelled
from ezpz.errors import ArchiveCorrupt, ArchiveUnsafe, EzpzError, NoSpace, SourceEmpty
from ezpz.yeet.archive.info import read_info
from ezpz.yeet.strategies.squashfs import Squashfs
from tests.contract.support import needs_root, on_small_disk
from tests.unit.yeet.unpacking import Bench, names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    shutil.which("mksquashfs") is None or shutil.which("unsquashfs") is None, reason="mksquashfs is not here"
)

PLAIN = ("-noI", "-noD", "-noF", "-noX", "-no-xattrs")  # nothing is compressed, so that anything can be forged
UP = "../../outside"  # from the root of staging
INODES, USED = slice(4, 8), slice(40, 48)  # of the superblock
WATCHDOG = 30.0  # seconds


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Squashfs(), "x.squashfs")


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source")


def image(source: Path, *options: str) -> bytes:
    """The image of a folder."""
    path = source.with_name(f"{source.name}.squashfs")
    subprocess.run(["mksquashfs", source, path, "-noappend", "-quiet", "-no-progress", *options], check=True)
    return path.read_bytes()


def forged(content: bytes, old: bytes, new: bytes) -> bytes:
    """The same with other bytes in one place."""
    assert (content.count(old), len(old)) == (1, len(new))
    return content.replace(old, new)


def patched(content: bytes, place: slice, value: int) -> bytes:
    harmed = bytearray(content)
    harmed[place] = value.to_bytes(place.stop - place.start, "little")
    return bytes(harmed)


NAMES = {
    "dots": b"../new",
    "dots over the victim": b"../../outside/victim",
    "dots alone": b"..",
    "a dot": b".",
    "an absolute name": b"/tmp/ezpz-absolute",
    "a slash within": b"a/new",
    "a slash at the end": b"new/",
}


@pytest.mark.processes
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_name_that_would_land_elsewhere_is_refused(bench: Bench, source: Path, kind: str, name: bytes) -> None:
    """Which no mksquashfs writes."""
    (source / "innocent").write_text("innocent")
    stand_in = source / ("Z" * len(name))
    if kind == "file":
        stand_in.write_text("new")
    elif kind == "folder":
        stand_in.mkdir()
        (stand_in / "inner").write_text("new")
    else:
        stand_in.symlink_to("/etc")
    before = set(os.listdir("/tmp"))
    with pytest.raises((ArchiveCorrupt, ArchiveUnsafe)) as caught:
        bench.unpack(forged(image(source, *PLAIN), os.fsencode(stand_in.name), name))
    assert str(bench.archive) in caught.value.message
    assert {name for name in set(os.listdir("/tmp")) - before if "ezpz-absolute" in name} == set()


@pytest.mark.processes
@pytest.mark.parametrize("target", [UP, "/"])
def test_a_link_and_a_folder_of_one_name_lead_nowhere(bench: Bench, source: Path, target: str) -> None:
    """What was CVE-2021-41072: the link is made first, and what is in the folder goes through it."""
    (source / "innocent").write_text("innocent")
    (source / "out-A").symlink_to(target)
    (source / "out-B").mkdir()
    (source / "out-B" / "ezpz-through").write_text("through")
    with pytest.raises((ArchiveCorrupt, ArchiveUnsafe)):
        bench.unpack(forged(image(source, *PLAIN), b"out-B", b"out-A"))
    assert not os.path.lexists("/ezpz-through")


@pytest.mark.processes
def test_links_may_point_anywhere(bench: Bench, source: Path) -> None:
    (source / "up").symlink_to(UP)
    (source / "python").symlink_to("/usr/bin/python3")
    staging = bench.unpack(image(source))
    assert os.readlink(staging / "up") == UP
    assert os.readlink(staging / "python") == "/usr/bin/python3"


SPECIALS = {
    "a character device": "null c 666 0 0 1 3",
    "a block device": "disk b 660 0 0 8 0",
    "a FIFO": "fifo i 644 0 0 f",
    "a socket": "socket i 644 0 0 s",
    "a device with all bits": "null c 7777 0 0 1 3",
    "a device further down": "folder/deep/null c 666 0 0 1 3",
    "a device of another user": "null c 666 65534 65534 1 3",
}


@pytest.mark.processes
@pytest.mark.parametrize("special", SPECIALS.values(), ids=SPECIALS)
def test_devices_and_the_like_are_refused_before_anything_is_unpacked(bench: Bench, source: Path, special: str) -> None:
    (source / "folder" / "deep").mkdir(parents=True)
    (source / "innocent").write_text("innocent")
    with pytest.raises(ArchiveUnsafe, match="device, FIFO or socket"):
        bench.unpack(image(source, "-p", special))
    assert names(bench.staging) == []


@pytest.mark.processes
class TestDefused:
    """What is no reason to refuse, and not carried."""

    @pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711])
    def test_setuid_and_setgid(self, bench: Bench, source: Path, mode: int) -> None:
        (source / "tool").write_text("#!/bin/sh\n")
        (source / "plain").write_text("plain")
        staging = bench.unpack(image(source, "-p", f"tool m {mode:o} 0 0"))
        assert stat.S_IMODE((staging / "tool").stat().st_mode) == mode & 0o777
        assert [warning.case for warning in bench.recorder.notices.warnings()] == ["setuid"]

    @needs_root
    def test_other_owners(self, bench: Bench, source: Path) -> None:
        (source / "folder").mkdir()
        for name in ("folder/a", "b"):
            (source / name).write_text(name)
            os.chown(source / name, 65534, 65534)
        os.chown(source / "folder", 65534, 65534)
        (source / "link").symlink_to("b")
        os.chown(source / "link", 65534, 65534, follow_symlinks=False)
        staging = bench.unpack(image(source))
        assert {path.lstat().st_uid for path in (staging, *staging.rglob("*"))} == {os.geteuid()}

    @needs_root
    def test_extended_attributes(self, bench: Bench, source: Path) -> None:
        (source / "tool").write_text("#!/bin/sh\n")
        try:
            os.setxattr(source / "tool", "user.note", b"hidden")
            os.setxattr(source / "tool", "security.capability", bytes.fromhex("0100000200000000") + bytes(12))
        except OSError as e:
            pytest.skip(f"no extended attributes here: {e}")
        content = image(source, "-xattrs")
        assert b"hidden" in image(source, *PLAIN[:-1], "-xattrs"), "it should be in the image"
        staging = bench.unpack(content)
        assert os.listxattr(staging / "tool") == []

    def test_what_an_earlier_yeet_left_in_it(self, bench: Bench, source: Path) -> None:
        for name in layout.OWN_FILES:
            (source / os.fsdecode(name)).write_text("{}")
        (source / "x").write_text("x")
        assert names(bench.unpack(image(source))) == ["x"]


UNPACK = """
import os, sys
from pathlib import Path
from ezpz.errors import EzpzError
from ezpz.yeet.strategies.squashfs import Squashfs
from tests.unit.yeet.unpacking import Bench
bench = Bench(Path(sys.argv[1]), Squashfs(), "x.squashfs")
try:
    bench.unpack(Path(sys.argv[2]).read_bytes())
except EzpzError as e:
    print(e.code, os.listdir(bench.staging))
else:
    from ezpz.agent.destination.remove_tree import remove_tree
    print("unpacked", tree.survey(os.fsencode(bench.staging)).files)
    remove_tree(os.fsencode(bench.staging))
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image that is all right."""
    folder = tmp_path_factory.mktemp("sound") / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to("sub")
    for number in range(6):
        (folder / "sub" / f"file{number}").write_bytes(random.Random(number).randbytes(3000))
    return image(folder)


@pytest.mark.processes
class TestDamage:
    """What is damaged is called damaged, or is what it was."""

    def test_cut_short_anywhere(self, bench: Bench, sound: bytes) -> None:
        used = int.from_bytes(sound[USED], "little")
        for cut in [0, 3, 4, 50, 95, 96, *range(97, used - 1, used // 25), used - 1]:
            with pytest.raises(ArchiveCorrupt):
                bench.unpack(sound[:cut])

    def test_without_the_padding_it_is_all_there(self, bench: Bench, sound: bytes) -> None:
        used = int.from_bytes(sound[USED], "little")
        assert len(names(bench.unpack(sound[:used]))) == 8

    @pytest.mark.parametrize("content", [b"hsqs", b"hsqs" + bytes(92), b"hsqs" + b"\xff" * 4092, bytes(4096), b"text"])
    def test_what_is_none(self, bench: Bench, content: bytes) -> None:
        with pytest.raises(ArchiveCorrupt, match="damaged"):
            bench.unpack(content)

    def test_a_flipped_bit_anywhere_is_noticed_or_harmless(self, bench: Bench, sound: bytes) -> None:
        """A squashfs has no digests of its own: what is in a file may differ, and nothing else may go wrong."""
        rng = random.Random(11)
        used = int.from_bytes(sound[USED], "little")
        noticed = 0
        for position in [*range(96), *rng.sample(range(96, used), 60)]:
            harmed = bytearray(sound)
            harmed[position] ^= 1 << rng.randrange(8)
            watchdog = threading.Timer(WATCHDOG, bench.cancel.cancel)
            watchdog.start()
            try:
                bench.unpack(bytes(harmed))
            except (ArchiveCorrupt, ArchiveUnsafe, NoSpace, SourceEmpty):
                noticed += 1
            finally:
                watchdog.cancel()
        assert noticed > 40

    @pytest.mark.parametrize("inodes", [0, 1, 1 << 20, (1 << 32) - 1])
    def test_a_number_of_entries_that_is_not_true(self, bench: Bench, sound: bytes, inodes: int) -> None:
        with suppress(ArchiveCorrupt):
            assert len(names(bench.unpack(patched(sound, INODES, inodes)))) == 8

    def test_an_image_that_says_it_is_longer(self, bench: Bench, sound: bytes) -> None:
        with pytest.raises(ArchiveCorrupt):
            bench.unpack(patched(sound, USED, 1 << 40))

    @pytest.mark.parametrize("size", [4_000_000_000, 200_000])
    def test_a_file_that_is_not_as_large_as_it_says(self, bench: Bench, source: Path, size: int) -> None:
        (source / "file").write_bytes(random.Random(1).randbytes(123_457))
        content = image(source, *PLAIN, "-no-fragments")
        with pytest.raises((ArchiveCorrupt, NoSpace)):
            bench.unpack(forged(content, (123_457).to_bytes(4, "little"), size.to_bytes(4, "little")))

    def test_nothing_in_it(self, bench: Bench, source: Path) -> None:
        with pytest.raises(SourceEmpty):
            bench.unpack(image(source))


@pytest.mark.processes
class TestBombs:
    """A few bytes that would be very many."""

    def test_zeros_for_which_there_is_no_room(self, source: Path, tmp_path: Path) -> None:
        """They are refused before the first of them is written."""
        bomb = "bomb f 644 0 0 head -c 200000000 /dev/zero"
        (tmp_path / "bomb").write_bytes(image(source, "-p", bomb))
        assert (tmp_path / "bomb").stat().st_size < 100_000
        done = on_small_disk(UNPACK, tmp_path / "disk", "8m", tmp_path / "bomb")
        assert (done.stdout, done.stderr) == ("no-space []\n", "")

    def test_a_hole_for_which_there_is_no_room(self, source: Path, tmp_path: Path) -> None:
        with (source / "hole").open("wb") as file:
            file.truncate(200_000_000)
        (tmp_path / "bomb").write_bytes(image(source))
        done = on_small_disk(UNPACK, tmp_path / "disk", "8m", tmp_path / "bomb")
        assert (done.stdout, done.stderr) == ("no-space []\n", "")

    def test_more_entries_than_inodes(self, source: Path, tmp_path: Path) -> None:
        for number in range(400):
            (source / f"{number}").touch()
        (tmp_path / "bomb").write_bytes(image(source))
        done = on_small_disk(UNPACK, tmp_path / "disk", "8m", tmp_path / "bomb")
        assert (done.stdout, done.stderr) == ("no-space []\n", "")

    @pytest.mark.parametrize("begin", ["", '{\\"format\\": \\"ezpz/manifest/1\\"}\\n'], ids=["zeros", "then zeros"])
    def test_a_manifest_without_end_takes_no_memory(self, source: Path, tmp_path: Path, begin: str) -> None:
        content = f"sh -c 'printf \"{begin}\"; head -c 300000000 /dev/zero'"
        (source / "x").write_text("x")
        path = tmp_path / "bomb.squashfs"
        path.write_bytes(image(source, "-p", f".ezpz-yeet-manifest f 644 0 0 {content}"))
        tracemalloc.start()
        try:
            assert read_info(str(path)) is None
            assert tracemalloc.get_traced_memory()[1] < 100 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.processes
def test_it_stops(bench: Bench, sound: bytes) -> None:
    bench.cancel.cancel()
    with pytest.raises(Cancelled):
        bench.unpack(sound)


@pytest.mark.processes
def test_every_refusal_says_which_archive_and_what_to_do(bench: Bench, sound: bytes, source: Path) -> None:
    (source / "x").write_text("x")
    refusals: list[Callable[[], bytes]] = [lambda: sound[:500], lambda: image(source, "-p", "null c 666 0 0 1 3")]
    for make in refusals:
        with pytest.raises(EzpzError) as caught:
            bench.unpack(make())
        assert str(bench.archive) in caught.value.message
        assert caught.value.hint
