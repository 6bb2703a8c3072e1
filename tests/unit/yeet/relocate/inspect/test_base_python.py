"""What of an installation comes along as `.python`, and under which of its names it is known."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ezpz.errors import InterpreterBroken, NoSpace
from ezpz.yeet.relocate.inspect import base_python
from ezpz.yeet.relocate.inspect.base_python import BasePython, inspect_base, installation_prefixes
from ezpz.yeet.relocate.inspect.interpreter import Interpreter
from tests.unit.yeet.programs import library, needs_gcc, program, run_path

if TYPE_CHECKING:
    from pathlib import Path

LIBRARY = "lib/python3.11"
ALL = "-Wl,--no-as-needed"
FILES = {
    "bin/python3.11": "the program",
    "bin/pip": "#!python",
    "include/python3.11/Python.h": "",
    f"{LIBRARY}/os.py": "import this",
    f"{LIBRARY}/__pycache__/os.cpython-311.pyc": "bytecode",
    f"{LIBRARY}/__pycache__/os.cpython-311.opt-1.pyc": "bytecode of -O",
    f"{LIBRARY}/lib-dynload/_x.so": "a module",
    f"{LIBRARY}/test/test_os.py": "a test",
    f"{LIBRARY}/json/tests/test_x.py": "a test",
    f"{LIBRARY}/idlelib/idle_test/x.py": "a test",
    f"{LIBRARY}/config-3.11/libpython3.11.a": "static",
    f"{LIBRARY}/config-3.11/Makefile": "prefix=...",
    f"{LIBRARY}/site-packages/own/__init__.py": "a package",
    f"{LIBRARY}/site-packages/own/test/__init__.py": "its tests",
    f"{LIBRARY}/dist-packages/debian.py": "a package",
    "lib/libbig.so": "big",
    "pkgs/x/big": "big",
    "envs/x/bin/python": "another",
    "share/data": "big",
}
WANTED = {
    ".python", ".python/bin", ".python/bin/python3.11", ".python/bin/python3", ".python/bin/python",
    ".python/lib", ".python/lib/python3.11", ".python/lib/python3.11/os.py", ".python/lib/python3.11/__pycache__",
    ".python/lib/python3.11/__pycache__/os.cpython-311.pyc", ".python/lib/python3.11/lib-dynload",
    ".python/lib/python3.11/lib-dynload/_x.so", ".python/lib/python3.11/json", ".python/lib/python3.11/idlelib",
    ".python/lib/python3.11/config-3.11", ".python/lib/python3.11/config-3.11/Makefile",
}  # fmt: skip


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """An installation, shaped as a conda environment is."""
    top = tmp_path / "py"
    for name, text in FILES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return top


def interpreter(top: Path) -> Interpreter:
    """What a python of that installation says."""
    stdlib = os.fsencode(top / LIBRARY)
    return Interpreter(
        version="3.11.7 (main)", prefix=b"/p/venv", base_prefix=os.fsencode(top),
        base_executable=os.fsencode(top / "bin" / "python3.11"), stdlib=stdlib, platstdlib=stdlib,
        tag=b"cpython-311", magic=b"abcd", imports=("zlib",), user_site=b"/home/u/.local", site_packages=(),
        base_site_packages=(stdlib + b"/site-packages",), dynload=(stdlib + b"/lib-dynload",),
    )  # fmt: skip


def base(
    top: Path, said: Interpreter | None = None, *, site: bool = False, library_path: tuple[bytes, ...] = ()
) -> BasePython:
    return inspect_base(
        said or interpreter(top), os.fsencode(top / "bin"), with_site_packages=site, library_path=library_path
    )


def paths(found: BasePython) -> set[str]:
    return {os.fsdecode(entry.path) for batch in found.scan.batches() for entry in batch}


def test_case_10_the_standard_library_and_nothing_else(top: Path) -> None:
    found = base(top)
    assert paths(found) == WANTED
    assert (found.site_packages, found.libraries, found.needs_library_path) == (0, (), False)


def test_every_entry_is_foreign_and_comes_behind_its_folder(top: Path) -> None:
    entries = [entry for batch in base(top).scan.batches() for entry in batch]
    assert all(entry.is_foreign for entry in entries)
    seen = {b""}
    for entry in entries:
        assert os.path.dirname(entry.path) in seen, entry.path
        seen.add(entry.path)
    assert len(seen) == len(entries) + 1, "something comes twice"


def test_its_names_lead_to_the_one_that_is_the_program(top: Path) -> None:
    entries = {entry.path: entry for batch in base(top).scan.batches() for entry in batch}
    assert entries[b".python/bin/python3.11"].origin == os.fsencode(top / "bin" / "python3.11")
    assert {entries[b".python/bin/" + name].target for name in (b"python", b"python3")} == {b"python3.11"}
    assert base(top).python == b".python/bin/python3.11"


def test_what_it_adds_is_counted(top: Path) -> None:
    regular = [name for name in WANTED if name.removeprefix(".python/") in FILES]
    assert base(top).scan.size == sum(len(FILES[name.removeprefix(".python/")]) for name in regular)


class TestSitePackages:
    """The packages of the base come along when the environment sees them."""

    def test_case_09_whole_with_their_tests(self, top: Path) -> None:
        found = base(top, site=True)
        packages = f".python/{LIBRARY}/site-packages"
        assert paths(found) - WANTED == {
            packages, f"{packages}/own", f"{packages}/own/__init__.py",
            f"{packages}/own/test", f"{packages}/own/test/__init__.py",
        }  # fmt: skip
        assert found.site_packages == len("a package" + "its tests")

    def test_case_09_over_a_limit_they_are_refused(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        size = len("a package" + "its tests")
        monkeypatch.setattr(base_python, "SITE_LIMIT", size)
        base(top, site=True)
        monkeypatch.setattr(base_python, "SITE_LIMIT", size - 1)
        with pytest.raises(NoSpace, match=r"the packages of the base interpreter in '.*/py' hold 18 B") as caught:
            base(top, site=True)
        assert "--base keep" in caught.value.hint
        base(top, site=False)


class TestNames:
    """Every name of the installation's top is one that files may have written down."""

    def test_case_06_of_the_folder_of_its_executable_and_what_it_leads_to(self, tmp_path: Path) -> None:
        real, minor = tmp_path / "cpython-3.11.7", tmp_path / "cpython-3.11"
        (real / "bin").mkdir(parents=True)
        minor.symlink_to(real.name)
        assert installation_prefixes(os.fsencode(minor / "bin"), os.fsencode(real)) == (
            os.fsencode(real),
            os.fsencode(minor),
        )
        assert installation_prefixes(os.fsencode(real / "bin") + b"/", os.fsencode(real)) == (os.fsencode(real),)

    def test_case_06_a_folder_of_links_is_none(self, top: Path) -> None:
        local = top.parent / ".local"
        (local / "bin").mkdir(parents=True)
        (local / "bin" / "python3.11").symlink_to(top / "bin" / "python3.11")
        assert installation_prefixes(os.fsencode(local / "bin"), os.fsencode(top)) == (os.fsencode(top),)
        assert installation_prefixes(os.fsencode(local / "bin")) == ()
        assert installation_prefixes(os.fsencode(top / "bin")) == (
            os.fsencode(top),
        )  # it has a library, whatever else is known

    def test_case_06_and_of_what_it_says_itself(self, tmp_path: Path) -> None:
        real, alias = tmp_path / "py", tmp_path / "alias"
        (real / "bin").mkdir(parents=True)
        alias.symlink_to(real)
        assert set(installation_prefixes(os.fsencode(real / "bin"), os.fsencode(alias))) == {
            os.fsencode(real), os.fsencode(alias),
        }  # fmt: skip

    def test_the_root_is_none_and_nothing_is_none(self) -> None:
        assert installation_prefixes(b"") == ()
        assert b"/" not in installation_prefixes(b"/bin", b"/")

    def test_all_of_them_move(self, top: Path) -> None:
        alias = top.parent / "alias"
        alias.symlink_to(top)
        found = base(top, replace(interpreter(top), base_prefix=os.fsencode(alias)))
        new = b"/tmp/env/.python"
        assert found.moves(b"/tmp/env") == {os.fsencode(top): new, os.fsencode(alias): new}
        assert paths(found) == WANTED

    def test_one_that_is_everybodys_is_common(self, top: Path) -> None:
        assert not base(top).is_common
        assert replace(base(top), prefixes=(b"/usr",)).is_common


