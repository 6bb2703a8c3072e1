"""Scan: the same counts as `find`, exclusions, errors, and as many threads as the filesystem deserves."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.errors import SourceUnreadable
from ezpz.process import Stopped
from ezpz.yeet.agent.tree import OWN_FILES
from ezpz.yeet.scan import FEW, MANY, Exclusion, Scan, scan
from tests.contract.support import photograph, powerless, run_code
from tests.lab import LabUnavailable
from tests.lab.nasty import nasty_tree
from tests.lab.slowfs import slowfs

if TYPE_CHECKING:
    from pathlib import Path

    from ezpz.yeet.entry import Entry


def entries(scanned: Scan) -> list[Entry]:
    return [entry for batch in scanned.batches() for entry in batch]


def find(root: Path, *tests: str) -> set[bytes]:
    """Paths below `root`, as find(1) sees them."""
    said = subprocess.run(["find", ".", "-mindepth", "1", *tests, "-print0"], cwd=root, capture_output=True, check=True)
    return {path.removeprefix(b"./") for path in said.stdout.split(b"\0") if path}


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nasty_tree(tmp_path_factory.mktemp("scan") / "nasty")


class TestCounts:
    """What find(1) finds, and nothing else."""

    def test_every_entry_once_parents_first(self, nasty: Path) -> None:
        before = photograph(nasty)
        found = [entry.path for entry in entries(scan(os.fsencode(nasty)))]
        assert len(found) == len(set(found))
        assert set(found) == find(nasty, "-not", "-type", "p", "-not", "-type", "s")
        seen = {b""}
        for path in found:
            assert os.path.dirname(path) in seen
            seen.add(path)
        assert photograph(nasty) == before

    def test_totals(self, nasty: Path) -> None:
        scanned = scan(os.fsencode(nasty))
        assert scanned.directories == len(find(nasty, "-type", "d"))
        assert scanned.files == len(find(nasty, "-type", "f")) + len(find(nasty, "-type", "l"))
        sizes = {
            os.lstat(os.fsencode(nasty) + b"/" + p).st_ino: os.lstat(os.fsencode(nasty) + b"/" + p).st_size
            for p in find(nasty, "-type", "f")
        }
        assert scanned.size == sum(sizes.values())
        shown = sum(os.lstat(os.fsencode(nasty) + b"/" + p).st_size for p in find(nasty, "-type", "f"))
        assert scanned.linked == shown - scanned.size
        assert scanned.allocated >= scanned.size
        assert scanned.allocated % 4096 == 0

    def test_each_entry_says_what_lstat_says(self, nasty: Path) -> None:
        for entry in entries(scan(os.fsencode(nasty))):
            path = os.fsencode(nasty) + b"/" + entry.path
            status = os.lstat(path)
            assert (entry.mode, entry.mtime_ns) == (status.st_mode, status.st_mtime_ns)
            assert entry.size == (status.st_size if os.path.isfile(path) and not os.path.islink(path) else 0)
            assert entry.target == (os.readlink(path) if entry.is_symlink else b"")
            assert entry.permissions == status.st_mode & 0o7777

    def test_a_hard_link_names_an_entry_that_came_before(self, nasty: Path) -> None:
        seen: dict[bytes, Entry] = {}
        groups: dict[bytes, set[bytes]] = {}
        for entry in entries(scan(os.fsencode(nasty))):
            if entry.link:
                assert seen[entry.link].link == b""
                groups.setdefault(entry.link, {entry.link}).add(entry.path)
            seen[entry.path] = entry
        assert {frozenset(group) for group in groups.values()} >= {
            frozenset({b"hard-a/two", b"hard-b/zwei"}),
            frozenset({b"hard-b/three", b"hard-b/tres", b"hard-b/trois"}),
        }

    def test_what_is_left_out_is_told(self, nasty: Path) -> None:
        left = {(left.path, left.why) for left in scan(os.fsencode(nasty)).left_out}
        assert left == {(b"specials/fifo", "FIFO"), (b"specials/socket", "socket")}

    def test_our_own_files_at_the_top_are_left_out_and_only_there(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        for name in map(os.fsdecode, OWN_FILES):
            (tmp_path / name).touch()
            (tmp_path / "folder" / name).touch()
        scanned = scan(os.fsencode(tmp_path))
        assert {entry.path for entry in entries(scanned)} == {b"folder", *(b"folder/" + name for name in OWN_FILES)}
        assert {left.path for left in scanned.left_out} == set(OWN_FILES)

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        scanned = scan(os.fsencode(tmp_path))
        assert (scanned.files, scanned.directories, scanned.size, entries(scanned)) == (0, 0, 0, [])

    def test_twenty_thousand_names_in_one_folder(self, tmp_path: Path) -> None:
        folder = os.fsencode(tmp_path / "many")
        os.mkdir(folder)
        for number in range(20_000):
            os.close(os.open(b"%b/%d" % (folder, number), os.O_CREAT | os.O_WRONLY))
        scanned = scan(os.fsencode(tmp_path))
        assert (scanned.files, scanned.directories) == (20_000, 1)
        assert len({entry.path for entry in entries(scanned)}) == 20_001
        assert max(map(len, scanned.batches())) <= 256

    def test_it_can_be_read_again_and_side_by_side_totals_stay_after_close(self, nasty: Path) -> None:
        scanned = scan(os.fsencode(nasty))
        assert entries(scanned) == entries(scanned)
        scanned.close()
        assert scanned.files > 0


class TestExclusion:
    """A pattern without a slash is for names anywhere, one with a slash for the path from the root."""

    @pytest.mark.parametrize(
        ("pattern", "path", "matches"),
        [
            ("*.pyc", b"a/b/c.pyc", True),
            ("*.pyc", b"c.pyc", True),
            ("*.pyc", b"c.py", False),
            ("*.pyc", b"c.pyc.x", False),
            ("tests", b"a/tests", True),
            ("tests", b"a/mytests", False),
            ("tests/", b"a/tests", True),
            ("a/b", b"a/b", True),
            ("a/b", b"x/a/b", False),
            ("/a", b"a", True),
            ("/a", b"x/a", False),
            ("/a/b/", b"a/b", True),
            ("a/*.so", b"a/x.so", True),
            ("a/*.so", b"a/b/x.so", True),
            ("a/*.so", b"b/a/x.so", False),
            ("[ab]?", b"x/a1", True),
            ("[!ab]?", b"x/a1", False),
            ("Tests", b"tests", False),
            ("*", b"any", True),
            ("a.b", b"axb", False),
            ("caf?", b"caf\xff", True),
            ("*\n*", b"new\nline", True),
            ("new*", b"new\nline", True),
            ("caf?", "café".encode(), True),
        ],
    )
    def test_patterns(self, pattern: str, path: bytes, *, matches: bool) -> None:
        assert Exclusion((pattern,)).matches(path) is matches
        assert Exclusion(("never", pattern)).matches(path) is matches
        assert not Exclusion(()).matches(path)

    @given(st.binary(min_size=1, max_size=8).filter(lambda name: not set(name) & set(b"/\0*?[]!")))
    def test_a_plain_name_matches_itself_alone(self, name: bytes) -> None:
        exclusion = Exclusion((os.fsdecode(name),))
        assert exclusion.matches(b"a/" + name)
        assert not exclusion.matches(name + b"x")
        assert not exclusion.matches(name + b"/another-name")

    def test_a_folder_takes_along_what_is_below(self, nasty: Path) -> None:
        scanned = scan(os.fsencode(nasty), exclude=("deep", "__pycache__", "/links/directory"))
        found = {entry.path for entry in entries(scanned)}
        excluded = {left.path for left in scanned.left_out if left.why == "excluded"}
        assert excluded == {b"deep", b"pkg/__pycache__", b"links/directory"}
        below = ("./deep*", "./pkg/__pycache__*", "./links/directory*")
        gone = set().union(*(find(nasty, "-path", path) for path in below))
        assert find(nasty, "-not", "-type", "p", "-not", "-type", "s") - found == gone

    def test_a_hard_link_whose_first_name_is_excluded_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("content")
        os.link(tmp_path / "a", tmp_path / "b")
        scanned = scan(os.fsencode(tmp_path), exclude=("a",))
        assert [(entry.path, entry.link) for entry in entries(scanned)] == [(b"b", b"")]
        assert (scanned.size, scanned.linked) == (7, 0)


class TestFailures:
    """What cannot be looked at is named."""

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(SourceUnreadable, match="missing"):
            scan(os.fsencode(tmp_path / "missing"))

    @pytest.mark.parametrize("mode", [0o000, 0o444], ids=["closed", "no search"])
    def test_a_folder_that_may_not_be_read(self, tmp_path: Path, mode: int) -> None:
        for number in range(20):
            (tmp_path / f"open{number}").mkdir()
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret" / "file").touch()
        (tmp_path / "secret").chmod(mode)
        code = (
            "import os, sys, threading\nfrom ezpz.errors import EzpzError\nfrom ezpz.yeet.scan import scan\n"
            "try:\n    scan(os.fsencode(sys.argv[1]))\n"
            "except EzpzError as e:\n    print(e.code, 'secret' in e.message, threading.active_count())\n"
        )
        done = powerless(code, tmp_path)
        (tmp_path / "secret").chmod(0o755)
        assert (done.stdout, done.stderr) == ("source-unreadable True 1\n", "")

    def test_it_stops_when_it_is_told_to(self, nasty: Path) -> None:
        stop = threading.Event()
        stop.set()
        before = threading.active_count()
        with pytest.raises(Stopped):
            scan(os.fsencode(nasty), stop=stop)
        assert threading.active_count() == before


SLOW = """
import os, sys, threading, time
from ezpz.yeet.scan import scan
most = 0
done = threading.Event()
def watch():
    global most
    while not done.is_set():
        most = max(most, threading.active_count() - 2)
        time.sleep(0.001)
