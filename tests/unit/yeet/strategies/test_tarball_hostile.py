"""Archives that lie, are damaged or merely odd: refused with the right code, and nothing changes outside staging."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common import layout, tree_version
from ezpz.agent.common.cancel import Cancelled
from ezpz.errors import ArchiveCorrupt, ArchiveUnsafe, DestinationRefused, EzpzError, SourceEmpty
from ezpz.yeet.archive.info import estimated_size
from ezpz.yeet.strategies.tarball import STANDARD_DIRECTORIES, Tarball
from tests.unit.yeet.unpacking import Bench, names

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FILE, FOLDER, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
WHEN = 1_700_000_000


@dataclass(frozen=True)
class Member:
    """One member of an archive; `to` is where a link leads."""

    name: str
    kind: bytes = FILE
    to: str = ""
    data: bytes = b"content"
    mode: int = 0o644
    pax: dict[str, str] = field(default_factory=dict)

    def info(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(self.name)
        info.type, info.linkname, info.mode, info.mtime = self.kind, self.to, self.mode, WHEN
        info.size = len(self.data) if self.kind == FILE else 0
        info.pax_headers = dict(self.pax)
        return info


def folder(name: str, mode: int = 0o755) -> Member:
    return Member(name, FOLDER, mode=mode)


def tar(members: Iterable[Member], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive, not compressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for member in members:
            archive.addfile(member.info(), io.BytesIO(member.data))
    return out.getvalue()


class Tars(Bench):
    """Unpacks tar archives, also ones that are given by their members."""

    def unpack(self, content: bytes | Iterable[Member]) -> Path:
        return super().unpack(content if isinstance(content, bytes) else gzip.compress(tar(content), 1))


@pytest.fixture
def bench(tmp_path: Path) -> Tars:
    return Tars(tmp_path, Tarball(), "x.tar.gz")


UP = "../../outside"  # from the root of staging
ESCAPES: dict[str, tuple[Member, ...]] = {
    "dots": (Member(f"{UP}/new"),),
    "dots over the victim": (Member(f"{UP}/victim"),),
    "dots inside": (Member("a/../../../outside/new"),),
    "dots that come back": (Member("a/../b"),),
    "dots after a dot": (Member("./../new"),),
    "dots alone": (folder(".."),),
    "dots at the end": (folder("a/.."),),
    "an absolute name": (Member("/ezpz-absolute"),),
    "an absolute folder": (folder("/ezpz-absolute"),),
    "two slashes": (Member("//ezpz-absolute"),),
    "an absolute link": (Member("/ezpz-absolute", LINK, "x"),),
    "through a link": (Member("out", LINK, UP), Member("out/new")),
    "through a link, deep": (Member("a/out", LINK, f"../{UP}"), Member("a/out/b/new")),
    "a folder through a link": (Member("out", LINK, UP), folder("out/new")),
    "a folder that is a link": (Member("out", LINK, UP), folder("out", 0o777)),
    "a link through a link": (Member("out", LINK, UP), Member("out/new", LINK, "x")),
    "through a link to the root": (Member("out", LINK, "/"), Member("out/tmp/ezpz-through")),
    "through a link inside": (folder("a"), Member("in", LINK, "a"), Member("in/new")),
    "through two links": (Member("one", LINK, "two"), Member("two", LINK, UP), Member("one/new")),
    "through a hard link to a link": (Member("l", LINK, UP), Member("h", HARD, "l"), Member("h/new")),
    "a hard link by dots": (Member("h", HARD, f"{UP}/victim"),),
    "a hard link to an absolute name": (Member("h", HARD, "/etc/passwd"),),
    "a hard link through a link": (Member("out", LINK, UP), Member("h", HARD, "out/victim")),
    "a hard link made through a link": (Member("a"), Member("out", LINK, UP), Member("out/h", HARD, "a")),
    "a character device": (Member("null", tarfile.CHRTYPE),),
    "a block device": (Member("disk", tarfile.BLKTYPE),),
    "a FIFO": (Member("fifo", tarfile.FIFOTYPE),),
}


@pytest.mark.parametrize("members", ESCAPES.values(), ids=ESCAPES)
def test_what_would_land_outside_is_refused(bench: Tars, members: tuple[Member, ...]) -> None:
    before = set(os.listdir("/"))
    with pytest.raises(ArchiveUnsafe) as caught:
        bench.unpack((Member("innocent"), *members))
    assert str(bench.archive) in caught.value.message
    assert caught.value.message.isprintable()
    assert set(os.listdir("/")) == before


def test_paths_that_are_too_long_to_be_written(bench: Tars) -> None:
    with pytest.raises(DestinationRefused, match="a path is too long") as caught:
        bench.unpack([Member("/".join(["d"] * 3000))])
    assert len(caught.value.message) < 200


HARMLESS: dict[str, tuple[Member, ...]] = {
    "a file over a link": (Member("l", LINK, f"{UP}/victim"), Member("l", data=b"new")),
    "a file over a hard link to a link": (
        Member("a", LINK, f"{UP}/victim"),
        Member("l", HARD, "a"),
        Member("l", data=b"new"),
    ),
    "a link over a file": (Member("l"), Member("x"), Member("l", LINK, "x"), Member("x", data=b"new")),
    "one name twice": (Member("l", data=b"old, and longer"), Member("l", data=b"new")),
    "a hard link that is written over": (
        Member("a", data=b"first"),
        Member("l", HARD, "a"),
        Member("a", data=b"second"),
        Member("l", data=b"new"),
    ),
}


@pytest.mark.parametrize("members", HARMLESS.values(), ids=HARMLESS)
def test_of_one_name_twice_the_later_counts(bench: Tars, members: tuple[Member, ...]) -> None:
    staging = bench.unpack((*members, Member("other")))
    assert (staging / "l").read_bytes() == b"new"


def test_links_may_point_anywhere_as_long_as_nothing_goes_through_them(bench: Tars) -> None:
    staging = bench.unpack((folder("bin"), Member("bin/python", LINK, "/usr/bin/python3"), Member("up", LINK, UP)))
    assert os.readlink(staging / "bin" / "python") == "/usr/bin/python3"
    assert os.readlink(staging / "up") == UP


@pytest.fixture(scope="module")
def sound() -> bytes:
    """An archive that is all right."""
    noise = random.Random(7).randbytes
    members = [folder("env"), folder("env/bin"), Member("env/link", LINK, "bin")]
    members += [Member(f"env/bin/{n}", data=noise(700)) for n in range(6)]
    return gzip.compress(tar(members), 6, mtime=0)


class TestDamage:
    """What is damaged is called damaged, and never taken for a smaller tree."""

    def test_cut_short_anywhere(self, bench: Tars, sound: bytes) -> None:
        for cut in [*range(0, len(sound), 97), *range(len(sound) - 20, len(sound))]:
            with pytest.raises(ArchiveCorrupt):
                bench.unpack(sound[:cut])

    def test_a_flipped_bit_anywhere_is_noticed_or_means_nothing(self, bench: Tars, sound: bytes) -> None:
        right = tree_version.summarize(os.fsencode(bench.unpack(sound)))
        rng = random.Random(11)
        noticed = 0
        positions = [*range(40), *rng.sample(range(40, len(sound)), 120), *range(len(sound) - 8, len(sound))]
        for position in positions:
            harmed = bytearray(sound)
            harmed[position] ^= 1 << rng.randrange(8)
            try:
                staging = bench.unpack(bytes(harmed))
            except (ArchiveCorrupt, ArchiveUnsafe):
                noticed += 1
            else:
                assert tree_version.summarize(os.fsencode(staging)) == right, f"byte {position}"
        assert noticed > 120

    @pytest.mark.parametrize(
        "content",
        [
            b"just text\n",
            b"PK\x03\x04" + bytes(60),
            b"\xfd7zXZ\0" + bytes(60),
            b"\x1f",
            b"\x1f\x8b",
            tar([Member("a")]),
        ],
        ids=["text", "zip", "xz", "one byte", "two bytes", "a bare tar"],
    )
    def test_what_is_no_gzip(self, bench: Tars, content: bytes) -> None:
        with pytest.raises(ArchiveCorrupt, match="damaged"):
            bench.unpack(content)

    @pytest.mark.parametrize("content", [b"text in gzip\n" * 100, bytes(range(256)) * 8], ids=["text", "bytes"])
    def test_a_gzip_that_holds_no_tar(self, bench: Tars, content: bytes) -> None:
        with pytest.raises(ArchiveCorrupt):
            bench.unpack(gzip.compress(content))

    def test_rubbish_behind_the_archive(self, bench: Tars, sound: bytes) -> None:
        with pytest.raises(ArchiveCorrupt):
            bench.unpack(sound + b"rubbish")

    @pytest.mark.parametrize("cut", [-1024 - 9000, 512 * 5 + 100, 700])
    def test_a_tar_that_was_cut_before_it_was_compressed(self, bench: Tars, sound: bytes, cut: int) -> None:
        with pytest.raises(ArchiveCorrupt):
            bench.unpack(gzip.compress(gzip.decompress(sound)[:cut]))

    def test_a_damaged_header_in_a_sound_gzip(self, bench: Tars) -> None:
        content = bytearray(tar([Member("first"), Member("second"), Member("third")]))
        content[1024 + 150] ^= 1  # in the checksum of the second header
        with pytest.raises(ArchiveCorrupt):
            bench.unpack(gzip.compress(bytes(content)))

    def test_a_size_that_nobody_has(self, bench: Tars) -> None:
        info = Member("huge").info()
        info.size = 1 << 60
        with pytest.raises(ArchiveCorrupt):
            bench.unpack(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))

    @pytest.mark.parametrize(
        "members",
        [
            (Member("h", HARD, "missing"),),
            (folder("d"), Member("h", HARD, "d")),
            (Member("a"), Member("a/b")),
            (Member("a"), folder("a")),
            (folder("a"), Member("a/b"), Member("a")),
            (Member("."),),
            (Member("./"),),
            (Member("h", HARD, "h"),),
            (Member("h", HARD, "."),),
        ],
        ids=lambda members: " ".join(f"{m.name}{'=' + m.to if m.to else ''}" for m in members),
    )
    def test_members_that_contradict_each_other(self, bench: Tars, members: tuple[Member, ...]) -> None:
        with pytest.raises((ArchiveCorrupt, ArchiveUnsafe)):
            bench.unpack((Member("innocent"), Member("other"), *members))

    @pytest.mark.parametrize("value", ["x", "", "nan", "inf", "1e400", "1.x", "9" * 30, "-" + "9" * 30, "1.-5", "0x1"])
    def test_a_time_that_is_none(self, bench: Tars, value: str) -> None:
        try:
            staging = bench.unpack((Member("a", pax={"mtime": value}), folder("b"), Member("c")))
        except EzpzError as e:
            assert e.code.startswith("archive-")  # noqa: PT017 - both are good
        else:
            assert names(staging) == ["a", "b", "c"]

    @pytest.mark.parametrize("pax", [{"path": "a\0b"}, {"linkpath": "a\0b"}])
    @pytest.mark.parametrize("kind", [FILE, LINK, HARD, FOLDER])
    def test_a_name_with_a_nul(self, bench: Tars, pax: dict[str, str], kind: bytes) -> None:
        try:
            staging = bench.unpack((Member("a"), Member("first", kind, "a", pax=pax), Member("c")))
        except EzpzError as e:
            assert e.code.startswith("archive-")  # noqa: PT017 - both are good
        else:
            assert "c" in names(staging)

    def test_a_name_that_is_too_long(self, bench: Tars) -> None:
        with pytest.raises(EzpzError):
            bench.unpack((Member("n" * 300), Member("other")))

    @pytest.mark.parametrize(
        "content", [gzip.compress(b""), gzip.compress(bytes(10240)), gzip.compress(tar([folder("./")]))],
        ids=["nothing", "no members", "only the root"],
    )  # fmt: skip
    def test_what_holds_nothing_is_empty(self, bench: Tars, content: bytes) -> None:
        with pytest.raises((SourceEmpty, ArchiveCorrupt)):
            bench.unpack(content)


class TestTopFolder:
    """A lone top folder is the tree itself; what only looks like one is not."""

    @pytest.mark.parametrize(
        ("members", "left"),
        [
            ((folder("env"), folder("env/bin"), Member("env/bin/x")), ["bin", "bin/x"]),
            ((Member("env/bin/x"), Member("env/pyvenv.cfg")), ["bin", "bin/x", "pyvenv.cfg"]),
            ((Member("./env/x"),), ["x"]),
            ((folder("env/"), folder("env/env"), Member("env/env/x")), ["env", "env/x"]),
            ((folder("a"), folder("a/b"), Member("a/b/c")), ["b", "b/c"]),
            ((folder("./"), folder("./env"), Member("./env/x")), ["env", "env/x"]),
            ((folder("."), Member("env/x")), ["env", "env/x"]),
            ((folder("env"), Member("env/x"), Member("y")), ["env", "env/x", "y"]),
            ((folder("a"), folder("b")), ["a", "b"]),
            ((Member("file"),), ["file"]),
            ((Member("link", LINK, "/tmp"),), ["link"]),
            ((folder("tree"), Member("tree/tree.lone")), ["tree.lone"]),
            ((Member(".ezpz-yeet-receipt.json"), Member("env/x")), ["x"]),
        ],
        ids=lambda value: " ".join(m.name for m in value) if isinstance(value, tuple) else "",
    )
    def test_when_it_is_stripped(self, bench: Tars, members: tuple[Member, ...], left: list[str]) -> None:
        assert names(bench.unpack(members)) == left

    @pytest.mark.parametrize("name", [os.fsdecode(name) for name in STANDARD_DIRECTORIES])
    def test_a_lone_folder_of_an_environment_is_content(self, bench: Tars, name: str) -> None:
        assert names(bench.unpack((folder(name), Member(f"{name}/x")))) == [name, f"{name}/x"]

    def test_its_mode_and_time_become_those_of_the_tree(self, bench: Tars) -> None:
        top = Member("env", FOLDER, mode=0o555, pax={"mtime": f"{WHEN}.123456789"})
        staging = bench.unpack((top, Member("env/x", mode=0o400)))
        assert staging.stat().st_mode & 0o777 == 0o555
        assert staging.stat().st_mtime_ns == WHEN * 10**9 + 123_456_789
        assert (staging / "x").stat().st_mode & 0o777 == 0o400

    def test_the_receipt_of_an_earlier_yeet_is_not_taken_along(self, bench: Tars) -> None:
        """`tar czf env.tar.gz env` of what stands on a node."""
        own = [os.fsdecode(name) for name in layout.OWN_FILES]
        receipt = own[0]
        staging = bench.unpack((folder("env"), *(Member(f"env/{name}") for name in own), Member("env/x")))
        assert names(staging) == ["x"]
        staging = bench.unpack((folder("./"), Member(f"./{receipt}"), Member(f"./a/{receipt}"), Member("./x")))
        assert names(staging) == ["a", f"a/{receipt}", "x"]


class TestOddButSound:
    """What GNU tar and others really write."""

    def test_names_that_are_not_utf8(self, bench: Tars) -> None:
        raw = [b"caf\xe9", b"\xff\xfe", b"new\nline", "ü".encode()]
        for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
            members = [Member(os.fsdecode(name), data=name) for name in raw]
            members.append(Member(os.fsdecode(b"link\x80"), LINK, os.fsdecode(raw[0])))
            staging = os.fsencode(bench.unpack(gzip.compress(tar(members, form=form))))
            assert sorted(os.listdir(staging)) == sorted([*raw, b"link\x80"])
            assert os.readlink(staging + b"/link\x80") == raw[0]

    @pytest.mark.scale
    def test_twenty_thousand_members(self, bench: Tars) -> None:
        count = 20_000
        members = (Member(f"d{n % 100}/{n}", data=b"x") for n in range(count))
        bench.archive.write_bytes(gzip.compress(tar(members), 1))
        staging = bench.unpack(bench.archive.read_bytes())
        assert sum(len(files) for _, _, files in os.walk(staging)) == count
        assert bench.moved == count

    @pytest.mark.processes
    def test_sparse_files(self, bench: Tars) -> None:
        source = bench.root / "source"
        source.mkdir()
        with (source / "holes").open("wb") as file:
            file.truncate(3 << 20)
            file.seek(1 << 20)
            file.write(b"middle")
        (source / "plain").write_text("plain")
        for form in ("posix", "gnu"):
            run = subprocess.run(
                ["tar", f"--format={form}", "--sparse", "-C", source, "-czf", "-", "."], capture_output=True, check=True
            )
            staging = bench.unpack(run.stdout)
            for name in ("holes", "plain"):
                assert (staging / name).read_bytes() == (source / name).read_bytes()

    def test_several_gzip_members_in_a_row(self, bench: Tars) -> None:
        whole = tar([Member("a"), Member("b")])
        staging = bench.unpack(gzip.compress(whole[:700]) + gzip.compress(whole[700:]))
        assert names(staging) == ["a", "b"]

    def test_zeros_behind_the_archive(self, bench: Tars) -> None:
        assert names(bench.unpack(gzip.compress(tar([Member("a"), Member("b")])) + bytes(512))) == ["a", "b"]

    def test_folders_that_are_not_named_are_made(self, bench: Tars) -> None:
        assert names(bench.unpack((Member("a/b/c/x"), Member("y")))) == ["a", "a/b", "a/b/c", "a/b/c/x", "y"]

    def test_a_folder_that_comes_after_its_files(self, bench: Tars) -> None:
        staging = bench.unpack((Member("a/x"), Member("y"), folder("a", 0o500)))
        assert (staging / "a").stat().st_mode & 0o777 == 0o500
        assert (staging / "a").stat().st_mtime == WHEN

    @pytest.mark.parametrize("packed", [0, 1, 1 << 20])
    def test_the_estimated_size_is_that_of_what_was_packed(self, bench: Tars, packed: int) -> None:
        bench.archive.write_bytes(gzip.compress(bytes(packed)))
        assert estimated_size(str(bench.archive)) == packed

    def test_the_estimate_is_never_less_than_the_file(self, bench: Tars) -> None:
        content = gzip.compress(random.Random(3).randbytes(5000))
        bench.archive.write_bytes(content[:-4] + (7).to_bytes(4, "little"))
        assert estimated_size(str(bench.archive)) == 7 + (1 << 32)


def test_it_stops_between_two_members(bench: Tars) -> None:
    bench.stop_after = 1
    with pytest.raises(Cancelled):
        bench.unpack([Member(f"f{n}") for n in range(50)])
    assert 0 < len(names(bench.staging)) < 50