def test_a_library_folder_of_another_name_comes_beside(top: Path) -> None:
    """As `lib64` of Fedora's python, or Debian's /usr/lib/python3 for what has no version."""
    (top / "lib64/python3.11/lib-dynload").mkdir(parents=True)
    (top / "lib64/python3.11/lib-dynload/_y.so").write_text("a module")
    found = base(top, replace(interpreter(top), platstdlib=os.fsencode(top / "lib64/python3.11")))
    assert ".python/lib64/python3.11/lib-dynload/_y.so" in paths(found)


@pytest.mark.processes
@needs_gcc
class TestLibraries:
    """What the program loads comes along, if it is not the system's."""

    def test_case_08_by_a_run_path_below_the_installation(self, top: Path) -> None:
        lib = library(top / "lib" / "libmine.so", "mine")
        program(top / "bin" / "python3.11", lib, *run_path("$ORIGIN/../lib"))
        found = base(top)
        assert paths(found) - WANTED == {".python/lib/libmine.so"}
        assert (found.needs_library_path, found.libraries) == (False, ())

    def test_case_08_by_the_modules_variable_from_elsewhere(self, top: Path, tmp_path: Path) -> None:
        lib = library(tmp_path / "module" / "libmine.so", "mine")
        program(top / "bin" / "python3.11", lib)
        found = base(top, library_path=(os.fsencode(lib.parent),))
        assert paths(found) - WANTED == {".python/lib/libmine.so"}
        assert (found.needs_library_path, found.libraries) == (True, (os.fsencode(lib.parent),))
        assert found.moves(b"/tmp/env")[os.fsencode(lib.parent)] == b"/tmp/env/.python/lib"

    def test_case_08_one_that_is_nowhere_is_named(self, top: Path, tmp_path: Path) -> None:
        program(top / "bin" / "python3.11", library(tmp_path / "module" / "libmine.so", "mine"))
        with pytest.raises(InterpreterBroken, match=r"libmine.so, which '.*/bin/python3.11' needs") as caught:
            base(top)
        assert "module load" in caught.value.hint

    def test_case_08_what_a_module_of_the_library_loads_comes_too(self, top: Path, tmp_path: Path) -> None:
        lib = library(tmp_path / "ssl" / "libssl-mine.so", "mine")
        library(top / LIBRARY / "lib-dynload" / "_x.so", "x", ALL, str(lib), *run_path(str(lib.parent)))
        library(
            top / LIBRARY / "lib-dynload" / "_y.so", "y", ALL, str(library(tmp_path / "gone" / "libgone.so", "gone"))
        )
        found = base(top)
        assert paths(found) - WANTED == {".python/lib/libssl-mine.so", f".python/{LIBRARY}/lib-dynload/_y.so"}
        assert found.libraries == (os.fsencode(lib.parent),)
