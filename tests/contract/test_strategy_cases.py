"""Every strategy makes the same of what is difficult to move: links that lead out, what comes along, odd files."""

from __future__ import annotations

import os
import random
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common import tree_version
from ezpz.errors import SourceChanged
from ezpz.yeet.relocate.extra_entries import ExtraEntries
from ezpz.yeet.relocate.large_file import MAX_WHOLE_FILE
from tests.contract.sources import DESTINATION, EVERY, OURS, PLAIN, Sources, Way, arrive, fill
from tests.contract.support import as_ordinary_user, photograph
from tests.lab.compare import compare_trees

if TYPE_CHECKING:
    from ezpz.yeet.relocate.recorder import RelocationRecorder
    from ezpz.yeet.relocate.relocation import Relocation
    from ezpz.yeet.source.scan import Scan

SPARSE_BYTES = 64 << 20
SET_ID = stat.S_ISUID | stat.S_ISGID
PAST = 1_500_000_000 * 10**9 + 123_456_789

every_way = pytest.mark.parametrize("way", EVERY, ids=str)
ours = pytest.mark.parametrize("way", [way for way in EVERY if way.maker in (PLAIN, *OURS)], ids=str)
"""Without the archives of other programs, which carry a link that leads out as a link."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("archives"))


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """A venv as small as one can be."""
    root = tmp_path / "p" / "venv"
    for name in ("bin", "lib/python3.11/site-packages/pkg"):
        (root / name).mkdir(parents=True)
    (root / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    (root / "bin" / "activate").write_text(f"VIRTUAL_ENV='{root}'\n")
    return root


def site(root: Path) -> Path:
    return root / "lib" / "python3.11" / "site-packages"


def settle_times(*roots: Path) -> None:
    """Give everything in trees a time in the past, so that what is copied late is noticed."""
    for root in roots:
        for path in sorted([root, *root.rglob("*")], reverse=True):
            os.utime(path, ns=(PAST, PAST), follow_symlinks=False)


def size_on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


class TestLinksThatLeadOut:
    """What they lead to stands in their place; those that stay within are as they were."""

    @pytest.fixture
    def cache(self, env: Path, tmp_path: Path) -> Path:
        """The links of uv's `--link-mode=symlink` and others, from an environment into a cache and further."""
        cache, far = tmp_path / "cache", tmp_path / "far"
        (cache / "pkg" / "inner" / "empty").mkdir(parents=True)
        far.mkdir()
        (far / "data").write_text(f"far away, of {env}\n")
        (cache / "module.py").write_text(f"HERE = '{env}'\n")
        (cache / "module.py").chmod(0o755)
        (cache / "pkg" / "__init__.py").write_text("")
        (cache / "pkg" / "inner" / "one").write_text("one file\n")
        os.link(cache / "pkg" / "inner" / "one", cache / "pkg" / "inner" / "two")
        (cache / "pkg" / "beside").symlink_to("inner/one")
        (cache / "pkg" / "far").symlink_to(far / "data")
        (cache / "pkg" / "home").symlink_to(env / "bin" / "activate")
        (cache / "pkg" / "inner" / "up").symlink_to(cache / "pkg")
        (cache / "pkg" / "inner").chmod(0o555)
        (site(env) / "module.py").symlink_to(cache / "module.py")
        (site(env) / "package").symlink_to(cache / "pkg")
        (site(env) / "pkg" / "relative").symlink_to(os.path.relpath(cache / "module.py", site(env) / "pkg"))
        (site(env) / "pkg" / "within").symlink_to(site(env) / "package" / "inner" / "one")
        (site(env) / "pkg" / "dangling").symlink_to("/no/such/file")
        (env / "climbs").symlink_to("lib/python3.11/../../bin/activate")
        (env / "bin" / "sh").symlink_to("/bin/sh")
        (env / "bin").chmod(0o555)
        settle_times(env, cache, far)
        return cache

    @pytest.fixture
    def reference(self, env: Path, cache: Path, sources: Sources, tmp_path: Path) -> Path:
        assert cache.is_dir()
        arrive(Way("direct"), sources, env, tmp_path / "reference", follow=True)
        return tmp_path / "reference"

    def test_case_34_what_they_lead_to_is_there(self, env: Path, cache: Path, reference: Path) -> None:
        here, there = os.fsdecode(DESTINATION), site(reference)
        assert not (there / "module.py").is_symlink()
        assert (there / "module.py").read_text() == f"HERE = '{here}'\n"
        assert (there / "module.py").stat().st_mode & 0o777 == 0o755
        assert (there / "module.py").stat().st_mtime_ns == PAST
        assert not (there / "package").is_symlink()
        assert (there / "package" / "inner").stat().st_mode & 0o777 == 0o555
        assert (there / "package" / "inner").stat().st_mtime_ns == PAST
        assert (there / "package" / "inner" / "empty").is_dir()
        assert (there / "package" / "inner" / "one").samefile(there / "package" / "inner" / "two")
        assert (there / "package" / "beside").readlink() == Path("inner/one")
        assert (there / "package" / "far").read_text() == f"far away, of {here}\n"
        assert not (there / "package" / "far").is_symlink()
        assert (there / "package" / "home").resolve() == reference / "bin" / "activate"

    def test_case_36_relative_ones_and_those_that_stay(self, env: Path, cache: Path, reference: Path) -> None:
        there = site(reference)
        assert not (there / "pkg" / "relative").is_symlink()
        assert (there / "pkg" / "relative").read_text() == f"HERE = '{os.fsdecode(DESTINATION)}'\n"
        assert (there / "pkg" / "within").resolve() == there / "package" / "inner" / "one"
        assert (there / "pkg" / "dangling").readlink() == Path("/no/such/file")
        assert (reference / "climbs").resolve() == reference / "bin" / "activate"
        assert (reference / "bin" / "sh").readlink() == Path("/bin/sh")
        assert (there / "package" / "inner" / "up").is_symlink()

    @ours
    @pytest.mark.parametrize("rerun", [False, True], ids=["first run", "rerun"])
    def test_case_34_all_follow_them_alike(
        self, way: Way, *, rerun: bool, env: Path, cache: Path, reference: Path, sources: Sources, tmp_path: Path
    ) -> None:
        before = photograph(tmp_path / "p"), photograph(cache)
        arrive(way, sources, env, tmp_path / "tree", follow=True, previous=reference if rerun else None)
        assert compare_trees(reference, tmp_path / "tree", mtime_ns=way.keeps_nanoseconds) == []
        assert tree_version.summarize(os.fsencode(tmp_path / "tree")) == tree_version.summarize(os.fsencode(reference))
        assert (photograph(tmp_path / "p"), photograph(cache)) == before

    @ours
    def test_case_36_a_link_to_a_folder_around_itself_is_no_trap(
        self, way: Way, env: Path, sources: Sources, tmp_path: Path
    ) -> None:
        (env / "around").symlink_to(tmp_path)
        arrive(way, sources, env, tmp_path / "tree", follow=True)
        assert (tmp_path / "tree" / "around").readlink() == tmp_path


