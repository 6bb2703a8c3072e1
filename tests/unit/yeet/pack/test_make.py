"""Making archives: every format there and back by other programs, the same bytes, and only when there is need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.common import layout, manifest, tree_version
from ezpz.agent.common.cancel import CancelToken
from ezpz.agent.common.wire_paths import decode_path
from ezpz.errors import SourceEmpty, UsageError
from ezpz.yeet.archive import tar_header
from ezpz.yeet.archive.info import is_complete, read_info, read_records
from ezpz.yeet.pack.archive_manifest import ArchiveManifest, manifest_member
from ezpz.yeet.pack.archive_plan import plan_archive
from ezpz.yeet.pack.make import MADE, REPLACED, UNCHANGED, Archive, ArchiveRequest, make_archive
from ezpz.yeet.pack.tar_writer import write_tar
from ezpz.yeet.source.archive_formats import (
    FORMATS,
    GZIP,
    SQUASHFS,
    TAR,
    ZSTD,
    ArchiveFormat,
    choose_format,
    choose_level,
    detect_format,
)
from ezpz.yeet.source.scanner import scan_directory
from tests.contract.support import photograph
from tests.lab.compare import compare_trees
from tests.lab.nasty import nasty_tree
from tests.waiting import unchanging

if TYPE_CHECKING:
    from pathlib import Path

    from ezpz.yeet.model.events import Event

OURS = (layout.MANIFEST,)
NANOSECONDS = (ZSTD, GZIP, TAR)
LATE = ("--delay-directory-restore",)
UNPACKERS = {
    "tar": (
        NANOSECONDS,
        ["tar", "--warning=no-unknown-keyword", "--delay-directory-restore", "-xpf", "{}", "-C", "{}"],
    ),
    "bsdtar": (NANOSECONDS, ["bsdtar", "-xpf", "{}", "-C", "{}"]),
    "unsquashfs": ((SQUASHFS,), ["unsquashfs", "-q", "-n", "-f", "-d", "{1}", "{0}"]),
}
WAYS = [(kind, tool) for tool, (kinds, _) in UNPACKERS.items() for kind in kinds]
every_format = pytest.mark.parametrize("kind", FORMATS.values(), ids=lambda kind: kind.name)


def nothing(_: int) -> None:
    """Take what `moved` is told."""


def need(kind: ArchiveFormat) -> None:
    if kind is SQUASHFS and shutil.which("mksquashfs") is None:
        pytest.skip("mksquashfs is not here")


class Bench:
    """A source, and archives of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root / "source"
        (self.source / "sub").mkdir(parents=True)
        (self.source / "file").write_text("content")
        (self.source / "sub" / "other").write_text("more")
        self.events: list[Event] = []

    def make(self, **wanted: Any) -> Archive:
        asked = ArchiveRequest(src=str(self.source))
        return make_archive(replace(asked, **wanted), os.environ, self.events.append, CancelToken())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nasty_tree(tmp_path_factory.mktemp("nasty") / "nasty")


@pytest.mark.processes
@pytest.mark.parametrize(("kind", "tool"), WAYS, ids=lambda value: getattr(value, "name", value))
def test_other_programs_unpack_the_same_tree(nasty: Path, tmp_path: Path, kind: ArchiveFormat, tool: str) -> None:
    need(kind)
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not here")
    before = photograph(nasty)
    path = tmp_path / f"x{kind.suffixes[0]}"
    made = make_archive(ArchiveRequest(src=str(nasty), output=str(path)), os.environ, lambda _: None, CancelToken())
    (tmp_path / "out").mkdir()
    argv = [part.replace("{0}", "{}").replace("{1}", "{}") for part in UNPACKERS[tool][1]]
    places = [str(path), str(tmp_path / "out")]
    places = places[::-1] if tool == "unsquashfs" else places
    subprocess.run([part.format(places.pop(0)) if part == "{}" else part for part in argv], check=True, env=UTF8)
    found = compare_trees(nasty, tmp_path / "out", mtime_ns=kind in NANOSECONDS, but=OURS)
    assert [each for each in found if tool == "tar" or not each.startswith("'.': mtime")] == []  # of where it stands
    assert photograph(nasty) == before
    assert made.size == path.stat().st_size
    sparse = (tmp_path / "out" / "contents" / "sparse").stat()
    assert sparse.st_blocks * 512 < sparse.st_size


UTF8 = {**os.environ, "LC_ALL": "C.UTF-8"}


