"""An archive is the whole tree or nothing: round trips, the same bytes, and no half of one left behind."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common import layout
from ezpz.agent.destination.removal import STALE
from ezpz.errors import DestinationRefused, SourceChanged, SourceUnreadable, UsageError
from ezpz.runtime.atomic_file import EVERYBODY, remove_stale
from ezpz.yeet.archive.info import estimated_size
from ezpz.yeet.pack.archive_plan import ArchivePlan
from ezpz.yeet.pack.make import archive_path
from ezpz.yeet.relocate.extra_entries import ExtraEntries
from ezpz.yeet.source.inspect import inspect_source
from ezpz.yeet.source.link_policy import LinkPolicy
from ezpz.yeet.source.scanner import scan_directory
from tests.contract.packing import pack
from tests.contract.support import (
    NOBODY,
    as_ordinary_user,
    needs_root,
    on_small_disk,
    photograph,
    powerless,
    run_code,
)
from tests.lab.compare import compare_trees
from tests.lab.nasty import nasty_tree

if TYPE_CHECKING:
    from pathlib import Path

    from ezpz.yeet.source.scan import Scan


def nothing(_: int) -> None:
    """Take what `moved` is told."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_text("content")
    (folder / "sub" / "other").write_text("more")
    return folder


def scanned(root: Path) -> Scan:
    return scan_directory(os.fsencode(root))