class TestWhatComesAlong:
    """Entries that stand elsewhere or nowhere yet: the base interpreter, editable installs, what is made anew."""

    @pytest.fixture
    def elsewhere(self, env: Path, tmp_path: Path) -> Path:
        folder = tmp_path / "elsewhere"
        (folder / "sub" / "closed").mkdir(parents=True)
        (folder / "module.py").write_text(f"HERE = '{env}'\n")
        (folder / "big.py").write_bytes(b"# x\n" * (MAX_WHOLE_FILE // 2) + b"HERE = '%b'\n" % os.fsencode(env))
        (folder / "sub" / "closed" / "file").write_text("kept\n")
        os.link(folder / "sub" / "closed" / "file", folder / "sub" / "again")
        (folder / "sub" / "link").symlink_to("../module.py")
        (folder / "tool").write_text("#!/bin/sh\n")
        (folder / "tool").chmod(0o4755)
        (folder / "sub" / "closed").chmod(0o555)
        (site(env) / "pkg").chmod(0o555)
        settle_times(env, folder)
        return folder

    @staticmethod
    def along(env: Path, elsewhere: Path) -> Scan:
        """New ones each time, since a scan that is read to its end by one job is read again by another."""
        grafts = ExtraEntries(existing=(b"lib", b"lib/python3.11", b"lib/python3.11/site-packages", b"bin"))
        grafts.add_directory(b".editable/pkg", os.fsencode(elsewhere))
        grafts.add_file(b".python/bin/python3.11", os.fsencode(elsewhere / "tool"))
        grafts.add_link(b".python/bin/python3", b"python3.11", PAST)
        grafts.add_content(b"env.sh", b"# made for %b\n" % DESTINATION)
        grafts.add_content(b"lib/python3.11/site-packages/new/deep/x.py", b"x = 1\n", 0o600)
        return grafts.scan

    def arrive(
        self, way: Way, sources: Sources, env: Path, elsewhere: Path, staging: Path, previous: Path | None = None
    ) -> RelocationRecorder:
        return arrive(way, sources, env, staging, along=self.along(env, elsewhere), previous=previous)

    @pytest.fixture
    def reference(self, env: Path, elsewhere: Path, sources: Sources, tmp_path: Path) -> Path:
        self.arrive(Way("direct"), sources, env, elsewhere, tmp_path / "reference")
        return tmp_path / "reference"

    def test_it_is_there(self, elsewhere: Path, reference: Path) -> None:
        here = os.fsdecode(DESTINATION)
        copy = reference / ".editable" / "pkg"
        assert (copy / "module.py").read_text() == f"HERE = '{here}'\n"
        assert (copy / "big.py").read_text().endswith(f"x\nHERE = '{here}'\n")
        assert (copy / "sub" / "closed").stat().st_mode & 0o777 == 0o555
        assert (copy / "sub" / "closed").stat().st_mtime_ns == PAST
        assert (copy / "sub" / "again").samefile(copy / "sub" / "closed" / "file")
        assert (copy / "sub" / "link").readlink() == Path("../module.py")
        assert (reference / ".python" / "bin" / "python3.11").read_text() == "#!/bin/sh\n"
        assert (reference / ".python" / "bin" / "python3").readlink() == Path("python3.11")
        assert (reference / "env.sh").read_text() == f"# made for {here}\n"
        new = site(reference) / "new" / "deep" / "x.py"
        assert (new.read_text(), new.stat().st_mode & 0o777) == ("x = 1\n", 0o600)
        assert elsewhere.is_dir()

    @every_way
    @pytest.mark.parametrize("rerun", [False, True], ids=["first run", "rerun"])
    def test_all_bring_it_alike(
        self, way: Way, *, rerun: bool, env: Path, elsewhere: Path, reference: Path, sources: Sources, tmp_path: Path
    ) -> None:
        before = photograph(env), photograph(elsewhere)
        self.arrive(way, sources, env, elsewhere, tmp_path / "tree", reference if rerun else None)
        found = compare_trees(reference, tmp_path / "tree", mtime_ns=way.keeps_nanoseconds)
        touched = "'lib/python3.11/site-packages': mtime"  # of an unpacked tree, which is added to where it lies
        assert [line for line in found if not (way.maker and line.startswith(touched))] == []
        assert tree_version.summarize(os.fsencode(tmp_path / "tree")) == tree_version.summarize(os.fsencode(reference))
        assert (photograph(env), photograph(elsewhere)) == before

    @every_way
    def test_case_41_without_set_user_id(
        self, way: Way, env: Path, elsewhere: Path, sources: Sources, tmp_path: Path
    ) -> None:
        self.arrive(way, sources, env, elsewhere, tmp_path / "tree")
        files = [path for path in (tmp_path / "tree").rglob("*") if path.is_file() and not path.is_symlink()]
        assert [path for path in files if path.stat().st_mode & SET_ID] == []
        assert (elsewhere / "tool").stat().st_mode & SET_ID


class TestOddFiles:
    """Holes, bits, and names that lead to one file."""

    @every_way
    def test_case_41_set_id_bits_of_files_are_dropped_and_noted(
        self, way: Way, env: Path, sources: Sources, tmp_path: Path
    ) -> None:
        for name, mode in (("setuid", 0o4755), ("setgid", 0o2711), ("both", 0o6750)):
            (env / "bin" / name).write_text(f"#!{env}/bin/python\n")
            (env / "bin" / name).chmod(mode)
        os.link(env / "bin" / "setuid", env / "bin" / "setuid2")
        (env / "bin").chmod(0o555)
        (env / "shared").mkdir()
        (env / "shared").chmod(0o2775)
        before = photograph(env)
        arrive(way, sources, env, tmp_path / "tree")
        modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "tree" / "bin").iterdir()}
        assert modes == {"activate": 0o644, "setuid": 0o755, "setuid2": 0o755, "setgid": 0o711, "both": 0o750}
        assert (tmp_path / "tree" / "shared").stat().st_mode & 0o7777 == 0o2775
        assert (tmp_path / "tree" / "bin" / "setuid").samefile(tmp_path / "tree" / "bin" / "setuid2")
        assert (tmp_path / "tree" / "bin" / "both").read_bytes() == b"#!%b/bin/python\n" % DESTINATION
        assert sources.scan(env).notices.counts == {"setuid": 4}
        assert photograph(env) == before

    @every_way
    @pytest.mark.parametrize("examined", [False, True], ids=["data", "environment"])
    def test_case_43_a_sparse_file_keeps_its_holes(
        self, way: Way, *, examined: bool, env: Path, sources: Sources, tmp_path: Path
    ) -> None:
        source = env if examined else tmp_path / "data"
        source.mkdir(exist_ok=True)
        with open(source / "sparse", "wb") as file:
            file.truncate(SPARSE_BYTES)
            for place in (0, SPARSE_BYTES // 2 + 5, SPARSE_BYTES - 4096):
                file.seek(place)
                file.write(b"data")
        if size_on_disk(source / "sparse") > 1 << 20:
            pytest.skip("this filesystem keeps no holes")
        with open(source / "hole", "wb") as file:
            file.truncate(SPARSE_BYTES)
        arrive(way, sources, source, tmp_path / "tree")
        for name in ("sparse", "hole"):
            copy = tmp_path / "tree" / name
            assert copy.read_bytes() == (source / name).read_bytes()
            assert size_on_disk(copy) < 1 << 20

    @every_way
    def test_case_37_all_names_of_a_patched_file_lead_to_one(
        self, way: Way, env: Path, sources: Sources, tmp_path: Path
    ) -> None:
        large = b"# x\n" * (MAX_WHOLE_FILE // 2) + b"HERE = '%b'\n" % os.fsencode(env)
        for name, data in (("small", b"HERE = '%b'\n" % os.fsencode(env)), ("large", large), ("same", b"nothing")):
            (site(env) / "pkg" / name).write_bytes(data)
            for place in (env / "aaa", env / "lib" / "between", site(env) / "pkg" / "zzz"):
                place.mkdir(exist_ok=True)
                os.link(site(env) / "pkg" / name, place / name)
        os.link(env / "bin" / "activate", env / "zzz-activate")
        settle_times(env)
        before = photograph(env)
        recorder = arrive(way, sources, env, tmp_path / "tree")
        there = tmp_path / "tree"
        for name in ("small", "large", "same"):
            names = [site(there) / "pkg" / name, there / "aaa" / name, there / "lib" / "between" / name]
            names.append(site(there) / "pkg" / "zzz" / name)
            assert {path.stat().st_ino for path in names} == {names[0].stat().st_ino}
            assert names[0].stat().st_nlink == 4
        assert (there / "aaa" / "small").read_bytes() == b"HERE = '%b'\n" % DESTINATION
        assert (there / "aaa" / "large").read_bytes().endswith(b"\nHERE = '%b'\n" % DESTINATION)
        assert (there / "bin" / "activate").samefile(there / "zzz-activate")
        assert (recorder.files, recorder.replaced) == (3, 3)
        assert photograph(env) == before

    @every_way
    def test_case_42_a_patched_file_in_a_folder_that_may_not_be_written(
        self, way: Way, env: Path, tmp_path: Path
    ) -> None:
        (site(env) / "pkg" / "__init__.py").write_text(f"HERE = '{env}'\n")
        (site(env) / "pkg" / "__init__.py").chmod(0o400)
        (site(env) / "pkg" / "link").symlink_to(env / "bin")
        (site(env) / "pkg" / "out").symlink_to(tmp_path / "outside")
        (tmp_path / "outside" / "closed").mkdir(parents=True)
        (tmp_path / "outside" / "closed" / "file").write_text("kept\n")
        for folder in (tmp_path / "outside" / "closed", tmp_path / "outside", site(env) / "pkg", site(env), env):
            folder.chmod(0o555)
        work = tmp_path / "work"
        work.mkdir()
        done = as_ordinary_user(ORDINARY, work, env, way.strategy, way.maker)
        assert (done.stdout, done.stderr) == (f"HERE = '{os.fsdecode(DESTINATION)}'\n0o555 0o555 0o400 0o555\n", "")


ORDINARY = """
import os, sys
from pathlib import Path
from ezpz.agent.destination.remove_tree import remove_tree
from tests.contract.sources import OURS, PLAIN, Sources, Way, arrive
work, env, strategy, maker = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
there = work / "run" / "tree"
follow = maker in (*OURS, PLAIN)
arrive(Way(strategy, maker), Sources(work), env, there, follow=follow)
package = there / "lib" / "python3.11" / "site-packages" / "pkg"
print((package / "__init__.py").read_text(), end="")
assert not follow or (package / "out" / "closed" / "file").read_text() == "kept\\n"
closed = package / "out" / "closed" if follow else package
print(*(oct(path.stat().st_mode & 0o777) for path in (there, package, package / "__init__.py", closed)))
remove_tree(os.fsencode(work / "run"))
"""


class TestLargeFiles:
    """What is read in pieces is patched as what is read at once, wherever an old path lies."""

    @staticmethod
    def filled(size: int, at: int, put: bytes, filler: bytes) -> bytes:
        """`size` bytes of filler with something at a place in it."""
        text = (filler * (size // len(filler) + 1))[:size]
        return text[:at] + put + text[at + len(put) :]

    @every_way
    @pytest.mark.parametrize("shift", [-4000, -20, -3, 0, 1])
    def test_text(self, way: Way, shift: int, env: Path, sources: Sources, tmp_path: Path) -> None:
        old = b" %b/lib " % os.fsencode(env)
        text = self.filled(2 * MAX_WHOLE_FILE + 99, MAX_WHOLE_FILE + shift - 1, old, b"word after word\n")
        (site(env) / "pkg" / "data.txt").write_bytes(text)
        recorder = arrive(way, sources, env, tmp_path / "tree")
        there = site(tmp_path / "tree") / "pkg" / "data.txt"
        assert there.read_bytes() == text.replace(old, b" %b/lib " % DESTINATION)
        assert there.stat().st_mtime_ns // 10**9 == (site(env) / "pkg" / "data.txt").stat().st_mtime_ns // 10**9
        assert (recorder.files, recorder.replaced) == (2, 2)

    @every_way
    @pytest.mark.parametrize("shift", [-20, -3, 0])
    def test_a_binary_whose_placeholder_is_known(
        self, way: Way, shift: int, env: Path, sources: Sources, tmp_path: Path
    ) -> None:
        old = os.fsencode(env) + b"/share\0"
        data = self.filled(
            3 * MAX_WHOLE_FILE, 2 * MAX_WHOLE_FILE + shift, old, random.Random(1).randbytes(997).replace(b"/", b".")
        )
        (env / "lib" / "libx.so").write_bytes(data)

        def with_room(relocation: Relocation) -> Relocation:
            return replace(relocation, binaries={b"lib/libx.so": len(os.fsencode(env))})

        recorder = arrive(way, sources, env, tmp_path / "tree", change=with_room)
        new = (DESTINATION + b"/share\0").ljust(len(old), b"\0")
        assert (tmp_path / "tree" / "lib" / "libx.so").read_bytes() == data.replace(old, new)
        assert recorder.notices.counts == {}
        assert recorder.files == 2

    @every_way
    @pytest.mark.parametrize("shift", [-20, -3, 0])
    def test_case_50_another_binary_stays_as_it_is_and_is_named(
        self, way: Way, shift: int, env: Path, sources: Sources, tmp_path: Path
    ) -> None:
        old = b"\0%b/share\0" % os.fsencode(env)
        data = self.filled(
            3 * MAX_WHOLE_FILE, 2 * MAX_WHOLE_FILE + shift, old, random.Random(1).randbytes(997).replace(b"/", b".")
        )
        (env / "lib" / "libx.so").write_bytes(data)
        recorder = arrive(way, sources, env, tmp_path / "tree")
        assert (tmp_path / "tree" / "lib" / "libx.so").read_bytes() == data
        assert recorder.notices.paths == {"baked-prefix": [b"lib/libx.so"]}
        assert recorder.files == 1

    def test_one_that_is_no_longer_what_was_counted(self, env: Path, sources: Sources, tmp_path: Path) -> None:
        """Of those that other programs copy this is seen when the tree is verified."""
        (env / "data").write_bytes(b"x" * (2 * MAX_WHOLE_FILE))
        job = sources.job(Way("direct"), env, tmp_path / "tree")
        (env / "data").write_bytes(b"x" * (2 * MAX_WHOLE_FILE + 1))
        with pytest.raises(SourceChanged, match="'data'"):
            fill(Way("direct"), job)