@pytest.mark.processes
@every_format
def test_the_same_tree_gives_the_same_bytes_however_many_read_it(
    nasty: Path, tmp_path: Path, kind: ArchiveFormat
) -> None:
    need(kind)
    found = scan_directory(os.fsencode(nasty))
    contents = []
    for threads in (1, 5):
        plan = replace(plan_archive(found), threads=threads)
        path = tmp_path / f"x{kind.suffixes[0]}"
        if kind is SQUASHFS:
            from ezpz.yeet.pack.squashfs_writer import write_squashfs

            write_squashfs(ArchiveManifest(plan), str(path), kind, 1, nothing, CancelToken())
        else:
            write_tar(ArchiveManifest(plan), str(path), kind, choose_level(kind, None), nothing, CancelToken())
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_a_sparse_file_on_another_disk_is_the_same(tmp_path: Path) -> None:
    """Which may have other holes."""
    archives = []
    for step in (64 << 10, 256 << 10):
        source = tmp_path / str(step) / "source"
        source.mkdir(parents=True)
        with (source / "sparse").open("wb") as file:
            file.truncate(8 << 20)
            for start in range(0, 1 << 20, step):  # zeros that are written, in part
                file.seek(start)
                file.write(bytes(step // 2))
            file.seek(3 << 20)
            file.write(b"middle")
        for path in (source / "sparse", source):
            os.utime(path, ns=(1, 1))
        path = tmp_path / f"{step}.tar"
        made = make_archive(
            ArchiveRequest(src=str(source), output=str(path)), os.environ, lambda _: None, CancelToken()
        )
        archives.append(path.read_bytes())
        assert made.size < 1 << 20
    assert archives[0] == archives[1]


class TestManifest:
    """The first member tells what is in it."""

    @pytest.mark.processes
    @every_format
    def test_what_it_tells(self, nasty: Path, tmp_path: Path, kind: ArchiveFormat) -> None:
        need(kind)
        path = tmp_path / f"x{kind.suffixes[0]}"
        made = make_archive(ArchiveRequest(src=str(nasty), output=str(path)), os.environ, lambda _: None, CancelToken())
        told = read_info(str(path))
        assert told is not None
        assert (told.kind, told.base["mode"], told.prefix) == ("data", "none", str(nasty))
        assert (told.files, told.bytes) == (made.files, made.content_bytes)
        assert is_complete(str(path), told)
        facts = {decode_path(record[1]): record for record in read_records(str(path))}
        assert facts.keys() == {path for path, _ in tree_version.walk(os.fsencode(nasty))}
        with (nasty / "contents" / "random").open("rb") as file:
            assert facts[b"contents/random"].digest == manifest.digest(file.read())
        assert told.version == tree_version.summarize(os.fsencode(nasty)).version
        if kind is not SQUASHFS:
            done = subprocess.run(["tar", "-tf", path], capture_output=True, env=UTF8)
            assert done.stdout.splitlines()[0] == b"./" + layout.MANIFEST

    def test_data_without_links_into_itself_does_not_say_where_it_stood(self, bench: Bench) -> None:
        told = read_info(bench.make().path)
        assert told is not None
        assert told.prefix == ""

    @pytest.mark.processes
    @pytest.mark.parametrize("content", [b"", b"x" * 700, b"\x28\xb5\x2f\xfdrubbish", b"hsqsrubbish"])
    def test_what_has_none_tells_nothing(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.tar.zst").write_bytes(content)
        assert read_info(str(tmp_path / "x.tar.zst")) is None


HONEST: dict[str, Any] = {
    "format": manifest.FORMAT, "kind": "data", "prefix": "/lus/env", "base": {"mode": "none"}, "version": "0" * 64,
    "contents": manifest.content_digest(0), "inputs": "0" * 64, "files": 0, "bytes": 0, "packed": 0, "dropped": [],
}  # fmt: skip


def told_in(path: Path, header: str, *lines: str) -> Path:
    """An archive with nothing but a manifest."""
    text = "".join(f"{line}\n" for line in (header, *lines)).encode()
    path.write_bytes(manifest_member(text) + tar_header.END)
    return path


class TestLies:
    """A manifest may come from anywhere: what makes no sense is no manifest, and never a traceback."""

    def test_an_honest_one(self, tmp_path: Path) -> None:
        assert read_info(str(told_in(tmp_path / "x.tar", json.dumps(HONEST)))) is not None

    @pytest.mark.parametrize("fact", [fact for fact in HONEST if fact != "base"])
    @pytest.mark.parametrize("lie", [None, -1, 1.5, True, {}, [1], ["\ud800"], "\ud800", "x" * 10], ids=json.dumps)
    def test_a_fact_that_is_none(self, tmp_path: Path, fact: str, lie: object) -> None:
        told = read_info(str(told_in(tmp_path / "x.tar", json.dumps({**HONEST, fact: lie}))))
        assert (told is not None) == (lie == "x" * 10 and type(HONEST[fact]) is str and fact != "format")

    @pytest.mark.parametrize(
        "header", ["", "[]", "{}", "[" * 100_000, "null", "{", '{"format": ', "\0", json.dumps({**HONEST, "base": []})]
    )
    def test_what_is_no_header(self, tmp_path: Path, header: str) -> None:
        assert read_info(str(told_in(tmp_path / "x.tar", header))) is None

    @pytest.mark.parametrize(
        "line",
        [
            '["f","a",420,0,3,"0",7]', '["f","a",420,0,3,"0",[]]', '["f","\\ud800",420,0,3,"0"]',
            '["f","../a",420,0,3,"0"]', '["h","a","\\ud800"]', '["h","a","/etc"]', '["l","a",0,"\\ud800"]',
            '["x","a"]', '["d","a"]', "{}", "[]", "nonsense", '["f",1,2,3,4,5]', "[" * 100_000,
        ],
    )  # fmt: skip
    def test_an_archive_that_lies_about_its_entries_is_made_anew(self, bench: Bench, line: str) -> None:
        path = bench.root / "source.tar"
        contents = manifest.content_digest(manifest.line_hash(line.encode() + b"\n"))
        told_in(path, json.dumps({**HONEST, "contents": contents}), line)
        made = bench.make(format="tar")
        assert (made.outcome, made.before is not None) == (REPLACED, True)
        assert bench.make(format="tar").outcome == UNCHANGED


class TestNeed:
    """A good archive of the same stays as it is."""

    @pytest.mark.processes
    @every_format
    def test_a_second_time_nothing_is_done(self, bench: Bench, kind: ArchiveFormat) -> None:
        need(kind)
        first = bench.make(format=kind.name)
        before = unchanging(first.path)
        bench.events.clear()
        second = bench.make(format=kind.name)
        assert (first.outcome, second.outcome, second.path) == (MADE, UNCHANGED, first.path)
        assert unchanging(first.path) == before
        assert [type(event).__name__ for event in bench.events] == ["PhaseStarted"]

    def test_what_changed_is_told(self, bench: Bench) -> None:
        bench.make()
        (bench.source / "file").write_text("longer content")
        (bench.source / "sub" / "other").unlink()
        (bench.source / "added").touch()
        made = bench.make()
        assert made.outcome == REPLACED
        assert made.before is not None
        assert made.before.changed == (b"file", b"sub")
        assert (made.before.new, made.before.gone) == ((b"added",), (b"sub/other",))
        assert made.before.summary == "2 changed (file, sub), 1 new (added), 1 gone (sub/other)"
        assert bench.make().outcome == UNCHANGED

    def test_another_way_to_make_it_is_a_reason(self, bench: Bench) -> None:
        bench.make()
        made = bench.make(level=3)
        assert made.outcome == REPLACED
        assert made.before is not None
        assert "other options" in made.before.summary

    def test_one_that_was_cut_short_is_made_anew(self, bench: Bench) -> None:
        made = bench.make()
        os.truncate(made.path, made.size - 1)
        again = bench.make()
        assert again.before is not None
        assert "not as long" in again.before.summary
        assert (again.outcome, again.size) == (REPLACED, made.size)

    @pytest.mark.processes
    def test_one_of_somebody_else_is_made_anew(self, bench: Bench) -> None:
        subprocess.run(["tar", "-C", bench.source, "-czf", bench.root / "source.tar.gz", "."], check=True)
        made = bench.make(format="tar.gz")
        assert made.before is not None
        assert "no manifest" in made.before.summary


class TestWanted:
    """What makes no sense is said before anything is done."""

    def test_the_name_tells_the_format(self) -> None:
        assert choose_format(None, None) is ZSTD
        assert choose_format(None, "/x/y.TGZ") is GZIP
        assert choose_format("tar", None) is TAR
        assert choose_format("tar", "y.tar") is TAR

    @pytest.mark.parametrize(
        "wanted",
        [
            {"output": "x.zip"}, {"output": "x.tar", "format": "tar.gz"}, {"level": 20}, {"level": 0},
            {"format": "tar.gz", "level": 10}, {"format": "tar", "level": 1},
        ],
    )  # fmt: skip
    def test_contradictions(self, bench: Bench, wanted: dict[str, Any]) -> None:
        before = photograph(bench.root)
        with pytest.raises(UsageError):
            bench.make(**wanted)
        assert photograph(bench.root) == before

    def test_nothing_left(self, bench: Bench) -> None:
        with pytest.raises(SourceEmpty):
            bench.make(exclude=("*",))

    def test_a_format_is_known_by_how_a_file_begins(self, bench: Bench) -> None:
        for kind in (ZSTD, GZIP, TAR):
            path = bench.make(format=kind.name).path
            os.rename(path, f"{path}.blob")
            assert detect_format(f"{path}.blob") is kind
