"""Every strategy that the registry names ends with the same tree, from the same nasty source, and leaves that alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ezpz.agent.common import tree_version
from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.yeet.strategies.base import STRATEGIES
from tests.contract.sources import DESTINATION, EVERY, OURS, Sources, Way, arrive, fill, relocation_of, ways
from tests.contract.support import as_ordinary_user, copied_without, on_small_disk, photograph, powerless
from tests.lab.compare import compare_trees
from tests.lab.nasty import nasty_tree
from tests.waiting import act_when

every_way = pytest.mark.parametrize("way", EVERY, ids=str)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nasty_tree(tmp_path_factory.mktemp("source") / "nasty")


def test_the_registry_has_the_five_ways() -> None:
    assert {"direct", "rsync", "cp", "compress", "tarball"} <= set(STRATEGIES.names())
    assert {way.strategy for way in ways() if way.maker in OURS} <= {"squashfs", "tarball"}


@every_way
def test_a_copy_is_the_same_in_everything(way: Way, nasty: Path, sources: Sources, tmp_path: Path) -> None:
    moved: list[int] = []
    staging = tmp_path / "run" / "tree"
    fill(way, sources.job(way, nasty, staging, moved=moved.append))
    assert compare_trees(nasty, staging, mtime_ns=way.keeps_nanoseconds) == []
    assert tree_version.summarize(os.fsencode(staging)) == tree_version.summarize(os.fsencode(nasty))
    assert [path.name for path in staging.parent.iterdir()] == ["tree"]
    assert sum(moved) == sources.scan(nasty).size


@every_way
def test_the_source_is_only_read(way: Way, nasty: Path, sources: Sources, tmp_path: Path) -> None:
    job = sources.job(way, nasty, tmp_path / "tree", relocation=relocation_of(nasty, nasty))
    root = Path(os.fsdecode(job.root))
    before = photograph(root)
    fill(way, job)
    assert photograph(root) == before


@every_way
def test_what_is_excluded_is_not_there(way: Way, nasty: Path, sources: Sources, tmp_path: Path) -> None:
    exclude = ("__pycache__", "*-leading*", "dir *", "contents/r*", "hard-a/two", "/links/loop", "read-only/")
    fill(way, sources.job(way, nasty, tmp_path / "tree", exclude=exclude))
    expected = copied_without(
        nasty, tmp_path / "expected",
        *("pkg/__pycache__", "contents/random", "hard-a/two", "links/loop", "modes/read-only"),
        *(str(path.relative_to(nasty)) for path in (nasty / "names").glob("dir *")),
    )  # fmt: skip
    assert compare_trees(expected, tmp_path / "tree", mtime_ns=way.keeps_nanoseconds) == []


@every_way
def test_a_version_that_stands_already_changes_nothing(way: Way, nasty: Path, sources: Sources, tmp_path: Path) -> None:
    previous = copied_without(nasty, tmp_path / "previous")
    fill(way, sources.job(way, nasty, tmp_path / "tree", previous=previous))
    assert compare_trees(nasty, tmp_path / "tree", mtime_ns=way.keeps_nanoseconds) == []
    assert compare_trees(nasty, copied_without(previous, tmp_path / "still", "specials/fifo", "specials/socket")) == []


@every_way
def test_an_older_version_lends_only_what_is_unchanged(way: Way, sources: Sources, tmp_path: Path) -> None:
    source, previous = tmp_path / "source", tmp_path / "previous"
    names = ("same", "content", "shrunk", "mode", "time", "gone", "kind", "folder/inner", "folder/alone", "was-link")
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"the first {name}\n")
    (source / "link").symlink_to("same")
    (source / "was-link").unlink()
    (source / "was-link").symlink_to("same")
    copied_without(source, previous)
    before = photograph(previous, inode=False)

    (source / "content").write_text("the other content, longer\n")
    (source / "shrunk").write_text("short")
    (source / "mode").chmod(0o755)
    os.utime(source / "time", ns=(1, 1_000_000_001))
    (source / "gone").unlink()
    (source / "kind").unlink()
    (source / "kind").mkdir()
    (source / "folder" / "alone").unlink()
    (source / "link").unlink()
    (source / "link").symlink_to("content")
    (source / "was-link").unlink()
    (source / "was-link").write_text("a file now")
    (source / "new").write_text("new")

    fill(way, sources.job(way, source, tmp_path / "tree", previous=previous))
    assert compare_trees(source, tmp_path / "tree", mtime_ns=way.keeps_nanoseconds) == []
    assert photograph(previous, inode=False) == before


@every_way
def test_a_change_within_one_second_is_seen(way: Way, sources: Sources, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("first")
    os.utime(source / "file", ns=(10**18, 10**18))
    previous = copied_without(source, tmp_path / "previous")
    (source / "file").write_text("other")
    os.utime(source / "file", ns=(10**18, 10**18 + 500_000_000))
    fill(way, sources.job(way, source, tmp_path / "tree", previous=previous))
    assert (tmp_path / "tree" / "file").read_text() == "other"


@every_way
def test_hard_links_that_were_cut_stay_cut(way: Way, sources: Sources, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("content")
    os.link(source / "a", source / "b")
    previous = copied_without(source, tmp_path / "previous")
    (source / "b").unlink()
    subprocess.run(["cp", "-p", "a", "b"], cwd=source, check=True)
    fill(way, sources.job(way, source, tmp_path / "tree", previous=previous))
    assert compare_trees(source, tmp_path / "tree", mtime_ns=way.keeps_nanoseconds) == []


@every_way
def test_a_folder_that_was_a_link_is_not_read_through_it(way: Way, sources: Sources, tmp_path: Path) -> None:
    source, previous, outside = (tmp_path / name for name in ("source", "previous", "outside"))
    (source / "data").mkdir(parents=True)
    (source / "data" / "file").write_text("mine")
    outside.mkdir()
    (outside / "file").write_text("not!")
    for file in (source / "data" / "file", outside / "file"):
        os.utime(file, ns=(10**18, 10**18))
    previous.mkdir()
    (previous / "data").symlink_to(outside)
    fill(way, sources.job(way, source, tmp_path / "tree", previous=previous))
    assert (tmp_path / "tree" / "data" / "file").read_text() == "mine"
    assert (outside / "file").stat().st_nlink == 1


@every_way
def test_names_at_the_top_that_look_like_options(way: Way, sources: Sources, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("-rf", "--delete", "--", "@list", "tree", "old", ".ezpz", "#x", "new\nline", "n001:file"):
        (source / name).write_text(name)
    (source / "-C").mkdir()
    (source / "-T").symlink_to("--delete")
    fill(way, sources.job(way, source, tmp_path / "tree"))
    assert compare_trees(source, tmp_path / "tree", mtime_ns=way.keeps_nanoseconds) == []


@every_way
def test_the_bits_beyond_permissions_survive_on_folders(way: Way, sources: Sources, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, mode in (("project", 0o2775), ("dropbox", 0o1777)):
        (source / name).mkdir(parents=True)
        (source / name / "file").write_text(name)
        (source / name).chmod(mode)
    source.chmod(0o2755)
    fill(way, sources.job(way, source, tmp_path / "tree"))
    assert compare_trees(source, tmp_path / "tree", mtime_ns=way.keeps_nanoseconds) == []


@every_way
def test_times_before_1970_survive(way: Way, sources: Sources, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("old")
    for path, moment in ((source / "file", -1_500_000_000), (source, -(10**9))):
        os.utime(path, ns=(moment, moment))
    fill(way, sources.job(way, source, tmp_path / "tree"))
    assert compare_trees(source, tmp_path / "tree", mtime_ns=way.keeps_nanoseconds) == []


@every_way
def test_a_tree_of_nothing_but_folders(way: Way, sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "source" / "a" / "b").mkdir(parents=True)
    (tmp_path / "source" / "c").mkdir()
    fill(way, sources.job(way, tmp_path / "source", tmp_path / "tree"))
    assert compare_trees(tmp_path / "source", tmp_path / "tree", mtime_ns=way.keeps_nanoseconds) == []


class TestRelocation:
    """A venv is relocated alike by all, whether on the way or afterwards."""

    @staticmethod
    def venv(root: Path) -> Path:
        for name in ("bin", "lib/python3.11/site-packages/pkg", "etc", "share/read-only"):
            (root / name).mkdir(parents=True)
        (root / "pyvenv.cfg").write_text(
            f"home = /usr/bin\nversion = 3.11.2\ncommand = /usr/bin/python3 -m venv {root}\n"
        )
        (root / "bin" / "activate").write_text(f'VIRTUAL_ENV="{root}"\nexport VIRTUAL_ENV\nPATH="{root}/bin:$PATH"\n')
        (root / "bin" / "activate.csh").write_text(f"setenv VIRTUAL_ENV '{root}'\n")
        (root / "bin" / "activate.fish").write_text(f"set -gx VIRTUAL_ENV '{root}'\n")
        (root / "bin" / "tool").write_text(f"#!{root}/bin/python3\nprint('{root}-other')\n")
        (root / "bin" / "native").write_bytes(b"\x7fELF\0" + os.fsencode(root) + b"\0")
        (root / "bin" / "python3").symlink_to("/usr/bin/python3")
        (root / "bin" / "python").symlink_to("python3")
        (root / "lib64").symlink_to(root / "lib")
        (root / "lib" / "up").symlink_to(root)
        package = root / "lib" / "python3.11" / "site-packages" / "pkg"
        (package / "__init__.py").write_text(f"HERE = '{root}'\n")
        for path in (root / "bin" / "tool", root / "bin" / "native"):
            path.chmod(0o755)
        (root / "share" / "read-only" / "link").symlink_to(root / "bin" / "tool")
        (root / "share" / "read-only").chmod(0o555)
        (root / "bin" / "activate").chmod(0o444)
        (root / "bin").chmod(0o555)
        return root

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return self.venv(tmp_path / "p" / "venv")

    @pytest.fixture
    def reference(self, source: Path, sources: Sources, tmp_path: Path) -> Path:
        arrive(Way("direct"), sources, source, tmp_path / "reference")
        return tmp_path / "reference"

    def test_it_names_the_new_place(self, source: Path, reference: Path) -> None:
        here = os.fsdecode(DESTINATION)
        assert (reference / "bin" / "activate").read_text().count(here) == 2
        assert (reference / "bin" / "activate").stat().st_mode & 0o777 == 0o444
        assert here in (reference / "bin" / "activate.csh").read_text()
        assert here in (reference / "bin" / "activate.fish").read_text()
        assert (reference / "bin" / "tool").read_text() == f"#!{here}/bin/python3\nprint('{source}-other')\n"
        assert (reference / "pyvenv.cfg").read_text().startswith("home = /usr/bin\n")
        assert (reference / "lib64").readlink() == Path("lib")
        assert (reference / "lib" / "up").resolve() == reference
        assert (reference / "bin" / "native").read_bytes() == (source / "bin" / "native").read_bytes()
        package = reference / "lib" / "python3.11" / "site-packages" / "pkg"
        assert (package / "__init__.py").read_text() == f"HERE = '{here}'\n"

    @every_way
    @pytest.mark.parametrize("rerun", [False, True], ids=["first run", "rerun"])
    def test_all_do_it_alike(
        self, way: Way, *, rerun: bool, source: Path, reference: Path, sources: Sources, tmp_path: Path
    ) -> None:
        before = photograph(source)
        staging = tmp_path / "tree"
        arrive(way, sources, source, staging, previous=reference if rerun else None)
        assert compare_trees(reference, staging, mtime_ns=way.keeps_nanoseconds) == []
        assert (
            tree_version.summarize(os.fsencode(staging)).version
            == tree_version.summarize(os.fsencode(reference)).version
        )
        assert photograph(source) == before

    @every_way
    def test_a_script_with_two_names(self, way: Way, sources: Sources, tmp_path: Path) -> None:
        source = self.venv(tmp_path / "p" / "venv")
        (source / "bin").chmod(0o755)
        os.link(source / "bin" / "tool", source / "bin" / "tool3")
        staging = tmp_path / "tree"
        arrive(way, sources, source, staging)
        assert b"#!" + DESTINATION in (staging / "bin" / "tool").read_bytes()
        assert (staging / "bin" / "tool").samefile(staging / "bin" / "tool3")

    @every_way
    @pytest.mark.parametrize("other", ["aaa/tool", "zzz/tool"])
    def test_a_script_that_is_also_data(self, way: Way, other: str, sources: Sources, tmp_path: Path) -> None:
        source = self.venv(tmp_path / "p" / "venv")
        (source / other).parent.mkdir()
        os.link(source / "bin" / "tool", source / other)
        staging = tmp_path / "tree"
        arrive(way, sources, source, staging)
        assert (staging / "bin" / "tool").read_bytes().startswith(b"#!" + DESTINATION)
        assert (staging / "bin" / "tool").samefile(staging / other)


ORDINARY = """
import os, sys
from pathlib import Path
from ezpz.agent.destination.remove_tree import remove_tree
from tests.contract.sources import Sources, Way, arrive, fill
from tests.lab.compare import compare_trees
work, nasty, venv, strategy, maker = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:]
sources, way = Sources(work), Way(strategy, maker)
assert not os.access(venv / "bin", os.W_OK), "this process has privileges"
fill(way, sources.job(way, nasty, work / "run" / "tree"))
print(compare_trees(nasty, work / "run" / "tree", mtime_ns=way.keeps_nanoseconds))
arrive(way, sources, venv, work / "venv" / "tree")
print("/tmp/on-the-node/env/bin/python3" in (work / "venv" / "tree" / "bin" / "tool").read_text())
remove_tree(os.fsencode(work / "run"))
remove_tree(os.fsencode(work / "venv"))
print(sorted(path.suffix for path in work.iterdir() if path.stem.split(".")[0] not in "01"))
"""


@every_way
def test_an_ordinary_user_gets_the_same(way: Way, nasty: Path, tmp_path: Path) -> None:
    """Also into read-only folders, and out of them again."""
    venv = TestRelocation.venv(tmp_path / "p" / "venv")
    work = tmp_path / "work"
    work.mkdir()
    done = as_ordinary_user(ORDINARY, work, nasty, venv, way.strategy, way.maker)
    assert (done.stdout, done.stderr) == ("[]\nTrue\n[]\n", "")


@every_way
def test_it_stops_in_the_middle(
    way: Way, nasty: Path, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tools hang, and it is cancelled as soon as one of them runs, or as soon as something has been written."""
    cancel = CancelToken()
    job = sources.job(way, nasty, tmp_path / "tree", cancel=cancel, moved=lambda _: cancel.cancel())
    started = tmp_path / "started"
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for tool in STRATEGIES.load(way.strategy).tools:
        (stubs / tool).write_text(f'#!/bin/sh\necho $$ >> "{started}"\nexec sleep 300\n')
        (stubs / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(stubs), prepend=os.pathsep)
    watcher = act_when(lambda: started.exists() or cancel.is_cancelled, cancel.cancel)
    try:
        with pytest.raises(Cancelled):
            fill(way, job)
    finally:
        cancel.cancel()
        watcher.join()
    pids = started.read_text().split() if started.exists() else []
    assert bool(pids) == bool(STRATEGIES.load(way.strategy).tools)
    assert [pid for pid in pids if Path("/proc", pid).exists()] == []


