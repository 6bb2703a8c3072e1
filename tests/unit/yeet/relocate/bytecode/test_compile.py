"""Missing bytecode is compiled once, by the environment's own interpreter, and import takes it as its own."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.agent.common.tree_version import summarize, walk
from ezpz.errors import ToolMissing
from ezpz.yeet.model.entry import BYTECODE_DIRECTORY, Entry
from ezpz.yeet.relocate.bytecode import compile_worker
from ezpz.yeet.relocate.bytecode.compile import CompileResult, compile_missing, link_previous, remove_bytecode
from ezpz.yeet.relocate.bytecode.validity import BytecodeTag, BytecodeTracker, StaleBytecode
from tests.contract.doors import interpreter
from tests.contract.support import on_small_disk, powerless
from tests.waiting import act_when

pytestmark = pytest.mark.processes

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
TIME = 1_600_000_000_987_654_321
OLD, NEW = 'VALUE = "old"\n', 'VALUE = "new"\n'
ASK = (
    "import sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = False; from pkg import {0}; print({0}.{1})"
)


@functools.cache
def facts(python: str) -> BytecodeTag:
    code = "import sys, importlib.util as u; print(sys.implementation.cache_tag, u.MAGIC_NUMBER.hex())"
    tag, magic = subprocess.run([python, "-c", code], capture_output=True, check=True).stdout.split()
    return BytecodeTag(tag, bytes.fromhex(magic.decode()))


class Tree:
    """A small environment of one Python."""

    def __init__(self, root: Path, python: str = sys.executable, version: str = HERE) -> None:
        self.root, self.python = root, python
        self.bytecode_tag = facts(python)
        self.site = Path(f"lib/python{version}/site-packages")
        self.put("__init__", "")

    @property
    def tree(self) -> bytes:
        return os.fsencode(self.root)

    def path(self, name: str) -> bytes:
        return os.fsencode(self.site / "pkg" / f"{name}.py")

    def put(self, name: str, text: str, *, mode: int = 0o644) -> bytes:
        """Write a module; its time is always the same."""
        path = self.root / os.fsdecode(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        os.utime(path, ns=(TIME, TIME))
        return self.path(name)

    def cached(self, name: str) -> Path:
        return (
            self.root
            / self.site
            / "pkg/__pycache__"
            / os.fsdecode(self.bytecode_tag.file_name(os.fsencode(f"{name}.py")))
        )

    def compiled_by_python(self, name: str, *options: str) -> None:
        path = self.root / os.fsdecode(self.path(name))
        subprocess.run([self.python, *options, "-m", "py_compile", str(path)], check=True, env={})

    def recorder(self) -> BytecodeTracker:
        """What a copy of this tree notes."""
        recorder = BytecodeTracker(self.bytecode_tag)
        for path, status in walk(self.tree):
            if path.endswith(b".pyc"):
                recorder.add_bytecode(path, (self.root / os.fsdecode(path)).read_bytes()[:16])
            recorder.add_source(Entry(path, status.st_mode, status.st_mtime_ns, status.st_size))
        return recorder

    def compile(self, *paths: bytes, workers: int = 2, destination: bytes | None = None) -> CompileResult:
        python = os.fsencode(self.python)
        cancel = CancelToken()
        return compile_missing(self.tree, python, paths, destination or self.tree, workers=workers, cancel=cancel)

    def ask(self, name: str, what: str = "VALUE", *options: str) -> str:
        """What a module says in a process that would write bytecode if it found none that is valid."""
        command = [self.python, "-I", *options, "-c", ASK.format(name, what), str(self.root / self.site)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def tricked(tree: Tree, name: str) -> None:
    """Change a source behind the back of its bytecode: same size, same time."""
    assert len(OLD) == len(NEW)
    tree.put(name, NEW)


@pytest.mark.processes
@pytest.mark.parametrize("version", VERSIONS)
class TestCatalogue:
    def test_case_31_missing_bytecode_is_compiled_and_valid_bytecode_stays(self, tmp_path: Path, version: str) -> None:
        tree = Tree(tmp_path, interpreter(version), version)
        for name in ("missing", "valid", "outdated"):
            tree.put(name, OLD)
        tree.compiled_by_python("valid")
        tree.put("outdated", "VALUE = 'longer'\n")
        tree.compiled_by_python("outdated")
        tree.put("outdated", OLD)
        kept = tree.cached("valid").stat()

        stale = tree.recorder().stale()
        assert stale == StaleBytecode((tree.path("__init__"), tree.path("missing")), (tree.path("outdated"),))
        assert len(remove_bytecode(tree.tree, stale.outdated)) == 1
        done = tree.compile(*stale.missing, *stale.outdated)

        assert (done.compiled, done.failed) == (3, 0)
        assert os.path.samestat(tree.cached("valid").stat(), kept)
        assert tree.recorder().stale() == StaleBytecode((), ())
        before = summarize(tree.tree)
        for name in ("missing", "valid", "outdated"):
            tricked(tree, name)
            assert tree.ask(name) == "old", "import did not take the bytecode"
        assert summarize(tree.tree) == before, "import wrote bytecode of its own"

    def test_case_32_a_patched_file_of_the_same_size_and_time_is_compiled_again(
        self, tmp_path: Path, version: str
    ) -> None:
        tree = Tree(tmp_path, interpreter(version), version)
        path = tree.put("patched", OLD)
        tree.compiled_by_python("patched")
        tree.compiled_by_python("patched", "-O")
        tricked(tree, "patched")
        assert tree.ask("patched") == "old", "this would be the trap"
        assert tree.ask("patched", "VALUE", "-O") == "old"

        recorder = tree.recorder()
        recorder.mark_rewritten(path)
        assert recorder.stale().outdated == (path,)
        assert len(remove_bytecode(tree.tree, recorder.stale().outdated)) == 2
        tree.compile(*recorder.stale().outdated)

        assert tree.cached("patched").exists()
        assert tree.ask("patched") == "new"
        assert tree.ask("patched", "VALUE", "-O") == "new"

    def test_case_33_bytecode_that_names_the_old_place_is_kept_and_tells_the_new_one(
        self, tmp_path: Path, version: str
    ) -> None:
        old = Tree(tmp_path / "old", interpreter(version), version)
        old.put("shipped", "def where(): pass\nNAME = where.__code__.co_filename\n")
        old.put("compiled", "def where(): pass\nNAME = where.__code__.co_filename\n")
        old.compiled_by_python("shipped")
        new = Tree(tmp_path / "new", interpreter(version), version)
        shutil.copytree(old.root, new.root, dirs_exist_ok=True)
        assert os.fsencode(old.root) in new.cached("shipped").read_bytes()

        stale = new.recorder().stale()
        assert new.path("shipped") not in (*stale.missing, *stale.outdated)
        new.compile(*stale.missing, destination=b"/final/place")

        assert b"/final/place/" + new.path("compiled") in new.cached("compiled").read_bytes()
        for name in ("shipped", "compiled"):
            assert new.ask(name, "NAME") == str(new.root / os.fsdecode(new.path(name)))


@pytest.mark.processes
class TestTheSameTreeEachTime:
    """The version of a tree has the size, mode and time of each `.pyc` in it."""

    @pytest.mark.parametrize("version", VERSIONS)
    def test_however_many_workers_there_are(self, tmp_path: Path, version: str) -> None:
        """The sets are what CPython shares between functions or not, by what it has compiled before."""
        python = interpreter(version)
        stdlib = Path(
            subprocess.check_output([python, "-c", "import os; print(os.__file__)"], text=True).strip()
        ).parent
        versions = set()
        for workers in (1, 2, 5):
            tree = Tree(tmp_path / str(workers), python, version)
            tree.put("a", "import twin\n" + "\n" * 10_000)
            tree.put("b", 'a = {"twin", 2, 3}\ndef f():\n    b = {"twin", 2, 3}\n')
            for package in ("json", "email", "concurrent"):
                shutil.copytree(stdlib / package, tree.root / tree.site / package)
            shutil.copy2(stdlib / "ftplib.py", tree.root / tree.site)
            remove_bytecode(tree.tree, [path for path, _ in walk(tree.tree) if path.endswith(b".py")])
            done = tree.compile(*tree.recorder().stale().missing, workers=workers, destination=b"/same")
            assert done.compiled > 30
            assert done.failed == 0
            versions.add(summarize(tree.tree))
        assert len(versions) == 1

    def test_mode_and_time_are_the_sources(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)
        modes = {"plain": 0o644, "shared": 0o664, "closed": 0o600, "read_only": 0o444, "script": 0o755}
        umask = os.umask(0o077)
        try:
            tree.compile(*(tree.put(name, OLD, mode=mode) for name, mode in modes.items()))
        finally:
            os.umask(umask)
        found = {name: os.stat(tree.cached(name)) for name in modes}
        assert {name: oct(status.st_mode & 0o7777) for name, status in found.items()} == {
            name: oct(mode & 0o666 | 0o200) for name, mode in modes.items()
        }
        assert {status.st_mtime_ns for status in found.values()} == {TIME}

    def test_folders_are_as_they_were_and_a_new_one_is_as_its_parent(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)
        path = tree.put("x", OLD)
        folder = tree.root / tree.site / "pkg"
        folder.chmod(0o2751)
        os.utime(folder, ns=(TIME, TIME))
        tree.compile(path)
        assert tree.cached("x").exists()
        for made, mode in ((folder, 0o2751), (folder / "__pycache__", 0o751)):
            assert (made.stat().st_mode & 0o7777, made.stat().st_mtime_ns) == (mode, TIME)
        cache = folder / "__pycache__"
        cache.chmod(0o700)
        os.utime(cache, ns=(TIME + 5, TIME + 5))
        tree.compile(tree.put("y", OLD))
        assert tree.cached("y").exists()
        assert (cache.stat().st_mode & 0o7777, cache.stat().st_mtime_ns) == (0o700, TIME + 5)

    def test_a_cache_that_stays_empty_goes_again(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)
        path = tree.put("x", "no python\n")
        before = summarize(tree.tree)
        assert tree.compile(path).failed == 1
        assert summarize(tree.tree) == before


class TestBadFiles:
    """What cannot be compiled is counted, and nothing else happens."""

    @pytest.mark.processes
    def test_each_is_one_failure(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)
        (tree.root / "outside.py").write_text(OLD)
        bad = {
            "syntax": "def\n", "nul": "x = '\0'\n", "coding": "# coding: no-such-thing\n", "{{cookiecutter}}": "{{\n",
            "deep": "-" * 200_000 + "1\n", "deeper": "(" * 5_000 + ")" * 5_000 + "\n",
        }  # fmt: skip
        paths = [tree.put(name, text) for name, text in bad.items()]
        folder = tree.root / tree.site / "pkg"
        os.symlink(tree.root / "outside.py", folder / "link.py")
        os.mkfifo(folder / "fifo.py")
        (folder / "folder.py").mkdir()
        paths += [tree.path(name) for name in ("link", "fifo", "folder", "absent")]
        done = tree.compile(*paths, tree.put("good", OLD), tree.put("warns", "x = '\\d'\nassert (1, '')\n"))
        assert (done.compiled, done.failed) == (2, len(paths))
        assert sorted(path.name.split(".")[0] for path in tree.cached("good").parent.iterdir()) == ["good", "warns"]

    @pytest.mark.processes
    def test_one_that_crashes_the_interpreter_is_passed_by(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path / "tree")
        paths = [tree.put(name, OLD) for name in ("a", "crash", "crash2", "z")]
        tree.python = str(script(tmp_path / "python", CRASHING))
        done = tree.compile(*paths, workers=1)
        assert (done.compiled, done.failed) == (2, 2)
        assert tree.cached("z").exists()

    @pytest.mark.processes
    def test_an_interpreter_that_does_not_start_compiles_nothing(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path / "tree")
        paths = [tree.put(name, OLD) for name in "abc"]
        before = summarize(tree.tree)
        tree.python = str(script(tmp_path / "python", "#!/bin/sh\nexit 127\n"))
        assert tree.compile(*paths).failed == 3
        tree.python = str(tmp_path / "none")
        with pytest.raises(ToolMissing):
            tree.compile(*paths)
        assert summarize(tree.tree) == before

    def test_no_files_need_no_interpreter(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)
        tree.python = "/nowhere/python"
        assert tree.compile().failed == 0

    @pytest.mark.processes
    def test_stop_ends_the_workers_and_restores_the_folders(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path / "tree")
        path = tree.put("x", OLD)
        before = summarize(tree.tree)
        python = os.fsencode(script(tmp_path / "python", f"#!/bin/sh\ntouch {tmp_path}/begun\nexec sleep 600\n"))
        cancel = CancelToken()
        watcher = act_when((tmp_path / "begun").exists, cancel.cancel)
        with pytest.raises(Cancelled):
            compile_missing(tree.tree, python, (path,), b"/dst", workers=3, cancel=cancel)
        watcher.join()
        assert summarize(tree.tree) == before

    @pytest.mark.processes
    def test_names_need_not_be_utf_8(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)
        assert tree.compile(tree.put("caf\udce9", OLD)).compiled == 1
        assert tree.cached("caf\udce9").exists()


CRASHING = f"""\
#!{sys.executable}
import os, signal, subprocess, sys
paths = sys.stdin.buffer.read().split(b"\\0")[:-1]
good = next((number for number, path in enumerate(paths) if b"crash" in path), len(paths))
subprocess.run([sys.executable, *sys.argv[1:]], input=b"".join(path + b"\\0" for path in paths[:good]), check=True)
if good < len(paths):
    os.write(1, b".")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.processes