threading.Thread(target=watch).start()
scanned = scan(os.fsencode(sys.argv[1]))
done.set()
print(scanned.files, scanned.threads, most)
"""


class TestThreads:
    """Few for a filesystem that answers from memory, many for one that answers slowly."""

    @pytest.fixture
    def wide(self, tmp_path: Path) -> Path:
        for folder in range(60):
            (tmp_path / "wide" / str(folder)).mkdir(parents=True)
            for number in range(5):
                (tmp_path / "wide" / str(folder) / str(number)).touch()
        return tmp_path / "wide"

    def test_a_slow_filesystem_is_asked_by_many(self, wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        try:
            settings = slowfs(wide, 2000)
        except LabUnavailable as e:
            pytest.skip(str(e))
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        done = run_code(SLOW, wide)
        assert done.stderr == ""
        files, threads, most = map(int, done.stdout.split())
        assert (files, threads) == (300, MANY)
        assert FEW < most <= MANY

    @pytest.mark.parametrize(("latency", "threads"), [(0.0, FEW), (1e-5, FEW), (6e-4, 10), (5e-3, MANY)])
    def test_how_many_read_depends_on_the_latency(self, latency: float, threads: int) -> None:
        scanned = Scan(b"")
        scanned.latency = latency
        assert scanned.threads == threads

    def test_none_is_left_behind(self, wide: Path) -> None:
        before = threading.active_count()
        scan(os.fsencode(wide))
        assert threading.active_count() == before


MEMORY = """
import resource, sys
from ezpz.yeet.entry import Entry
from ezpz.yeet.scan import Scan
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scanned = Scan(b"")
name = b"a/rather/long/path/of/a/module/in/site-packages/number-%d"
for start in range(0, 600_000, 256):
    scanned.add([Entry(name % n, 0o100644, 10**18 + n, 1000) for n in range(start, start + 256)])
count = sum(len(batch) for batch in scanned.batches())
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
scanned.close()
"""


def test_the_entries_of_a_huge_source_are_not_kept_in_memory() -> None:
    done = run_code(MEMORY)
    assert done.stderr == ""
    count, megabytes = map(int, done.stdout.split())
    assert count == 600_064
    assert megabytes < 60
