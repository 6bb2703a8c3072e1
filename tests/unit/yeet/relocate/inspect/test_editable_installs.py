"""Editable installs are found whatever backend made them, and nothing that it wrote is executed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.relocate.formats.pth import ImportHook, parse_hook, parse_pth
from ezpz.yeet.relocate.inspect.editable_installs import Editable, find_editables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETUPTOOLS = """from __future__ import annotations
import sys
from importlib.machinery import PathFinder

MAPPING: dict[str, str] = {mapping}
NAMESPACES: dict[str, list[str]] = {namespaces}
PATH_PLACEHOLDER = '__editable__.lab-1.0.finder' + ".__path_hook__"


class _EditableFinder:
    pass


def install():
    sys.meta_path.append(_EditableFinder)
"""
MESON_NEW = """import sys

class MesonpyMetaFinder:
    pass

def init():
    finder = MesonpyMetaFinder(
        'lab',
        {{'lab'}},
        '{build}',
        ['/usr/bin/ninja'],
        False,
    )
    sys.meta_path.insert(0, finder)
"""
MESON_OLD = """import sys

class MesonpyMetaFinder:
    pass

def install(names, path, cmd, verbose):
    sys.meta_path.insert(0, MesonpyMetaFinder(names, path, cmd, verbose))