class TestOutOfTheTree:
    """Nothing outside of the tree is ever written, and no file is written in place."""

    @pytest.mark.parametrize("what", ["folder", "file", "link to nothing"])
    def test_a_cache_that_is_a_link_or_a_file_is_left_alone(self, tmp_path: Path, what: str) -> None:
        tree = Tree(tmp_path / "tree")
        path = tree.put("x", OLD)
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / tree.cached("x").name).write_text("theirs")
        cache = tree.cached("x").parent
        if what == "file":
            cache.write_text("a file")
        else:
            cache.symlink_to(outside if what == "folder" else outside / "none")
        before = summarize(tree.tree)
        assert tree.compile(path).failed == 1
        assert len(remove_bytecode(tree.tree, [path])) == 0
        assert link_previous(tree.tree, tree.tree, [path], tree.bytecode_tag) == (path,)
        assert summarize(tree.tree) == before
        assert [(p.name, p.read_text()) for p in outside.iterdir()] == [(tree.cached("x").name, "theirs")]

    def test_a_folder_that_is_a_link_is_not_followed(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path / "tree")
        outside = Tree(tmp_path / "outside")
        path = outside.put("x", OLD)
        shutil.rmtree(tree.root / "lib")
        (tree.root / "lib").symlink_to(outside.root / "lib")
        before = summarize(outside.tree)
        assert tree.compile(path).failed == 1
        assert len(remove_bytecode(tree.tree, [path])) == 0
        assert summarize(outside.tree) == before

    def test_bytecode_that_is_a_link_is_replaced_and_its_target_is_not_written(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path / "tree")
        path = tree.put("x", OLD)
        theirs = tmp_path / "theirs"
        theirs.write_text("theirs")
        tree.cached("x").parent.mkdir()
        tree.cached("x").symlink_to(theirs)
        assert tree.compile(path).compiled == 1
        assert theirs.read_text() == "theirs"
        assert not tree.cached("x").is_symlink()

    def test_a_file_that_the_version_in_place_shares_is_not_written(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path / "tree")
        path = tree.put("x", OLD)
        tree.compiled_by_python("x")
        shutil.copytree(tree.root, tmp_path / "previous", copy_function=os.link)
        before = summarize(os.fsencode(tmp_path / "previous"))
        content = tree.cached("x").read_bytes()
        tree.root.joinpath(os.fsdecode(path)).unlink()
        tree.put("x", NEW)
        assert tree.compile(path).compiled == 1
        assert tree.cached("x").read_bytes() != content
        assert summarize(os.fsencode(tmp_path / "previous")) == before
        assert (tmp_path / "previous" / tree.cached("x").relative_to(tree.root)).read_bytes() == content

    def test_read_only_folders_are_opened_up_and_restored(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)
        tree.put("x", OLD)
        tree.put("y", OLD)
        tree.compiled_by_python("y")
        for folder in (tree.cached("y").parent, tree.root / tree.site / "pkg", tree.root / tree.site):
            folder.chmod(0o555)
        run = powerless(AS_A_USER, tree.root, os.fsdecode(tree.path("x")), os.fsdecode(tree.path("y")), tree.python)
        assert run.stdout == "1 2 0\n", run.stderr
        for folder in (tree.cached("y").parent, tree.root / tree.site / "pkg", tree.root / tree.site):
            assert folder.stat().st_mode & 0o7777 == 0o555