@every_way
def test_it_does_not_begin_when_it_is_stopped(way: Way, nasty: Path, sources: Sources, tmp_path: Path) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        fill(way, sources.job(way, nasty, tmp_path / "tree", cancel=cancel))


FILL = """
import os, subprocess, sys, threading
from pathlib import Path
from ezpz.errors import EzpzError
from tests.contract.sources import Sources, Way, fill
staging, work, source, strategy, maker, harm = sys.argv[1:]
sources, way = Sources(Path(work)), Way(strategy, maker)
job = sources.job(way, Path(source), Path(staging) / "run" / "tree")
if harm == "unreadable":
    victim = os.fsdecode(job.root) if maker else os.path.join(source, "folder", "secret")
    os.chmod(victim, 0)
if harm == "read-only":
    subprocess.run(["mount", "-o", "remount,ro", staging], check=True)
try:
    fill(way, job)
except EzpzError as e:
    print(e.code, threading.active_count())
else:
    print("filled")
"""


class TestFailures:
    """What goes wrong here has the same code whoever copies, and leaves no thread behind."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        folder = tmp_path / "source" / "folder"
        folder.mkdir(parents=True)
        (folder / "secret").write_text("readable by its owner")
        for number in range(40):
            (folder / f"file{number}").write_bytes(os.urandom(1 << 16))
        return tmp_path / "source"

    @every_way
    def test_a_full_disk(self, way: Way, source: Path, tmp_path: Path) -> None:
        done = on_small_disk(FILL, tmp_path / "disk", "1m", tmp_path, source, way.strategy, way.maker, "")
        assert (done.stdout, done.stderr) == ("no-space 1\n", "")

    @every_way
    def test_a_disk_without_inodes(self, way: Way, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        for number in range(300):
            (source / f"file{number}").touch()
        done = on_small_disk(FILL, tmp_path / "disk", "8m", tmp_path, source, way.strategy, way.maker, "")
        assert (done.stdout, done.stderr) == ("no-space 1\n", "")

    @every_way
    def test_a_file_that_may_not_be_read(self, way: Way, source: Path, tmp_path: Path) -> None:
        done = powerless(FILL, tmp_path, tmp_path, source, way.strategy, way.maker, "unreadable")
        assert (done.stdout, done.stderr) == ("source-unreadable 1\n", "")

    @every_way
    def test_a_disk_that_turned_read_only(self, way: Way, source: Path, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        done = on_small_disk(FILL, disk, "8m", tmp_path, source, way.strategy, way.maker, "read-only")
        assert (done.stdout, done.stderr) == ("destination-unwritable 1\n", "")