class TestWriting:
    """Beside its place, then into it."""

    @pytest.mark.processes
    def test_tar_unpacks_the_same_tree(self, tmp_path: Path) -> None:
        nasty = nasty_tree(tmp_path / "nasty")
        before = photograph(nasty)
        moved: list[int] = []
        found = scanned(nasty)
        size = pack(found, str(tmp_path / "x.tar.gz"), moved.append)
        assert size == (tmp_path / "x.tar.gz").stat().st_size
        assert sum(moved) == found.size
        (tmp_path / "out").mkdir()
        late = ("--delay-directory-restore", "-xpzf")
        subprocess.run(["tar", *late, tmp_path / "x.tar.gz", "-C", tmp_path / "out"], check=True)
        assert compare_trees(nasty, tmp_path / "out", but=(layout.MANIFEST,)) == []
        assert photograph(nasty) == before

    @pytest.mark.processes
    def test_plain_tar_of_an_ordinary_user_unpacks_it(self, tmp_path: Path) -> None:
        """Which closes a read-only folder as soon as a member comes that is not in it."""
        nasty, work = nasty_tree(tmp_path / "nasty"), tmp_path / "work"
        work.mkdir()
        pack(scanned(nasty), str(work / "x.tar.gz"), nothing)
        code = (
            "import os, subprocess, sys\nfrom pathlib import Path\nfrom ezpz.agent.common import layout\n"
            "from ezpz.agent.destination.remove_tree import remove_tree\n"
            "from tests.lab.compare import compare_trees\nos.chdir(sys.argv[1])\nos.mkdir('out')\n"
            "our = (layout.MANIFEST,)\n"
            "done = subprocess.run(['tar', '--warning=no-unknown-keyword', '-xpzf', 'x.tar.gz', '-C', 'out'])\n"
            "print(done.returncode, compare_trees(Path(sys.argv[2]), Path('out'), but=our))\nremove_tree(b'out')\n"
        )
        done = as_ordinary_user(code, work, nasty)
        assert (done.stdout, done.stderr) == ("0 []\n", "")

    def test_what_python_reads_of_it(self, source: Path, tmp_path: Path) -> None:
        pack(scanned(source), str(tmp_path / "x.tar.gz"), nothing)
        with tarfile.open(tmp_path / "x.tar.gz") as archive:
            members = archive.getmembers()
        manifest = f"./{os.fsdecode(layout.MANIFEST)}"
        assert [member.name for member in members] == [manifest, ".", "./file", "./sub", "./sub/other"]
        assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}

    def test_case_34_what_links_that_lead_out_lead_to_is_in_it(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        (out / "folder").mkdir(parents=True)
        (out / "folder" / "one").write_text("one")
        os.link(out / "folder" / "one", out / "folder" / "two")
        (out / "setuid").write_text("tool")
        (out / "setuid").chmod(0o4755)
        (source / "file-link").symlink_to(out / "setuid")
        (source / "folder-link").symlink_to("../out/folder")
        (source / "own").symlink_to(source / "sub" / ".." / "file")
        root = os.fsencode(source)
        moved: list[int] = []
        found = scan_directory(root, link_policy=LinkPolicy((root,)))
        pack(found, str(tmp_path / "x.tar.gz"), moved.append)
        assert sum(moved) == found.size == len("contentmoreonetool")
        with tarfile.open(tmp_path / "x.tar.gz") as archive:
            kinds = {member.name: (member.type, member.linkname, member.mode) for member in archive.getmembers()}
            texts = {name: archive.extractfile(name) for name in ("./file-link", "./folder-link/two")}
            assert {name: file and file.read() for name, file in texts.items()} == {
                "./file-link": b"tool", "./folder-link/two": b"one",
            }  # fmt: skip
        assert kinds["./folder-link"][0] == tarfile.DIRTYPE
        assert kinds["./file-link"] == (tarfile.REGTYPE, "", 0o755)
        assert kinds["./folder-link/two"][:2] == (tarfile.LNKTYPE, "./folder-link/one")
        assert kinds["./own"][0] == tarfile.SYMTYPE

    def test_the_same_tree_gives_the_same_bytes(self, source: Path, tmp_path: Path) -> None:
        found = scanned(source)
        for name in ("a.tar.gz", "b.tar.gz"):
            pack(found, str(tmp_path / name), nothing)
        assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()

    @pytest.mark.processes
    def test_the_same_tree_elsewhere_gives_the_same_content(self, source: Path, tmp_path: Path) -> None:
        subprocess.run(["cp", "-a", source, tmp_path / "copy"], check=True)
        contents = []
        for root in (source, tmp_path / "copy"):
            pack(scanned(root), str(tmp_path / "x.tar.gz"), nothing)
            contents.append(sorted(gzip.decompress((tmp_path / "x.tar.gz").read_bytes())))
        assert contents[0] == contents[1]

    def test_an_older_archive_is_replaced_and_the_umask_is_obeyed(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ArchivePlan, "readers", EVERYBODY)  # the directories of pytest are closed to others
        path = tmp_path / "x.tar.gz"
        path.write_text("older")
        before = os.umask(0o027)
        try:
            pack(scanned(source), str(path), nothing)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o640
        with tarfile.open(path) as archive:
            assert len(archive.getnames()) == 5
        assert sorted(os.listdir(tmp_path)) == ["source", "x.tar.gz"]

    PACK = (
        "import os, sys\nfrom ezpz.yeet.source.scanner import scan_directory\nfrom tests.contract.packing import pack\n"
        "pack(scan_directory(os.fsencode(sys.argv[1])), sys.argv[2], lambda _: None)\n"
    )

    @pytest.mark.processes
    @pytest.mark.parametrize("name", ["x.tar.gz", "x.squashfs"])
    def test_it_is_on_the_disk_before_it_has_its_name(self, source: Path, tmp_path: Path, name: str) -> None:
        if shutil.which("strace") is None or (name == "x.squashfs" and shutil.which("mksquashfs") is None):
            pytest.skip("strace or mksquashfs is not here")
        calls = tmp_path / "calls"
        trace = ["strace", "-y", "-e", "trace=fsync,rename,renameat,renameat2", "-o", str(calls)]
        done = run_code(self.PACK, source, tmp_path / name, under=trace)
        assert done.returncode == 0, done.stderr
        synced, named, folder = [line for line in calls.read_text().splitlines() if str(tmp_path) in line]
        assert synced.startswith("fsync")
        assert named.startswith("rename")
        assert f'"{tmp_path / name}"' in named
        assert folder.startswith("fsync")
        assert f"<{tmp_path}>" in folder

    def test_a_long_source_of_empty_files(self, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        for number in range(600):
            (tmp_path / "source" / f"{number}").touch()
        pack(scanned(tmp_path / "source"), str(tmp_path / "x.tar.gz"), nothing)
        with tarfile.open(tmp_path / "x.tar.gz") as archive:
            assert len(archive.getnames()) == 602


UNREADABLE = b"/proc/%d/mem" % os.getpid()
"""A file whose first bytes cannot be read: an I/O error."""


class TestFailures:
    """Whatever goes wrong, an older archive stays and no part of a new one does."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "x.tar.gz").write_text("older")
        return tmp_path / "out" / "x.tar.gz"

    @staticmethod
    def assert_as_before(path: Path) -> None:
        assert path.read_text() == "older"
        assert os.listdir(path.parent) == ["x.tar.gz"]

    def test_a_file_that_changed_since_it_was_counted(self, source: Path, path: Path) -> None:
        found = scanned(source)
        (source / "file").write_text("content and more")
        with pytest.raises(SourceChanged, match="'file'"):
            pack(found, str(path), nothing)
        self.assert_as_before(path)

    @pytest.mark.parametrize("how", ["replaced", "replaced, with its time", "written, with its time"])
    def test_a_file_of_the_same_size_that_is_not_what_was_counted(self, source: Path, path: Path, how: str) -> None:
        found = scanned(source)
        counted = (source / "file").stat()
        target = source / "file" if how.startswith("written") else source / "new"
        target.write_bytes(b"x" * counted.st_size)
        if how.endswith("time"):
            os.utime(target, ns=(counted.st_atime_ns, counted.st_mtime_ns))
        target.replace(source / "file")
        with pytest.raises(SourceChanged, match="'file'"):
            pack(found, str(path), nothing)
        self.assert_as_before(path)

    def test_a_file_that_was_added_while_it_was_packed(self, source: Path, path: Path) -> None:
        found = scanned(source)
        with pytest.raises(SourceChanged, match="'more' changed during the run"):
            pack(found, str(path), lambda _: (source / "more").touch())
        self.assert_as_before(path)

    def test_a_file_that_cannot_be_read_to_its_end(self, path: Path) -> None:
        grafts = ExtraEntries()
        grafts.add_file(b"memory", UNREADABLE)
        with pytest.raises(SourceUnreadable, match=r"cannot read '.*/mem': Input/output error") as caught:
            pack(grafts.scan, str(path), nothing)
        assert "allowed" not in caught.value.hint
        self.assert_as_before(path)

    @pytest.mark.parametrize("becomes", ["nothing", "a link", "a folder", "a FIFO"])
    def test_a_file_that_is_no_longer_one(self, source: Path, path: Path, becomes: str) -> None:
        found = scanned(source)
        (source / "file").unlink()
        if becomes == "a link":
            (source / "file").symlink_to("/etc/passwd")
        elif becomes == "a folder":
            (source / "file").mkdir()
        elif becomes == "a FIFO":
            os.mkfifo(source / "file")
        with pytest.raises(SourceChanged, match="'file'"):
            pack(found, str(path), nothing)
        self.assert_as_before(path)

    CODE = (
        "import os, sys\nfrom ezpz.errors import EzpzError\nfrom tests.contract.packing import pack\n"
        "from ezpz.yeet.source.scanner import scan_directory\n"
        "found = scan_directory(os.fsencode(sys.argv[2]))\nexec(sys.argv[3])\n"
        "try:\n    pack(found, os.path.join(sys.argv[1], 'x.tar.gz'), lambda _: None)\n"
        "except EzpzError as e:\n    print(e.code)\nprint(sorted(os.listdir(sys.argv[1])))\n"
    )

    @pytest.mark.processes
    def test_a_disk_that_fills_up(self, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "noise").write_bytes(os.urandom(400_000))
        older = "open(os.path.join(sys.argv[1], 'x.tar.gz'), 'w').close()"
        done = on_small_disk(self.CODE, tmp_path / "disk", "128k", tmp_path / "source", older)
        assert (done.stdout, done.stderr) == ("no-space\n['x.tar.gz']\n", "")

    @pytest.mark.processes
    def test_a_folder_that_may_not_be_written(self, source: Path, path: Path) -> None:
        path.parent.chmod(0o555)
        done = powerless(self.CODE, path.parent, source, "")
        path.parent.chmod(0o755)
        assert (done.stdout, done.stderr) == ("destination-unwritable\n['x.tar.gz']\n", "")
        self.assert_as_before(path)

    @pytest.mark.processes
    def test_a_file_that_may_not_be_read(self, source: Path, path: Path) -> None:
        done = powerless(self.CODE, path.parent, source, "os.chmod(os.path.join(sys.argv[2], 'file'), 0)")
        assert (done.stdout, done.stderr) == ("source-unreadable\n['x.tar.gz']\n", "")
        self.assert_as_before(path)


class TestSweep:
    """What killed processes left beside an archive goes, once it must be theirs."""

    @pytest.mark.parametrize("name", [".ezpz-a1b2_c3d.part", ".ezpz-4711-0a1b2c3d.part"])
    @pytest.mark.parametrize("age", [STALE - 60, STALE + 60])
    def test_a_part_goes_when_it_has_not_changed_for_an_hour(self, tmp_path: Path, name: str, age: float) -> None:
        (tmp_path / name).write_text("part")
        (tmp_path / f"{name[:-5]}x.part").mkdir()
        (tmp_path / f"{name[:-5]}x.part" / "archive").write_text("part")
        remove_stale(str(tmp_path), time.time() + age)
        assert len(list(tmp_path.iterdir())) == (0 if age > STALE else 2)

    @pytest.mark.parametrize("name", ["x.part", ".ezpz-.part", ".ezpz-x.part.tar", ".ezpz-x y.part", "ezpz-x.part"])
    def test_nothing_else_goes(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("mine")
        (tmp_path / "target").mkdir()
        (tmp_path / ".ezpz-link.part").symlink_to("target")
        remove_stale(str(tmp_path), time.time() + 2 * STALE)
        assert sorted(os.listdir(tmp_path)) == sorted([name, "target"])

    @needs_root
    def test_nor_what_is_somebody_elses(self, tmp_path: Path) -> None:
        (tmp_path / ".ezpz-theirs.part").write_text("part")
        os.chown(tmp_path / ".ezpz-theirs.part", NOBODY, NOBODY)
        remove_stale(str(tmp_path), time.time() + 2 * STALE)
        assert os.listdir(tmp_path) == [".ezpz-theirs.part"]

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        remove_stale(str(tmp_path / "gone"), time.time())


class TestPlace:
    """Where an archive goes."""

    def test_beside_the_source_by_its_name_as_given(self, source: Path, tmp_path: Path) -> None:
        assert archive_path(inspect_source(str(source)), None) == str(tmp_path / "source.tar.zst")
        (tmp_path / "link").symlink_to(source)
        assert archive_path(inspect_source(str(tmp_path / "link")), None) == str(tmp_path / "link.tar.zst")

    @pytest.mark.parametrize("name", ["y.tar.gz", "y.tgz", "Y.TGZ", "../y.tgz"])
    def test_where_one_says(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        assert archive_path(inspect_source(str(source)), name) == os.path.normpath(tmp_path / "work" / name)

    @pytest.mark.parametrize("name", ["y", "y.tgx", "y.zip", "y.tar.gz.x", "y/"])
    def test_another_suffix_is_a_usage_error(self, source: Path, name: str) -> None:
        with pytest.raises(UsageError, match=f"'{name}'"):
            archive_path(inspect_source(str(source)), name)

    @pytest.mark.parametrize("where", ["source", "source/sub", "link", "link/sub", "source/sub/.."])
    def test_inside_the_source_is_refused(self, source: Path, tmp_path: Path, where: str) -> None:
        (tmp_path / "link").symlink_to(source)
        for given in (source, tmp_path / "link"):
            with pytest.raises(DestinationRefused, match="inside the source"):
                archive_path(inspect_source(str(given)), str(tmp_path / where / "x.tar.gz"))

    def test_a_neighbour_with_a_longer_name_is_not_inside(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "source-2").mkdir()
        wanted = str(tmp_path / "source-2" / "x.tar.gz")
        assert archive_path(inspect_source(str(source)), wanted) == wanted

    def test_a_folder_that_is_not_there(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(DestinationRefused, match="does not exist"):
            archive_path(inspect_source(str(source)), str(tmp_path / "missing" / "x.tar.gz"))


@pytest.mark.parametrize(("number", "asks_for"), [(errno.EACCES, "allowed to read"), (errno.EIO, "filesystem well")])
def test_the_hint_for_an_archive_that_cannot_be_read_depends_on_the_cause(
    monkeypatch: pytest.MonkeyPatch, number: int, asks_for: str
) -> None:
    def failing(path: str) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr("ezpz.yeet.archive.info.os.path.getsize", failing)
    with pytest.raises(SourceUnreadable) as caught:
        estimated_size("/p/env.tar")
    assert caught.value.message == f"cannot read '/p/env.tar': {os.strerror(number)}"
    assert asks_for in caught.value.hint