AS_A_USER = """
import os, sys
from ezpz.agent.common.cancel import CancelToken
from ezpz.yeet.relocate.bytecode.compile import compile_missing, remove_bytecode
tree, x, y, python = map(os.fsencode, sys.argv[1:])
dropped = remove_bytecode(tree, [x, y])
done = compile_missing(tree, python, (x, y), tree, workers=1, cancel=CancelToken())
print(len(dropped), done.compiled, done.failed)
"""


@pytest.mark.processes
class TestDisks:
    """A disk that cannot take the bytecode is no file that cannot be compiled."""

    @pytest.mark.parametrize("what", ["blocks", "files", "folders", "read-only"])
    def test_case_56_one_that_is_full_or_read_only_is_told(self, tmp_path: Path, what: str) -> None:
        done = on_small_disk(FULL, tmp_path / "disk", "512k", what)
        name = "EROFS" if what == "read-only" else "ENOSPC"
        assert (done.stdout, done.stderr) == (f"{name} True\n[]\n", "")

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_case_56_it_names_the_file(self, tmp_path: Path, number: int, workers: int) -> None:
        tree = Tree(tmp_path / "tree")
        paths = [tree.put(name, OLD) for name in ("a", "b", "c")]
        before = summarize(tree.tree)
        tree.python = str(script(tmp_path / "python", f"#!/bin/sh\ncat >/dev/null; printf '.!{number}'\n"))
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            tree.compile(*paths, workers=workers)
        assert caught.value.errno == number
        assert caught.value.filename in [os.path.join(tree.tree, path) for path in paths]
        tree.python = str(script(tmp_path / "python", f"#!/bin/sh\ncat >/dev/null; printf '.+..!{number}'\n"))
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            tree.compile(*paths, workers=1)
        assert caught.value.filename == os.path.join(tree.tree, paths[2])
        assert summarize(tree.tree) == before

    def test_files_that_cannot_be_read_are_only_failures(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)
        run = powerless(
            AS_A_USER, tree.root, os.fsdecode(tree.put("x", OLD, mode=0)), os.fsdecode(tree.put("y", OLD)), tree.python
        )
        assert run.stdout == "0 1 1\n", run.stderr