install({{'lab'}}, '{build}', ['/usr/bin/ninja'], False)
"""


class Site:
    """An environment with its site-packages, and a place for projects beside it."""

    def __init__(self, tmp_path: Path) -> None:
        self.env, self.projects = tmp_path / "env", tmp_path / "projects"
        self.folder = self.env / "lib" / "python3.11" / "site-packages"
        self.folder.mkdir(parents=True)
        self.projects.mkdir()

    def package(self, path: str) -> Path:
        """A package below the projects."""
        folder = self.projects / path
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        return folder

    def write(self, name: str, text: str | bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def distribution(self, name: str, root: Path, files: tuple[str, ...] = ()) -> None:
        """What an installer records of an editable distribution."""
        info = f"{name.replace('-', '_')}-1.0.dist-info"
        url = {"dir_info": {"editable": True}, "url": root.as_uri()}
        self.write(f"{info}/direct_url.json", json.dumps(url))
        self.write(f"{info}/METADATA", f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n")
        self.write(f"{info}/RECORD", "".join(f"{each},sha256=x,1\n" for each in (*files, f"{info}/METADATA")))

    def inside(self, path: bytes) -> bool:
        return path == os.fsencode(self.env) or path.startswith(os.fsencode(self.env) + b"/")

    def found(self) -> tuple[Editable, ...]:
        return find_editables((os.fsencode(self.folder),), self.inside)

    def only(self) -> Editable:
        (editable,) = self.found()
        return editable

    def paths(self) -> dict[str, bool]:
        """What was found, relative to the projects, and whether it is `whole`."""
        return {os.path.relpath(os.fsdecode(each.path), self.projects): each.on_sys_path for each in self.found()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_case_26_a_pth_leads_to_a_source_directory(site: Site) -> None:
    package = site.package("lab/src/lab")
    site.write("__editable__.lab-1.0.pth", f"{package.parent}\n")
    site.distribution("lab-project", site.projects / "lab", ("__editable__.lab-1.0.pth",))
    assert site.only() == Editable(
        name="lab-project",
        path=os.fsencode(package.parent),
        on_sys_path=True,
        loader="pth",
        rebuilds=False,
        declared_by=b"lib/python3.11/site-packages/__editable__.lab-1.0.pth",
        project=os.fsencode(site.projects / "lab"),
    )


@pytest.mark.parametrize("text", ["{}", "{}\n", "{}/\r\n", "{}   \n", "\ufeff{}\n", "# a comment\n\nimport sys\n{}\n"])
def test_case_26_a_pth_is_read_as_python_reads_it(site: Site, text: str) -> None:
    package = site.package("lab/lab")
    site.write("conda.pth", text.format(package.parent))
    assert site.only().path == os.fsencode(package.parent)


def test_case_26_a_relative_line_that_leads_out(site: Site) -> None:
    site.package("lab/lab")
    site.write("lab.pth", "../../../../projects/lab\n./inside\nplain words\n")
    assert site.only().path == os.fsencode(site.projects / "lab")


def test_case_26_what_is_not_there_is_told(site: Site) -> None:
    site.write("gone.pth", "/no/such/project/src\n")
    gone = site.only()
    assert (gone.missing, gone.on_sys_path, gone.name, gone.path) == (True, True, "project", b"/no/such/project/src")


def test_case_26_the_environment_and_the_system_are_not_editable(site: Site) -> None:
    (site.env / "src" / "lab").mkdir(parents=True)
    (site.projects / "alias").symlink_to(site.env)
    lines = [site.env / "src" / "lab", site.projects / "alias" / "src", "/usr/lib/python3/dist-packages", "/", "/etc"]
    site.write("lines.pth", "".join(f"{line}\n" for line in lines))
    assert site.found() == ()


@pytest.mark.parametrize("folder", ["/opt", "/run", "/var/lib"])
def test_case_26_a_project_may_be_where_the_image_has_files_as_well(site: Site, folder: str) -> None:
    site.write("lines.pth", f"{folder}/no/such/project/src\n")
    assert site.only().path == f"{folder}/no/such/project/src".encode()


def test_case_26_a_zip_on_sys_path_is_carried_as_one_file(site: Site) -> None:
    (site.projects / "lab.zip").touch()
    (site.projects / "notes.txt").touch()
    site.write("lab.pth", f"{site.projects}/lab.zip\n{site.projects}/notes.txt\n")
    assert site.paths() == {"lab.zip": False}


@pytest.mark.parametrize("annotated", [True, False], ids=["setuptools-84", "setuptools-64"])
def test_case_27_the_finder_of_setuptools(site: Site, *, annotated: bool) -> None:
    site.package("lab/lib/a")
    site.package("lab/other/b")
    (site.projects / "lab" / "spaces" / "n").mkdir(parents=True)
    (site.projects / "lab" / "mod.py").touch()
    (site.projects / "lab" / "ext.cpython-311-x86_64-linux-gnu.so").touch()
    lab = site.projects / "lab"
    mapping = {"a": f"{lab}/lib/a", "b": f"{lab}/other/b", "mod": f"{lab}/mod", "ext": f"{lab}/ext"}
    text = SETUPTOOLS.format(mapping=mapping, namespaces={"n": [f"{lab}/spaces/n"]})
    text = text if annotated else text.replace(": dict[str, str]", "").replace(": dict[str, list[str]]", "")
    site.write("__editable___lab_1_0_finder.py", text)
    site.write("__editable__.lab-1.0.pth", "import __editable___lab_1_0_finder; __editable___lab_1_0_finder.install()")
    site.distribution("lab", lab, ("__editable___lab_1_0_finder.py", "__editable__.lab-1.0.pth"))
    extension = "lab/ext.cpython-311-x86_64-linux-gnu.so"
    expected = ("lab/lib/a", "lab/other/b", "lab/mod.py", extension, "lab/spaces/n")
    assert site.paths() == dict.fromkeys(expected, False)
    by_path = {each.path: each for each in site.found()}
    assert by_path[os.fsencode(lab / "mod.py")].aliases == (os.fsencode(lab / "mod"),)
    assert {(each.name, each.loader) for each in site.found()} == {("lab", "setuptools")}


def test_case_27_an_egg_link_and_easy_install_name_one_directory(site: Site) -> None:
    package = site.package("lab/lab")
    site.write("lab-project.egg-link", f"{package.parent}\n.")
    site.write("easy-install.pth", f"{package.parent}\n")
    found = site.only()
    assert (found.name, found.loader, found.on_sys_path) == ("lab-project", "egg-link", True)


def test_case_27_two_spellings_of_one_directory_are_one(site: Site) -> None:
    package = site.package("lab/lab")
    (site.projects / "alias").symlink_to(site.projects / "lab")
    site.write("a.pth", f"{site.projects}/alias\n")
    site.write("b.pth", f"{package.parent}\n{site.projects}//lab/\n")
    found = site.only()
    assert found.path == os.fsencode(site.projects / "alias")
    assert set(found.aliases) == {os.fsencode(package.parent), os.fsencode(f"{site.projects}//lab/")}


def test_case_27_nested_paths_are_both_there(site: Site) -> None:
    package = site.package("lab/src/lab")
    files = {"lab": f"{package}/__init__.py", "lab.sub": f"{package}/sub.py"}
    site.write(
        "_lab_editable.py", f"def install(a, b): ...\n\n\ninstall({files}, {{'lab._c': 'lab/_c.so'}}, None, False)"
    )
    site.write("_lab_editable.pth", f"import _lab_editable\n{package.parent}\n")
    assert site.paths() == {"lab/src": True, "lab/src/lab": False}
    assert {each.rebuilds for each in site.found()} == {False}


@pytest.mark.parametrize(
    "arguments",
    [
        "{files}, {{}}, '/p/build', True, True, [], []",
        "{files}, {{}}, {{'lab': ['/p/src/lab']}}, ['lab'], '/p/build', True, True, [], [], ''",
        "{files}, {{}}, '/p/build', rebuild=True",
    ],
    ids=["0.10", "1.1", "keyword"],
)
def test_case_28_a_rebuilding_scikit_build_core(arguments: str) -> None:
    text = f"install({arguments.format(files={'lab': '/p/src/lab/__init__.py'})})"
    assert parse_hook(text.encode()) == ImportHook("scikit-build-core", (b"/p/src/lab",), rebuilds=True)


def test_case_28_an_inplace_scikit_build_core() -> None:
    for rebuilds in (True, False):
        text = f"install_inplace(['lab'], ['/p/src'], '/p', {rebuilds}, True, [])"
        assert parse_hook(text.encode()) == ImportHook("scikit-build-core", directories=(b"/p/src",), rebuilds=rebuilds)


@pytest.mark.parametrize("text", [MESON_NEW, MESON_OLD], ids=["0.22", "0.15"])
def test_case_28_meson_python_always_rebuilds(site: Site, text: str) -> None:
    lab = site.package("lab/lab").parent
    (lab / "build" / "cp311").mkdir(parents=True)
    (lab / "pyproject.toml").touch()
    site.write("_lab_editable_loader.py", text.format(build=lab / "build" / "cp311"))
    site.write("lab-editable.pth", "import _lab_editable_loader")
    found = site.only()
    assert (found.rebuilds, found.loader, found.path, found.name) == (True, "meson-python", os.fsencode(lab), "lab")


def test_case_27_the_library_editables_under_any_name(site: Site) -> None:
    package = site.package("lab/src/lab")
    lines = ("from editables.redirector import RedirectingFinder as F", "F.install()")
    site.write("_odd.py", "\n".join([*lines, f"F.map_module('lab', '{package}/__init__.py')"]))
    site.write("lab.pth", "import os, _odd")
    assert site.paths() == {"lab/src/lab": False}


def test_case_27_a_loader_that_nobody_knows_is_told_by_the_record(site: Site) -> None:
    lab = site.package("my lab/src/lab").parents[1]
    site.write("_exotic.py", f"import exotic; exotic.redirect(root={str(lab)!r})")
    site.write("lab.pth", "import _exotic")
    site.distribution("lab", lab, ("lab.pth", "_exotic.py"))
    found = site.only()
    assert (found.path, found.loader, found.on_sys_path) == (os.fsencode(lab), "direct_url", True)
    assert found.declared_by == b"lib/python3.11/site-packages/lab-1.0.dist-info/direct_url.json"


def test_case_27_a_record_alone_means_nothing(site: Site) -> None:
    """As maturin does: the compiled module is in site-packages itself."""
    lab = site.package("lab/src/lab").parents[1]
    site.write("lab/lab.abi3.so", b"\x7fELF")
    site.distribution("lab", lab, ("lab/lab.abi3.so",))
    assert site.found() == ()


def test_a_finder_with_code_instead_of_a_literal_is_not_executed(site: Site) -> None:
    lab = site.package("lab/lab").parent
    bait = site.projects / "executed"
    text = SETUPTOOLS.format(mapping=f"open({str(bait)!r}, 'w')", namespaces="[x for x in '/tmp']")
    site.write("__editable___lab_1_0_finder.py", text + f"\nROOT = {str(lab)!r}\n")
    site.write("lab.pth", f"import __editable___lab_1_0_finder; open({str(bait)!r}, 'w')")
    site.distribution("lab", lab, ("__editable___lab_1_0_finder.py",))
    assert site.only().loader == "direct_url"
    assert not bait.exists()


def test_a_pth_of_10_mb(site: Site) -> None:
    package = site.package("lab/lab")
    site.write("huge.pth", f"{package.parent}\n".encode() + b"# nothing\n" * 1_000_000)
    site.write("line.pth", b"/x" * 5_000_000)
    assert site.only().path == os.fsencode(package.parent)


def test_names_that_are_not_utf_8(site: Site) -> None:
    folder = os.fsencode(site.projects) + b"/caf\xe9/src"
    os.makedirs(folder)
    site.write("lab.pth", folder + b"\n")
    found = site.only()
    assert found.path == folder
    assert found.name == "caf\ufffd"


def test_garbage_of_every_kind(site: Site, tmp_path: Path) -> None:
    (site.folder / "folder.pth").mkdir()
    os.mkfifo(site.folder / "fifo.pth")
    (site.folder / "loop.egg-link").symlink_to("loop.egg-link")
    site.write("empty.egg-link", b"")
    site.write("binary.pth", bytes(range(256)) * 100)
    site.write("nul.pth", b"/tmp/\0x\n/\x1b[31m\n")
    site.write("__editable___deep_finder.py", b"MAPPING = " + b"(" * 100_000)
    site.write("__editable___sum_finder.py", b"MAPPING = 1" + b"+1" * 100_000)
    site.write("__editable___hash_finder.py", b"MAPPING = {[]: '/x'}\nNAMESPACES = {}\n")
    for number, told in enumerate(["{", "[]", '{"dir_info": 1}', "[" * 100_000, '{"dir_info": {"editable": true}}']):
        site.write(f"n{number}-1.dist-info/direct_url.json", told)
    urls = ["https://host/x", "file:relative", "file:///a%00b", "file://[", 7]
    for number, url in enumerate(urls):
        told = json.dumps({"dir_info": {"editable": True}, "url": url})
        site.write(f"u{number}-1.dist-info/direct_url.json", told)
    assert site.found() == ()
    assert find_editables((os.fsencode(tmp_path / "none"),), site.inside) == ()


def test_a_name_cannot_write_to_the_terminal(site: Site) -> None:
    folder = site.projects / "\x1b[31mred"
    folder.mkdir()
    mapping = {"a": str(folder)}
    site.write("__editable___red_finder.py", SETUPTOOLS.format(mapping=mapping, namespaces={}))
    assert site.only().name == "[31mred"


def test_the_highest_directory_inside_is_the_environment(site: Site) -> None:
    site.package("lab/lab")
    site.write("lab.pth", f"{site.projects}/lab\n")
    whole = find_editables((os.fsencode(site.folder),), lambda _: False)
    assert [each.declared_by for each in whole] == [b"lab.pth"]


def test_the_source_is_only_read(site: Site) -> None:
    package = site.package("lab/lab")
    site.write("lab.pth", f"{package.parent}\n")

    def state() -> list[tuple[str, int, int]]:
        paths = sorted([*site.env.rglob("*"), *site.projects.rglob("*")])
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths]

    before = state()
    site.found()
    assert state() == before


@pytest.mark.parametrize("read", [parse_pth, parse_hook], ids=["pth", "hook"])
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_nothing_that_a_file_holds_is_an_error(read: Callable[[bytes], object], data: bytes) -> None:
    read(data)


@given(st.lists(st.text("/ab.#\t ", max_size=8), max_size=6))
def test_a_pth_gives_the_lines_that_are_neither_code_nor_comment(lines: list[str]) -> None:
    expected = dict.fromkeys(line.rstrip() for line in lines if line.strip() and not line.startswith("#"))
    without_tabs = [line.encode() for line in expected if "\t" not in line]
    assert list(parse_pth("\n".join(lines).encode()).paths) == without_tabs
