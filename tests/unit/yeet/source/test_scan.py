"""Scan: the same counts as `find`, exclusions, errors, and as many threads as the filesystem deserves."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.agent.common.layout import OWN_FILES
from ezpz.errors import SourceUnreadable
from ezpz.yeet.source.exclude import ExcludeFilter, casefold_name
from ezpz.yeet.source.link_policy import LinkPolicy
from ezpz.yeet.source.scan import MAX_THREADS, MIN_THREADS, Scan
from ezpz.yeet.source.scanner import scan_directory
from tests.contract.support import as_ordinary_user, photograph, powerless, run_code
from tests.lab import LabUnavailable
from tests.lab.nasty import nasty_tree
from tests.lab.slowfs import slowfs
from tests.unit.agent.destination.test_remove_tree import make_deep

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ezpz.yeet.model.entry import Entry


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

    @pytest.mark.processes
    def test_every_entry_once_parents_first(self, nasty: Path) -> None:
        before = photograph(nasty)
        found = [entry.path for entry in entries(scan_directory(os.fsencode(nasty)))]
        assert len(found) == len(set(found))
        assert set(found) == find(nasty, "-not", "-type", "p", "-not", "-type", "s")
        seen = {b""}
        for path in found:
            assert os.path.dirname(path) in seen
            seen.add(path)
        assert photograph(nasty) == before

    @pytest.mark.processes
    def test_totals(self, nasty: Path) -> None:
        scanned = scan_directory(os.fsencode(nasty))
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
        for entry in entries(scan_directory(os.fsencode(nasty))):
            path = os.fsencode(nasty) + b"/" + entry.path
            status = os.lstat(path)
            assert (entry.mode, entry.mtime_ns) == (status.st_mode, status.st_mtime_ns)
            assert not entry.is_foreign
            assert entry.size == (status.st_size if os.path.isfile(path) and not os.path.islink(path) else 0)
            assert entry.target == (os.readlink(path) if entry.is_symlink else b"")
            assert entry.permissions == status.st_mode & 0o7777

    def test_a_hard_link_names_an_entry_that_came_before(self, nasty: Path) -> None:
        seen: dict[bytes, Entry] = {}
        groups: dict[bytes, set[bytes]] = {}
        for entry in entries(scan_directory(os.fsencode(nasty))):
            if entry.link:
                assert seen[entry.link].link == b""
                groups.setdefault(entry.link, {entry.link}).add(entry.path)
            seen[entry.path] = entry
        assert {frozenset(group) for group in groups.values()} >= {
            frozenset({b"hard-a/two", b"hard-b/zwei"}),
            frozenset({b"hard-b/three", b"hard-b/tres", b"hard-b/trois"}),
        }

    def test_what_is_left_out_is_told(self, nasty: Path) -> None:
        left = {(left.path, left.why) for left in scan_directory(os.fsencode(nasty)).left_out}
        assert left == {(b"specials/fifo", "special-file"), (b"specials/socket", "special-file")}

    def test_case_39_special_files_are_noted(self, nasty: Path) -> None:
        notices = scan_directory(os.fsencode(nasty)).notices
        assert notices.counts["special-file"] == 2
        assert set(notices.paths["special-file"]) == {b"specials/fifo", b"specials/socket"}

    def test_case_36_links_to_nothing_and_round_in_circles_are_noted_and_carried(self, nasty: Path) -> None:
        root = os.fsencode(nasty)
        assert scan_directory(root).notices.counts == {"special-file": 2}
        scanned = scan_directory(root, link_policy=LinkPolicy((root,)))
        dangling = {b"links/dangling", b"links/loop", b"links/odd \n\xff", b"hard-a/symlink", b"hard-b/symlink"}
        assert set(scanned.notices.paths["dangling-link"]) == dangling
        assert dangling <= {entry.path for entry in entries(scanned) if entry.is_symlink}

    def test_our_own_files_at_the_top_are_left_out_and_only_there(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        for name in map(os.fsdecode, OWN_FILES):
            (tmp_path / name).touch()
            (tmp_path / "folder" / name).touch()
        scanned = scan_directory(os.fsencode(tmp_path))
        assert {entry.path for entry in entries(scanned)} == {b"folder", *(b"folder/" + name for name in OWN_FILES)}
        assert {left.path for left in scanned.left_out} == set(OWN_FILES)

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        scanned = scan_directory(os.fsencode(tmp_path))
        assert (scanned.files, scanned.directories, scanned.size, entries(scanned)) == (0, 0, 0, [])

    @pytest.mark.scale
    def test_twenty_thousand_names_in_one_folder(self, tmp_path: Path) -> None:
        folder = os.fsencode(tmp_path / "many")
        os.mkdir(folder)
        for number in range(20_000):
            os.close(os.open(b"%b/%d" % (folder, number), os.O_CREAT | os.O_WRONLY))
        scanned = scan_directory(os.fsencode(tmp_path))
        assert (scanned.files, scanned.directories) == (20_000, 1)
        assert len({entry.path for entry in entries(scanned)}) == 20_001
        assert max(map(len, scanned.batches())) <= 256

    def test_it_can_be_read_again_and_side_by_side_totals_stay_after_close(self, nasty: Path) -> None:
        scanned = scan_directory(os.fsencode(nasty))
        assert entries(scanned) == entries(scanned)
        scanned.close()
        assert scanned.files > 0

    def test_case_45_the_longest_path_and_name_and_names_that_differ_only_in_case(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "bb").mkdir(parents=True)
        (tmp_path / "a" / "bb" / "c").touch()
        (tmp_path / "longest").touch()
        scanned = scan_directory(os.fsencode(tmp_path))
        assert (scanned.longest, scanned.longest_name, scanned.clash) == (len("longest"), len("longest"), b"")
        (tmp_path / "a" / "bb" / "d\u00e9").touch()
        (tmp_path / "a" / "BB").mkdir()
        scanned = scan_directory(os.fsencode(tmp_path))
        assert (scanned.longest, scanned.longest_name) == (len("a/bb/d\u00e9".encode()), len("longest"))
        assert scanned.clash in (b"a/bb", b"a/BB")

    def test_case_41_set_id_bits_of_files_are_dropped_and_noted(self, tmp_path: Path) -> None:
        for name, mode in (("setuid", 0o4755), ("setgid", 0o2755), ("neither", 0o1755)):
            (tmp_path / name).touch()
            (tmp_path / name).chmod(mode)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder").chmod(0o2755)
        scanned = scan_directory(os.fsencode(tmp_path))
        modes = {entry.path: entry.permissions for entry in entries(scanned)}
        assert modes == {b"setuid": 0o755, b"setgid": 0o755, b"neither": 0o755, b"folder": 0o2755}
        assert sorted(scanned.notices.paths["setuid"]) == [b"setgid", b"setuid"]


class TestFollowing:
    """With a boundary, what links that lead out lead to comes in their place."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        tree, out = tmp_path / "tree", tmp_path / "out"
        (tree / "inner").mkdir(parents=True)
        (out / "pkg" / "sub").mkdir(parents=True)
        (tree / "file").write_text("in")
        (out / "file").write_text("outside")
        (out / "pkg" / "one").write_text("1")
        os.link(out / "pkg" / "one", out / "pkg" / "sub" / "two")
        (out / "pkg" / "near").symlink_to("sub/two")
        (out / "pkg" / "file").symlink_to(out / "file")
        (tree / "inner" / "file").symlink_to(out / "file")
        (tree / "inner" / "pkg").symlink_to("../../out/pkg")
        (tree / "inner" / "own").symlink_to(tree / "file")
        (tree / "system").symlink_to("/bin/sh")
        return tree

    @staticmethod
    def followed(tree: Path, *, exclude: tuple[str, ...] = (), **more: Any) -> Scan:
        root = os.fsencode(tree)
        return scan_directory(root, exclude=exclude, link_policy=LinkPolicy((root,), **more))

    def test_case_34_files_and_folders_stand_where_the_links_were(self, tree: Path) -> None:
        scanned = self.followed(tree)
        found = {entry.path: entry for entry in entries(scanned)}
        out = os.fsencode(tree.parent / "out")
        assert {path: entry.origin for path, entry in found.items() if entry.origin} == {
            b"inner/file": out + b"/file", b"inner/pkg": out + b"/pkg", b"inner/pkg/one": out + b"/pkg/one",
            b"inner/pkg/sub": out + b"/pkg/sub", b"inner/pkg/sub/two": out + b"/pkg/sub/two",
            b"inner/pkg/near": out + b"/pkg/near", b"inner/pkg/file": out + b"/file",
        }  # fmt: skip
        assert found[b"inner/file"].is_regular
        assert found[b"inner/file"].size == 7
        assert found[b"inner/pkg"].is_directory
        assert found[b"inner/pkg/near"].target == b"sub/two"
        assert {found[b"inner/pkg/one"].link, found[b"inner/pkg/sub/two"].link} == {b"", b"inner/pkg/one"} or {
            found[b"inner/pkg/one"].link, found[b"inner/pkg/sub/two"].link
        } == {b"", b"inner/pkg/sub/two"}  # fmt: skip
        assert found[b"inner/own"].target == os.fsencode(tree / "file")
        assert found[b"system"].target == b"/bin/sh"
        assert (scanned.followed, scanned.followed_bytes) == (4, 7 + 7 + 1 + 1)
        assert scanned.notices.counts == {}

    def test_case_34_what_a_link_leads_to_is_looked_at_once(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each look is a round trip where the filesystem is shared."""
        looked: list[bytes] = []

        def spied(call: Callable[..., Any]) -> Callable[..., Any]:
            def look(path: Any, *rest: Any, **more: Any) -> Any:
                if os.fsencode(path).endswith((b"/out/file", b"/inner/file")):
                    looked.append(os.path.relpath(os.fsencode(path), os.fsencode(tree.parent)))
                return call(path, *rest, **more)

            return look

        for name in ("stat", "lstat", "readlink"):
            monkeypatch.setattr(os, name, spied(getattr(os, name)))
        (tree.parent / "out" / "pkg" / "file").unlink()
        self.followed(tree)
        assert sorted(looked) == [b"out/file", b"tree/inner/file"]

    def test_without_a_boundary_every_link_is_carried(self, tree: Path) -> None:
        scanned = scan_directory(os.fsencode(tree))
        assert not [entry for entry in entries(scanned) if entry.is_foreign]
        assert sum(entry.is_symlink for entry in entries(scanned)) == 4
        assert scanned.followed == 0

    def test_what_is_excluded_is_not_looked_at(self, tree: Path) -> None:
        scanned = self.followed(tree, exclude=("pkg", "/inner/file"))
        assert {entry.path for entry in entries(scanned)} == {b"file", b"inner", b"inner/own", b"system"}
        scanned = self.followed(tree, exclude=("two", "near"))
        assert b"inner/pkg/one" in {entry.path for entry in entries(scanned)}
        assert {left.path for left in scanned.left_out} == {b"inner/pkg/sub/two", b"inner/pkg/near"}

    def test_what_may_stay_outside_stays_a_link(self, tree: Path) -> None:
        scanned = self.followed(tree, keep_outside=(os.fsencode(tree.parent / "out" / "pkg"),))
        links = {entry.path for entry in entries(scanned) if entry.is_symlink}
        assert links == {b"inner/pkg", b"inner/own", b"system"}
        scanned = self.followed(tree, image=(os.fsencode(tree.parent), b"/bin", b"/usr"))
        assert len([entry for entry in entries(scanned) if entry.is_symlink]) == 4

    def test_case_36_a_folder_around_a_link_is_not_entered_through_it(self, tree: Path) -> None:
        out = tree.parent / "out"
        (tree / "up").symlink_to(tree.parent)
        (out / "pkg" / "again").symlink_to(out)
        (out / "pkg" / "sub" / "back").symlink_to(tree / "inner")
        scanned = self.followed(tree)
        assert sorted(scanned.notices.paths["link-loop"]) == [b"inner/pkg/again", b"up"]
        links = {entry.path: entry.target for entry in entries(scanned) if entry.is_symlink}
        assert links[b"up"] == os.fsencode(tree.parent)
        assert links[b"inner/pkg/again"] == os.fsencode(out)
        assert links[b"inner/pkg/sub/back"] == b"../.."

    def test_case_34_a_link_of_what_was_followed_says_where_it_leads_from_its_new_place(self, tree: Path) -> None:
        out = tree.parent / "out"
        (out / "pkg" / "into").symlink_to(tree / "inner" / "pkg" / "one")
        (out / "pkg" / "shell").symlink_to(os.path.relpath("/bin/sh", out / "pkg"))
        links = {entry.path: entry for entry in entries(self.followed(tree)) if entry.is_symlink}
        assert links[b"inner/pkg/into"].target == b"one"
        assert links[b"inner/pkg/shell"].target == b"/bin/sh"
        assert all(links[path].is_foreign for path in (b"inner/pkg/into", b"inner/pkg/shell"))

    def test_what_a_link_leads_to_that_is_no_file_stays_a_link(self, tree: Path) -> None:
        os.mkfifo(tree.parent / "out" / "fifo")
        (tree / "fifo").symlink_to(tree.parent / "out" / "fifo")
        (tree / "nothing").symlink_to(tree.parent / "out" / "nothing")
        scanned = self.followed(tree)
        links = {entry.path for entry in entries(scanned) if entry.is_symlink}
        assert {b"fifo", b"nothing"} <= links
        assert scanned.notices.paths == {"dangling-link": [b"nothing"]}


class TestAlterations:
    """What does not come as it stands in the source is counted, so that nobody sends the source itself instead."""

    def test_nothing_of_a_plain_tree(self, tmp_path: Path) -> None:
        (tmp_path / "S").mkdir()
        (tmp_path / "S" / "file").touch()
        (tmp_path / "S" / "link").symlink_to("file")
        (tmp_path / "S" / "program").symlink_to("/usr/bin/env")
        root = os.fsencode(tmp_path / "S")
        assert scan_directory(root, link_policy=LinkPolicy((root,))).altered == 0

    @pytest.mark.parametrize("what", ["setuid", "absolute", "aliased", "outward", "outward folder"])
    def test_each_kind(self, tmp_path: Path, what: str) -> None:
        (tmp_path / "S").mkdir()
        (tmp_path / "S" / "file").touch()
        (tmp_path / "alias").symlink_to("S")
        (tmp_path / "out").mkdir()
        if what == "setuid":
            (tmp_path / "S" / "file").chmod(0o4755)
        else:
            targets = {"absolute": "S/file", "aliased": "alias/file", "outward": "alias", "outward folder": "out"}
            (tmp_path / "S" / "link").symlink_to(tmp_path / targets[what])
        if what == "outward":
            (tmp_path / "alias").unlink()
            (tmp_path / "alias").touch()
        root = os.fsencode(tmp_path / "S")
        assert scan_directory(root, link_policy=LinkPolicy((root,), image=())).altered == 1


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
        assert ExcludeFilter((pattern,)).matches(path) is matches
        assert ExcludeFilter(("never", pattern)).matches(path) is matches
        assert not ExcludeFilter(()).matches(path)

    @given(st.binary(min_size=1, max_size=8).filter(lambda name: not set(name) & set(b"/\0*?[]!")))
    def test_a_plain_name_matches_itself_alone(self, name: bytes) -> None:
        exclusion = ExcludeFilter((os.fsdecode(name),))
        assert exclusion.matches(b"a/" + name)
        assert not exclusion.matches(name + b"x")
        assert not exclusion.matches(name + b"/another-name")

    @pytest.mark.processes
    def test_a_folder_takes_along_what_is_below(self, nasty: Path) -> None:
        scanned = scan_directory(os.fsencode(nasty), exclude=("deep", "__pycache__", "/links/directory"))
        found = {entry.path for entry in entries(scanned)}
        excluded = {left.path for left in scanned.left_out if left.why == "excluded"}
        assert excluded == {b"deep", b"pkg/__pycache__", b"links/directory"}
        below = ("./deep*", "./pkg/__pycache__*", "./links/directory*")
        gone = set().union(*(find(nasty, "-path", path) for path in below))
        assert find(nasty, "-not", "-type", "p", "-not", "-type", "s") - found == gone

    def test_a_hard_link_whose_first_name_is_excluded_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("content")
        os.link(tmp_path / "a", tmp_path / "b")
        scanned = scan_directory(os.fsencode(tmp_path), exclude=("a",))
        assert [(entry.path, entry.link) for entry in entries(scanned)] == [(b"b", b"")]
        assert (scanned.size, scanned.linked) == (7, 0)


class TestCase:
    """Names that differ only in case."""

    @given(st.binary(min_size=1, max_size=12))
    def test_folding_twice_is_folding_once(self, name: bytes) -> None:
        assert casefold_name(casefold_name(name)) == casefold_name(name)

    @pytest.mark.parametrize(
        ("one", "two", "same"),
        [("a", "A", True), ("é", "É", True), ("e\u0301", "É", True), ("ß", "SS", True), ("a", "b", False)],
    )
    def test_case_45_pairs(self, one: str, two: str, *, same: bool) -> None:
        assert (casefold_name(one.encode()) == casefold_name(two.encode())) is same

    def test_case_45_a_clash_is_found_and_not_among_what_is_excluded(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        for name in ("File", "file", b"\xff".decode("utf-8", "surrogateescape")):
            (tmp_path / "a" / name).touch()
        (tmp_path / "FILE").touch()
        assert scan_directory(os.fsencode(tmp_path)).clash in (b"a/File", b"a/file")
        assert scan_directory(os.fsencode(tmp_path), exclude=("File",)).clash == b""


class TestFailures:
    """What cannot be looked at is named."""

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(SourceUnreadable, match="missing"):
            scan_directory(os.fsencode(tmp_path / "missing"))

    def test_paths_that_are_too_long_to_be_opened(self, deep_path: Path) -> None:
        make_deep(deep_path / "top", 3000)
        top = os.fsencode(deep_path / "top")
        with pytest.raises(SourceUnreadable, match="too long to be opened") as caught:
            scan_directory(top)
        assert len(caught.value.message) < 200
        assert "--exclude" in caught.value.hint
        assert scan_directory(top, exclude=("d/d/d",)).directories == 2

    @pytest.mark.processes
    def test_case_40_the_first_ten_are_named_and_the_others_counted(self, tmp_path: Path) -> None:
        for number in range(13):
            (tmp_path / f"f{number:02}").touch(mode=0)
        code = (
            "import os, sys\nfrom ezpz.errors import EzpzError\nfrom ezpz.yeet.source.scanner import scan_directory\n"
            "try:\n    scan_directory(os.fsencode(sys.argv[1]))\nexcept EzpzError as e:\n    print(e.message)\n"
            "print(scan_directory(os.fsencode(sys.argv[1]), skip_unreadable=True).notices.counts)\n"
        )
        refused, skipped = powerless(code, tmp_path).stdout.splitlines()
        assert refused.count("/f") == 10
        assert refused.endswith(" and 3 more: Permission denied")
        assert skipped == "{'unreadable': 13}"

    @pytest.mark.processes
    @pytest.mark.parametrize("mode", [0o000, 0o444], ids=["closed", "no search"])
    def test_a_folder_that_may_not_be_read(self, tmp_path: Path, mode: int) -> None:
        for number in range(20):
            (tmp_path / f"open{number}").mkdir()
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret" / "file").touch()
        (tmp_path / "secret").chmod(mode)
        code = (
            "import os, sys, threading\nfrom ezpz.errors import EzpzError\n"
            "from ezpz.yeet.source.scanner import scan_directory\n"
            "try:\n    scan_directory(os.fsencode(sys.argv[1]))\n"
            "except EzpzError as e:\n    print(e.code, 'secret' in e.message, threading.active_count())\n"
        )
        done = powerless(code, tmp_path)
        (tmp_path / "secret").chmod(0o755)
        assert (done.stdout, done.stderr) == ("source-unreadable True 1\n", "")

    UNREADABLE = (
        "import os, sys\nfrom ezpz.errors import EzpzError\nfrom ezpz.yeet.source.scanner import scan_directory\n"
        "try:\n    found = scan_directory(os.fsencode(sys.argv[1]), skip_unreadable=len(sys.argv) > 2)\n"
        "except EzpzError as e:\n    print(e.code, e.message, e.hint, sep='|')\nelse:\n"
        "    print(sorted(e.path for b in found.batches() for e in b), sorted({left.why for left in found.left_out}),\n"
        "          found.notices.counts, len(found.notices.paths['unreadable']))\n"
    )

    @pytest.fixture
    def closed(self, tmp_path: Path) -> Path:
        """Twelve files and a folder that may not be read, and some that may."""
        for number in range(12):
            (tmp_path / f"closed{number:02}").touch(0o000)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "below").touch()
        (tmp_path / "folder").chmod(0o000)
        (tmp_path / "owner").touch(0o400)
        (tmp_path / "open").touch(0o444)
        (tmp_path / "link").symlink_to("closed00")
        return tmp_path

    @pytest.mark.processes
    def test_case_40_the_first_ten_that_may_not_be_read_are_named_and_counted(self, closed: Path) -> None:
        done = powerless(self.UNREADABLE, closed)
        assert done.stderr == ""
        code, message, hint = done.stdout.strip().split("|")
        assert code == "source-unreadable"
        names = re.findall(r"'([^']*)'", message)
        assert len(names) == 10
        assert {os.path.dirname(name) for name in names} == {str(closed)}
        assert {os.path.basename(name) for name in names} <= {*(f"closed{n:02}" for n in range(12)), "folder"}
        assert "and 3 more" in message
        assert "--skip-unreadable" in hint

    @pytest.mark.processes
    def test_case_40_or_left_out_when_that_is_asked_for(self, closed: Path) -> None:
        done = powerless(self.UNREADABLE, closed, "skip")
        kept = [b"link", b"open", b"owner"]
        assert (done.stdout, done.stderr) == (f"{kept} ['unreadable'] {{'unreadable': 13}} 10\n", "")

    @pytest.mark.processes
    def test_case_40_who_may_read_all_is_told_nothing(self, closed: Path, tmp_path: Path) -> None:
        """By a capability as by being root, whatever the modes say."""
        (tmp_path / "own").mkdir()
        code = self.UNREADABLE.replace("sys.argv[1]", "sys.argv[2]").replace("> 2", "> 3").replace("['unreadable']", "")
        done = as_ordinary_user(code, tmp_path / "own", closed)
        assert done.stderr == ""
        assert b"folder/below".decode() in done.stdout

    def test_it_stops_when_it_is_told_to(self, nasty: Path) -> None:
        cancel = CancelToken()
        cancel.cancel()
        before = threading.active_count()
        with pytest.raises(Cancelled):
            scan_directory(os.fsencode(nasty), cancel=cancel)
        assert threading.active_count() == before


SLOW = """
import os, sys, threading, time
from ezpz.yeet.source.scanner import scan_directory
most = 0
done = threading.Event()
def watch():
    global most
    while not done.is_set():
        most = max(most, threading.active_count() - 2)
        time.sleep(0.001)
threading.Thread(target=watch).start()
scanned = scan_directory(os.fsencode(sys.argv[1]))
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

    @pytest.mark.processes
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
        assert (files, threads) == (300, MAX_THREADS)
        assert MIN_THREADS < most <= MAX_THREADS

    @pytest.mark.parametrize(
        ("latency", "threads"), [(0.0, MIN_THREADS), (1e-5, MIN_THREADS), (6e-4, 10), (5e-3, MAX_THREADS)]
    )
    def test_how_many_read_depends_on_the_latency(self, latency: float, threads: int) -> None:
        scanned = Scan(b"")
        scanned.latency = latency
        assert scanned.threads == threads

    def test_none_is_left_behind(self, wide: Path) -> None:
        before = threading.active_count()
        scan_directory(os.fsencode(wide))
        assert threading.active_count() == before


MEMORY = """
import resource, sys
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.source.scan import Scan
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scanned = Scan(b"")
name = b"a/rather/long/path/of/a/module/in/site-packages/number-%d"
for start in range(0, 600_000, 256):
    scanned.add([Entry(name % n, 0o100644, 10**18 + n, 1000) for n in range(start, start + 256)])
count = sum(len(batch) for batch in scanned.batches())
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
scanned.close()
"""


@pytest.mark.processes
def test_the_entries_of_a_huge_source_are_not_kept_in_memory() -> None:
    done = run_code(MEMORY)
    assert done.stderr == ""
    count, megabytes = map(int, done.stdout.split())
    assert count == 600_064
    assert megabytes < 60


def test_a_bug_while_looking_ends_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()

    def broken(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("ezpz.yeet.source.scanner.is_readable_by_mode", broken)
    with pytest.raises(ZeroDivisionError):
        scan_directory(os.fsencode(tmp_path))


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EACCES, "are you allowed to read it?"),
        (errno.EIO, "is its filesystem well? look at it with `stat`, then try again"),
        (errno.ESTALE, "is its filesystem well? look at it with `stat`, then try again"),
    ],
)
def test_case_40_the_hint_for_a_directory_that_cannot_be_listed_depends_on_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    (tmp_path / "ill").mkdir()
    real = os.scandir

    def failing(path: bytes) -> Any:
        if path.endswith(b"/ill"):
            raise OSError(number, os.strerror(number), path)
        return real(path)

    monkeypatch.setattr("ezpz.yeet.source.scanner.os.scandir", failing)
    with pytest.raises(SourceUnreadable) as caught:
        scan_directory(os.fsencode(tmp_path))
    assert caught.value.message == f"cannot read '{tmp_path}/ill': {os.strerror(number)}"
    assert caught.value.hint == hint