FULL = """
import errno, os, subprocess, sys, threading
from pathlib import Path
from ezpz.yeet.relocate.bytecode.compile import compile_missing
from tests.unit.yeet.relocate.bytecode.test_compile import Tree
disk, what = Path(sys.argv[1]), sys.argv[2]
tree = Tree(disk / "tree")
names = [f"module_{number}" for number in range(20)]
paths = [tree.put(name, "def f():\\n    return 'x'\\n" * 100) for name in names]
if what != "folders":
    tree.cached("x").parent.mkdir()
if what == "blocks":
    room = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes((room.f_bavail - 8) * room.f_bsize))
if what in ("files", "folders"):
    for number in range(os.statvfs(disk).f_ffree - (5 if what == "files" else 0)):
        (disk / f"filler-{number}").touch()
if what == "read-only":
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
try:
    print(tree.compile(*paths))
except OSError as e:
    print(errno.errorcode[e.errno], os.fsencode(e.filename).startswith(tree.tree))
print([str(path) for path in disk.rglob(".ezpz-*")])
"""


@pytest.mark.processes
class TestReuse:
    """The version in place has compiled the same sources before."""

    @pytest.fixture
    def trees(self, tmp_path: Path) -> tuple[Tree, Tree]:
        """A version in place with bytecode, and the next one of the same source with none."""
        previous, tree = Tree(tmp_path / "previous"), Tree(tmp_path / "tree")
        for each in (previous, tree):
            each.put("x", OLD)
            each.put("y", OLD)
        previous.compile(previous.path("x"), previous.path("y"), previous.path("__init__"))
        return previous, tree

    def left(self, trees: tuple[Tree, Tree]) -> list[str]:
        previous, tree = trees
        left = link_previous(tree.tree, previous.tree, [tree.path("y"), tree.path("x")], tree.bytecode_tag)
        return [os.path.basename(path).decode() for path in left]

    def test_links_it_and_the_tree_is_the_same(self, trees: tuple[Tree, Tree]) -> None:
        previous, tree = trees
        os.utime(tree.root / tree.site / "pkg", ns=(TIME, TIME))
        paths = [tree.path(name) for name in ("x", "__init__", "y")]
        assert link_previous(tree.tree, previous.tree, paths, tree.bytecode_tag) == ()
        assert os.path.samefile(tree.cached("x"), previous.cached("x"))
        assert summarize(tree.tree) == summarize(previous.tree)
        assert (tree.root / tree.site / "pkg").stat().st_mtime_ns == TIME
        tricked(tree, "x")
        assert tree.ask("x") == "old"

    def test_without_a_version_in_place_everything_is_left(self, trees: tuple[Tree, Tree]) -> None:
        _, tree = trees
        assert link_previous(tree.tree, None, (b"b.py", b"a.py"), tree.bytecode_tag) == (b"a.py", b"b.py")
        assert link_previous(tree.tree, b"/nowhere", (tree.path("x"),), tree.bytecode_tag) == (tree.path("x"),)
        assert not tree.cached("x").parent.exists()

    def test_not_of_a_source_that_changed(self, trees: tuple[Tree, Tree]) -> None:
        trees[1].put("x", OLD + "\n")
        assert self.left(trees) == ["x.py"]

    def test_not_of_a_source_of_another_time_within_the_second(self, trees: tuple[Tree, Tree]) -> None:
        path = trees[1].root / os.fsdecode(trees[1].path("x"))
        os.utime(path, ns=(TIME, TIME + 1))
        assert self.left(trees) == ["x.py"]

    def test_not_of_a_source_of_another_mode(self, trees: tuple[Tree, Tree]) -> None:
        trees[1].put("x", OLD, mode=0o600)
        assert self.left(trees) == ["x.py"]

    def test_not_of_a_link_that_looks_like_the_source(self, trees: tuple[Tree, Tree]) -> None:
        path = trees[0].root / os.fsdecode(trees[0].path("x"))
        path.unlink()
        path.symlink_to("x" * len(OLD))
        os.utime(path, ns=(TIME, TIME), follow_symlinks=False)
        assert self.left(trees) == ["x.py"]

    @pytest.mark.parametrize("wrong", ["magic", "time", "mode", "short", "link", "fifo", "gone"])
    def test_not_what_is_no_valid_bytecode(self, trees: tuple[Tree, Tree], wrong: str) -> None:
        cached = trees[0].cached("x")
        data = cached.read_bytes()
        if wrong in ("link", "fifo", "gone"):
            cached.unlink()
        if wrong == "link":
            cached.symlink_to(trees[0].cached("y"))
        elif wrong == "fifo":
            os.mkfifo(cached)
        elif wrong != "gone":
            cached.write_bytes({"magic": b"\0\0" + data[2:], "short": data[:9]}.get(wrong, data))
            cached.chmod(0o600 if wrong == "mode" else 0o644)
            os.utime(cached, ns=(TIME, TIME + (wrong == "time")))
        assert self.left(trees) == ["x.py"]
        assert not trees[1].cached("x").exists()
        assert trees[1].cached("y").exists()

    def test_what_stands_there_already_stays(self, trees: tuple[Tree, Tree]) -> None:
        tree = trees[1]
        tree.compiled_by_python("x")
        inode = os.lstat(tree.cached("x")).st_ino
        assert self.left(trees) == ["x.py"]
        assert os.lstat(tree.cached("x")).st_ino == inode


def test_the_worker_which_imports_nothing_of_ezpz_uses_the_same_directory() -> None:
    assert compile_worker.CACHE == BYTECODE_DIRECTORY
