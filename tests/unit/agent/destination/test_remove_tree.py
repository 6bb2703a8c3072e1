"""Removing trees: of any shape and depth, by descriptors, without leaving them and without crossing a mount."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezpz.agent.common import mounts, tree_version
from ezpz.agent.destination import remove_tree, reuse
from ezpz.agent.destination.swap import writable
from tests.contract.support import in_mount_namespace, powerless, run_code

DEEP = 1100  # levels: more than python recurses, and more than a process has descriptors
LEAVES = st.sampled_from(("file", "link to a directory", "link to nothing", "fifo"))
NAMES = st.binary(min_size=1, max_size=6).map(lambda name: b"n" + name.replace(b"/", b"_").replace(b"\0", b"_"))
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=20)
MODES = st.sampled_from((0o700, 0o500, 0o300, 0o100, 0))

REMOVE = """
import os, sys
from ezpz.agent.destination import remove_tree
try:
    remove_tree.remove_tree(os.fsencode(sys.argv[1]))
except OSError as e:
    print(e.strerror)
"""


def make(path: bytes, shape: object, outside: bytes, modes: list[int]) -> None:
    """Make what `shape` tells; links lead to `outside`, and directories get the modes in turn."""
    if isinstance(shape, dict):
        os.mkdir(path)
        for name, inner in shape.items():
            make(os.path.join(path, name), inner, outside, modes)
        modes.append(modes.pop(0))
        os.chmod(path, modes[-1])
    elif shape == "file":
        with open(path, "xb") as file:
            file.write(b"content")
        os.chmod(path, 0)
    elif shape == "fifo":
        os.mkfifo(path)
    else:
        os.symlink(outside if "directory" in str(shape) else b"nothing", path)


def make_deep(top: Path, levels: int) -> None:
    """Make directories in directories, a file in each; their paths may be too long to be opened."""
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


class TestRemove:
    @settings(deadline=None, max_examples=60)
    @given(shape=TREES, modes=st.lists(MODES, min_size=1, max_size=5))
    def test_all_of_a_tree_goes_and_nothing_beside_it(self, shape: object, modes: list[int]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            top, outside = os.path.join(os.fsencode(folder), b"top"), os.path.join(os.fsencode(folder), b"outside")
            make(outside, {b"kept": "file"}, b"", [0o500])
            make(top, shape, outside, list(modes))
            remove_tree.remove_tree(top)
            assert os.listdir(folder) == ["outside"]
            assert os.listdir(outside) == [b"kept"]
            assert stat.S_IMODE(os.stat(outside).st_mode) == 0o500
            os.chmod(outside, 0o700)

    @pytest.mark.processes
    def test_an_ordinary_user_removes_what_he_has_closed(self, tmp_path: Path) -> None:
        (tmp_path / "top" / "closed" / "folder").mkdir(parents=True)
        for mode, path in ((0, "top/closed/folder"), (0o300, "top/closed"), (0, "top")):
            (tmp_path / path).chmod(mode)
        done = powerless(REMOVE, tmp_path / "top")
        assert (done.stdout, done.stderr) == ("", "")
        assert list(tmp_path.iterdir()) == []

    def test_what_is_not_there_is_gone(self, tmp_path: Path) -> None:
        remove_tree.remove_tree(os.fsencode(tmp_path / "nothing"))
        remove_tree.remove_tree(os.fsencode(tmp_path / "no" / "folder" / "nothing"))

    @pytest.mark.processes
    @pytest.mark.parametrize("levels", [DEEP, 5000])
    def test_a_deep_tree_takes_few_descriptors(self, deep_path: Path, levels: int) -> None:
        make_deep(deep_path / "top", levels)
        few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\n"
        done = run_code(f"import ezpz.agent.destination.remove_tree\n{few}{REMOVE}", deep_path / "top")
        assert (done.stdout, done.stderr) == ("", "")
        assert list(deep_path.iterdir()) == []

    def test_a_directory_that_becomes_a_link_is_not_followed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home, folder = tmp_path / "home", tmp_path / "top" / "folder"
        home.mkdir(mode=0o500)
        folder.mkdir(parents=True)
        listed = os.listdir

        def listed_and_exchanged(fd: int) -> list[str]:
            found = listed(fd)
            if "folder" in found:
                folder.rmdir()
                folder.symlink_to(home)
            return found

        unlink = remove_tree._unlink
        monkeypatch.setattr(os, "listdir", listed_and_exchanged)
        monkeypatch.setattr(remove_tree, "_unlink", lambda name, fd: name != "folder" and unlink(name, fd))
        with pytest.raises(NotADirectoryError):
            remove_tree.remove_tree(os.fsencode(tmp_path / "top"))
        assert stat.S_IMODE(home.stat().st_mode) == 0o500

    def test_a_directory_that_is_moved_away_takes_nothing_along(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elsewhere, folder = tmp_path / "elsewhere", tmp_path / "top" / "folder"
        folder.mkdir(parents=True)
        (elsewhere / "folder").mkdir(parents=True)
        (elsewhere / "kept").touch()
        opened = remove_tree.open_directory

        def opened_and_moved(name: remove_tree.Name, above: int | None = None) -> int:
            fd = opened(name, above)
            if name == "folder":
                (elsewhere / "folder").rmdir()
                folder.rename(elsewhere / "folder")
            return fd

        monkeypatch.setattr(remove_tree, "open_directory", opened_and_moved)
        with pytest.raises(OSError, match="was moved meanwhile"):
            remove_tree.remove_tree(os.fsencode(tmp_path / "top"))
        assert sorted(os.listdir(elsewhere)) == ["folder", "kept"]


MOUNTS = {
    "tmpfs": "mount -t tmpfs none top/a/mounted && touch top/a/mounted/kept",
    "bind": "mount --bind kept top/a/mounted",
    "file": "rmdir top/a/mounted && touch top/a/mounted && mount --bind kept/kept top/a/mounted",
    "top": "mount --bind kept top",
}


class TestMounts:
    @pytest.mark.processes
    @pytest.mark.parametrize("kind", MOUNTS)
    def test_nothing_is_removed_when_something_is_mounted_below(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "top" / "a" / "mounted").mkdir(parents=True)
        (tmp_path / "top" / "z").touch()
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "kept").touch()
        done = in_mount_namespace(tmp_path, MOUNTS[kind], REMOVE + "\nprint(os.listdir(sys.argv[2]))", "top", "top")
        point = tmp_path / "top" if kind == "top" else tmp_path / "top" / "a" / "mounted"
        assert done.stdout.splitlines()[0] == f"another filesystem is mounted at '{point}'", done.stderr
        assert (tmp_path / "kept" / "kept").exists()
        assert (tmp_path / "top" / "z").exists()

    @pytest.mark.processes
    @pytest.mark.parametrize("kind", ["tmpfs", "bind"])
    def test_a_mount_that_comes_meanwhile_is_not_crossed(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "top" / "a" / "mounted").mkdir(parents=True)
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "kept").touch()
        blind = "from ezpz.agent.common import mounts\nmounts.within = lambda path: []\n"
        after = "\nprint(os.listdir(os.path.join(sys.argv[1], 'a', 'mounted')))"
        done = in_mount_namespace(tmp_path, MOUNTS[kind], blind + REMOVE + after, "top")
        told = f"another filesystem is mounted at '{tmp_path / 'top' / 'a' / 'mounted'}'"
        assert done.stdout.splitlines() == [told, "['kept']"], done.stderr

    @pytest.mark.processes
    def test_odd_names_are_those_of_the_kernel(self, tmp_path: Path) -> None:
        place = tmp_path / "top" / "a b\tc\\d\ne\\040f"
        place.mkdir(parents=True)
        code = (
            "import os, sys; from ezpz.agent.common import mounts\n"
            "print(ascii([mount.point for mount in mounts.within(os.fsencode(sys.argv[1]))]))"
        )
        done = in_mount_namespace(tmp_path, "mount -t tmpfs none top/*", code, "top")
        assert done.stdout.strip() == ascii([os.fsencode(place)])

    def test_a_name_that_only_begins_alike_is_not_below(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = [mounts.Mount(point, "0:1", "ext4") for point in (b"/tmp/t2", b"/tmp/t/x", b"/tmp", b"/tmp/t")]
        monkeypatch.setattr(mounts, "table", lambda: iter(found))
        assert [mount.point for mount in mounts.within(b"/tmp/t")] == [b"/tmp/t", b"/tmp/t/x"]


class TestModes:
    def test_a_directory_is_writable_and_then_as_it_was(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with writable(os.fsencode(tmp_path)):
            assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o500

    def test_what_takes_the_place_of_a_directory_keeps_its_mode(self, tmp_path: Path) -> None:
        home, folder = tmp_path / "home", tmp_path / "folder"
        home.mkdir(mode=0o711)
        folder.mkdir(mode=0o500)
        with writable(os.fsencode(folder)):
            folder.rmdir()
            folder.symlink_to(home)
        assert stat.S_IMODE(home.stat().st_mode) == 0o711


def test_folders_above_are_made_at_any_depth(deep_path: Path) -> None:
    path = "/".join(["d"] * DEEP)
    root = os.open(deep_path, os.O_RDONLY)
    try:
        reuse._make_directories(path.encode(), root)
        assert (deep_path / path).is_dir()
        reuse._make_directories(path.encode(), root)
    finally:
        os.close(root)


def test_longer_paths_than_can_be_opened_are_left_out(deep_path: Path) -> None:
    make_deep(deep_path / "top", 2 * DEEP)
    assert 0 < len(list(tree_version.walk(os.fsencode(deep_path / "top")))) < 4 * DEEP
    assert tree_version.count_missing(os.fsencode(deep_path / "top"), os.fsencode(deep_path)) > 0


def test_no_other_way_to_remove_a_tree_is_used() -> None:
    sources = Path(remove_tree.__file__).parents[2].rglob("*.py")
    words = ("rmtree", "TemporaryDirectory")
    assert [str(path) for path in sources if any(word in path.read_text() for word in words)] == []
