"""What of an editable install comes along, where it lands, and what is refused."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.errors import EditableRefused
from ezpz.yeet.relocate.additions.editable_snapshot import EXCLUDED_BELOW, list_importable, plan_moves
from ezpz.yeet.relocate.formats.prefix import PrefixMap
from ezpz.yeet.relocate.formats.pth import rewrite_pth
from ezpz.yeet.relocate.inspect.editable_errors import SIZE_LIMIT, check_editables, snapshot_too_large
from ezpz.yeet.relocate.inspect.editable_installs import Editable

if TYPE_CHECKING:
    from pathlib import Path

DST = b"/tmp/env"
SITE = b"/p/env/lib/python3.11/site-packages"


def editable(
    path: str | bytes | Path,
    name: str = "lab",
    *,
    on_sys_path: bool = False,
    loader: str = "setuptools",
    rebuilds: bool = False,
    missing: bool = False,
    aliases: tuple[bytes, ...] = (),
) -> Editable:
    return Editable(
        name, os.fsencode(path), on_sys_path, loader, rebuilds, b"x.pth", missing, os.fsencode(path), aliases
    )


def inside(path: bytes) -> bool:
    return path.startswith(b"/p/env/")


def tree(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_case_26_only_packages_come_along(tmp_path: Path) -> None:
    carried = (
        "pkg/__init__.py", "my-pkg/__init__.py", "build_tools/__init__.py", "namespace/inner/mod.py", "flat/mod.so",
        "mod.py", "ext.cpython-311-x86_64-linux-gnu.so", "lab-1.0.dist-info/METADATA", "lab.egg-info/PKG-INFO",
        "numpy.libs/libopenblas-1.so.0",
    )  # fmt: skip
    left = (
        ".git/config", ".venv/pyvenv.cfg", ".tox/py/mod.py", ".mypy_cache/x.py", "env/pyvenv.cfg", "env/lib/mod.py",
        "conda/conda-meta/history", "conda/x.py", "node_modules/a.py", "__pycache__/mod.cpython-311.pyc",
        "build/lib/pkg/__init__.py", "dist/lab-1.0.tar.gz", "docs/index.md", "data/part/deep/mod.py", "data/a.csv",
        "README.md", "pyproject.toml", "my data/mod.py", "checkpoints/conda/conda-meta/x", "checkpoints/conda/x.py",
    )  # fmt: skip
    tree(tmp_path, *carried, *left)
    names = list_importable(editable(tmp_path, on_sys_path=True))
    assert names == tuple(sorted({file.split("/")[0].encode() for file in carried}))


def test_case_26_a_link_to_the_directory_itself_is_no_package(tmp_path: Path) -> None:
    tree(tmp_path, "src/pkg/__init__.py", "other/pkg2/__init__.py")
    (tmp_path / "src" / "me").symlink_to(".")
    (tmp_path / "src" / "above").symlink_to("..")
    (tmp_path / "src" / "gone.py").symlink_to("nothing")
    (tmp_path / "src" / "pkg2").symlink_to("../other/pkg2")
    assert list_importable(editable(tmp_path / "src", on_sys_path=True)) == (b"pkg", b"pkg2")


def test_case_26_names_that_are_not_utf_8(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    for name in (b"caf\xe9", b"\xff.py"):
        os.mkdir(os.path.join(root, name))
    os.mkdir(os.path.join(root, b"p\xe9"))
    for path in (b"caf\xe9/x.py", b"p\xe9/__init__.py", b"m\xe9.py"):
        with open(os.path.join(root, path), "wb"):
            pass
    assert list_importable(editable(root, on_sys_path=True)) == (b"m\xe9.py", b"p\xe9")


def test_case_26_what_cannot_be_read_is_no_package(tmp_path: Path) -> None:
    tree(tmp_path, "pkg/__init__.py", "space/pkg/mod.py", "data/deep/mod.txt")
    os.mkfifo(tmp_path / "pipe.py")
    assert list_importable(editable(tmp_path, on_sys_path=True)) == (b"pkg", b"space")
    assert list_importable(editable(tmp_path / "pkg")) == ()
    with pytest.raises(FileNotFoundError):
        list_importable(editable(tmp_path / "none", on_sys_path=True))


def test_case_26_a_pth_leads_to_the_copy(tmp_path: Path) -> None:
    src = tmp_path / "lab" / "src"
    tree(src, "lab/__init__.py", "notes.txt")
    (move,) = plan_moves((editable(src, on_sys_path=True, loader="pth"),), DST)
    assert (move.source, move.target, move.on_sys_path, move.names) == (
        os.fsencode(src),
        b".editable/lab",
        True,
        (b"lab",),
    )
    assert rewrite_pth(os.fsencode(f"{src}\n"), SITE, inside, (move,)) == b"/tmp/env/.editable/lab\n"


def test_case_26_a_pth_is_repointed_however_it_spells_the_path(tmp_path: Path) -> None:
    tree(tmp_path, "pkg/__init__.py")
    source = os.fsencode(tmp_path)
    moves = plan_moves((editable(tmp_path, on_sys_path=True, aliases=(b"/alias/lab",)),), DST)
    relative = os.path.relpath(source, SITE)
    before = [b"\xef\xbb\xbf" + source, b"# " + source, b"import x; x(" + source + b")", relative, source + b"/ ", b"",
              b"/alias/lab", b"./own", source + b"-other", b"../../../../else"]  # fmt: skip
    new = b"/tmp/env/.editable/lab"
    after = [b"\xef\xbb\xbf" + new, b"# " + source, b"import x; x(" + source + b")", new, new + b" ", b"",
             new, b"./own", source + b"-other", b"/p/else"]  # fmt: skip
    assert rewrite_pth(b"\r\n".join(before), SITE, inside, moves) == b"\r\n".join(after)


def test_case_26_an_egg_link_keeps_its_second_line(tmp_path: Path) -> None:
    moves = plan_moves((editable(tmp_path, on_sys_path=True, loader="egg-link"),), DST)
    data = os.fsencode(tmp_path) + b"\n../"
    assert rewrite_pth(data, SITE, inside, moves) == b"/tmp/env/.editable/lab\n../"


@given(st.binary(max_size=80) | st.text("/ab.#\n\r\t ", max_size=80).map(str.encode))
def test_without_moves_a_pth_that_stays_inside_is_as_it_was(data: bytes) -> None:
    assert rewrite_pth(data, SITE, lambda _: True, ()) == data


def test_case_27_packages_of_one_project_lie_together(tmp_path: Path) -> None:
    tree(tmp_path, "lib/a/__init__.py", "other/b/__init__.py", "mod.py")
    stem = os.fsencode(tmp_path / "mod")
    found = (editable(tmp_path / "lib/a"), editable(tmp_path / "other/b"), editable(stem + b".py", aliases=(stem,)))
    moves = plan_moves(found, DST)
    assert [move.target for move in moves] == [b".editable/lab/a", b".editable/lab/mod.py", b".editable/lab/b"]
    finder = f"MAPPING = {{'a': '{tmp_path}/lib/a', 'b': '{tmp_path}/other/b', 'mod': '{tmp_path}/mod'}}"
    prefixes = PrefixMap({old: new for move in moves for old, new in move.prefixes})
    there = b"/tmp/env/.editable/lab"
    expected = b"MAPPING = {'a': '%s/a', 'b': '%s/b', 'mod': '%s/mod'}" % (there, there, there)
    assert prefixes.substitute(finder.encode())[0] == expected


def test_case_27_names_are_safe_and_unique(tmp_path: Path) -> None:
    paths = [tmp_path / number / "src" / "core" for number in "12345"]
    tree(tmp_path, *(f"{number}/src/core/__init__.py" for number in "12345"))
    names = ["Lab", "lab", "../..", "\x1b[31m", "a/b"]
    found = tuple(editable(path, name) for path, name in zip(paths, names, strict=True))
    targets = [move.target for move in plan_moves(found, DST)]
    assert targets == [
        b".editable/Lab/core",
        b".editable/lab-2/core",
        b".editable/_../core",
        b".editable/__31m/core",
        b".editable/a_b/core",
    ]
    whole = tuple(editable(path.parent, "lab", on_sys_path=True) for path in paths[:2])
    assert [move.target for move in plan_moves(whole, DST)] == [b".editable/lab", b".editable/lab-2"]
    mixed = (editable(paths[0].parent, on_sys_path=True), editable(paths[1]))
    assert [move.target for move in plan_moves(mixed, DST)] == [b".editable/lab", b".editable/lab-2/core"]


def test_case_27_what_lies_in_another_is_not_carried_twice(tmp_path: Path) -> None:
    tree(tmp_path, "src/lab/__init__.py", "src/lab/.venv/x/__init__.py", "src/data/x/y/z/__init__.py")
    src = tmp_path / "src"
    found = (
        editable(src, on_sys_path=True),
        editable(src / "lab", aliases=(b"/alias/lab",)),
        editable(src / "lab" / ".venv" / "x"),
        editable(src / "data" / "x" / "y" / "z"),
    )
    moves = plan_moves(found, DST)
    assert [(move.target, move.names) for move in moves] == [
        (b".editable/lab", (b"lab",)),
        (b".editable/lab-2/z", ()),
        (b".editable/lab-2/x", ()),
    ]
    assert dict(moves[0].prefixes) == {
        os.fsencode(src): b"/tmp/env/.editable/lab",
        os.fsencode(src / "lab"): b"/tmp/env/.editable/lab/lab",
        b"/alias/lab": b"/tmp/env/.editable/lab/lab",
    }


PATHS = st.lists(st.sampled_from(["a", "b", "src", "B", "a.b"]), min_size=1, max_size=4).map(
    lambda parts: "/nowhere/" + "/".join(parts)
)
SINGLES = st.lists(
    st.builds(editable, PATHS, st.sampled_from(["lab", "Lab", "lab-2", ""])), unique_by=lambda each: each.path
)


@given(SINGLES, st.randoms(use_true_random=False))
def test_targets_are_unique_and_do_not_depend_on_the_order(found: list[Editable], random: object) -> None:
    moves = plan_moves(tuple(found), DST)
    shuffled = sorted(found, key=lambda each: random.random())  # type: ignore[attr-defined]
    assert plan_moves(tuple(shuffled), DST) == moves
    targets = [move.target.lower() for move in moves]
    assert not any(
        (other + b"/").startswith(target + b"/") for target in targets for other in targets if other != target
    )
    assert len(set(targets)) == len(targets)
    assert all(os.path.basename(move.target) == os.path.basename(move.source) for move in moves)
    new = {old: place for move in moves for old, place in move.prefixes}
    assert new.keys() == {each.path for each in found}
    assert all(place.startswith(b"/tmp/env/.editable/") for place in new.values())


def test_what_is_missing_goes_nowhere() -> None:
    assert plan_moves((editable("/no/such", on_sys_path=True, missing=True),), DST) == ()


def test_what_is_left_out_further_below() -> None:
    left, carried = (".git", ".venv", ".mypy_cache", "node_modules"), ("lab.egg-info", ".libs", "__pycache__", "data")
    assert all(any(fnmatchcase(name, pattern) for pattern in EXCLUDED_BELOW) for name in left)
    assert not any(fnmatchcase(name, pattern) for name in carried for pattern in EXCLUDED_BELOW)


@pytest.mark.parametrize("mode", ["snapshot", "keep", "refuse"])
def test_case_28_a_rebuilding_editable_is_refused(mode: str) -> None:
    found = (editable("/p/fine", "fine"), editable("/p/mes", "mes", loader="meson-python", rebuilds=True))
    with pytest.raises(EditableRefused) as caught:
        check_editables(found, mode)
    assert caught.value.message == "mes is a rebuilding editable (meson-python): every rank would run its build"
    assert caught.value.hint == "install it normally: pip install /p/mes"
    assert caught.value.exit_code == 18


def test_case_28_many_of_them_are_named_briefly() -> None:
    found = tuple(editable(f"/p/{name}", name, rebuilds=True) for name in ("a", "b", "c", "d", "e"))
    with pytest.raises(EditableRefused, match="a, b, c and 2 more are rebuilding editables"):
        check_editables(found, "snapshot")


def test_case_26_refuse_means_any() -> None:
    found = (editable("/p/fine", "fine"),)
    check_editables(found, "snapshot")
    check_editables(found, "keep")
    check_editables((), "refuse")
    with pytest.raises(EditableRefused, match="fine is an editable install, read from '/p/fine'") as caught:
        check_editables(found, "refuse")
    assert "--editable snapshot" in caught.value.hint


def test_case_26_a_snapshot_has_a_limit() -> None:
    error = snapshot_too_large(3_100_000_000, (editable("/p/fine", "fine"),))
    assert SIZE_LIMIT == 2_000_000_000
    assert error.message == "the code of fine is 3.1 GB, more than the 2.0 GB that are brought along"
    assert "--editable keep" in error.hint
    assert "pip install /p/fine" in error.hint
