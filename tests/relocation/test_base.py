"""The base interpreter comes along: whatever made the environment, wherever the base lies, whatever it needs."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.creators import tools
from tests.lab.pythons import copy_python, python
from tests.relocation.moves import Ground, add_script, names, naming, settings, venv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.relocation.support import Landed

BASE = "3.11"
EMBED = ("--base", "embed")
LIBRARY = "libpython3.11.so.1.0"
FACTS = """import os, ssl, sqlite3, ctypes, zlib, sys
print(sys.version.split()[0]); print(sys.base_prefix); print(os.__file__)"""
PLANTED = {
    "include/python3.11/Python.h": "headers",
    "lib/libpython3.11.a": "static",
    "lib/python3.11/config-3.11-x86_64-linux-gnu/libpython3.11.a": "static",
    "lib/python3.11/test/test_os.py": "tests",
    "lib/python3.11/ctypes/test/__init__.py": "tests",
    "lib/python3.11/site-packages/basepackage/__init__.py": "NAME = 'of the base'",
    "share/man/man1/python3.1": "manual",
    "lib/pkgconfig/python-3.11.pc": "prefix={base}\n",
    "lib/python3.11/config-3.11-x86_64-linux-gnu/Makefile": "prefix= {base}\nLIBDIR= {base}/lib\n",
}
UNUSED = ("asyncio", "distutils", "ensurepip", "lib2to3", "pydoc_data", "tkinter", "turtledemo", "unittest", "xml")
LEFT = ("include", "share", "lib/libpython3.11.a", "lib/python3.11/test", "lib/python3.11/site-packages")


def make_base(target: Path) -> Path:
    """An interpreter of its own prefix with things in it of which most must stay where they are; its executable."""
    executable = Path(copy_python(python(BASE), target))
    for folder in UNUSED:  # each move copies what is left
        shutil.rmtree(target / "lib" / "python3.11" / folder, ignore_errors=True)
    for name, text in PLANTED.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(base=target))
    library = target / "lib" / LIBRARY
    built = os.fsencode(Path(python(BASE)).parents[2])
    nowhere = b"/nowhere".ljust(len(built), b"x")
    library.write_bytes(library.read_bytes().replace(built, nowhere))  # where python looks when it finds nothing
    return executable


def another_base(base: Path, target: Path) -> Path:
    """A second one, of hard links; its executable, which is a file of its own."""
    shutil.copytree(base.parents[1], target, symlinks=True, copy_function=os.link)
    executable = target / "bin" / base.name
    executable.unlink()
    shutil.copy2(base, executable)
    return executable


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("ground"))
    yield ground
    ground.close()


@pytest.fixture(scope="module")
def base(ground: Ground) -> Path:
    """The executable of a base on the shared disk, which finds its library by `$ORIGIN`."""
    return make_base(ground.shared / "base")


@pytest.fixture(scope="module")
def linked(ground: Ground, base: Path) -> Landed:
    """An ordinary venv, and where it went."""
    return ground.move(venv(base, ground.shared / "venv"), *EMBED)


def check(landed: Landed) -> str:
    """It works with nothing but what is in the copy; the version that it says."""
    said, prefix, library = landed.says(landed.python, "-c", FACTS).splitlines()
    assert os.path.realpath(prefix) == str(landed.path / ".python")  # 3.10 and older write bin/../.python
    assert Path(os.path.realpath(library)).is_relative_to(landed.path / ".python" / "lib")
    assert landed.says(landed.path / "bin" / "where").strip() == str(landed.path)
    return said


def test_case_01_a_linked_python_becomes_a_relative_link_into_the_embedded_base(linked: Landed) -> None:
    check(linked)
    for name in ("python", "python3", "python3.11"):
        path = linked.path / "bin" / name
        assert not path.readlink().is_absolute(), name
        assert path.resolve() == linked.path / ".python" / "bin" / "python3.11"
    embedded = linked.path / ".python"
    assert [name for name in LEFT if (embedded / name).exists()] == []
    assert [path for path in embedded.rglob("*") if path.name in ("test", "tests") or path.suffix == ".a"] == []


def test_case_01_the_report_tells_what_came_along(linked: Landed) -> None:
    said = linked.report["relocation"]["base"]
    files = [path for path in (linked.path / ".python").rglob("*") if path.is_file() and not path.is_symlink()]
    content = sum(path.stat().st_size for path in files if path.suffix != ".pyc")  # made when it ran
    assert (said["mode"], said["reason"]) == ("embedded", "asked for")
    assert said["path"] == str(linked.source.path.parent / "base")
    assert abs(said["bytes"] - content) < 100_000, "what is patched changes its length a little"


def test_one_that_carries_its_base_goes_on_with_it(ground: Ground, linked: Landed) -> None:
    """A destination is a source as any other."""
    landed = ground.move(linked.path, *EMBED, hide=linked.path)
    check(landed)
    assert landed.report["relocation"]["base"]["mode"] == "none"
    assert naming(landed.path, linked.path) == []
    assert "env-script-taken" not in [warning["case"] for warning in landed.report["relocation"]["warnings"]]


def test_case_02_copies_are_decided_by_home_and_not_by_links(ground: Ground, base: Path) -> None:
    source = venv(base, ground.shared / "copies", "--copies", env={"LD_LIBRARY_PATH": str(base.parents[1] / "lib")})
    assert not (source / "bin" / "python3").is_symlink()
    landed = ground.move(source, *EMBED, env={"LD_LIBRARY_PATH": str(base.parents[1] / "lib")})
    check(landed)
    assert (landed.path / "bin" / "python3").is_symlink()
    assert settings(landed.path)["home"] == str(landed.path / ".python" / "bin")


def test_case_03_a_copy_that_loads_another_patch_version_is_refused(ground: Ground, base: Path) -> None:
    """Its `$ORIGIN/../lib` is that of the venv, where some other libpython is found."""
    library = base.parents[1] / "lib" / LIBRARY
    source = venv(base, ground.shared / "other", "--copies", env={"LD_LIBRARY_PATH": str(library.parent)})
    (source / "lib" / library.name).write_bytes(library.read_bytes().replace(b"3.11.7", b"3.11.9"))
    said = subprocess.check_output([source / "bin" / "python", "-c", "import sys; print(sys.version)"], text=True)
    assert said.startswith("3.11.9"), "the source loads the library beside it"
    error = ground.refused(source, *EMBED, code=28)
    assert error["code"] == "smoke-failed"
    assert "it is '3.11.7" in error["message"]
    assert "instead of '3.11.9" in error["message"]


def test_case_04_a_wrong_home_is_put_right_where_python_tolerates_it(ground: Ground) -> None:
    source = venv(python("3.9"), ground.shared / "tolerant")
    _set(source, "home", "/nowhere/bin")
    landed = ground.move(source, *EMBED)
    check(landed)
    assert settings(landed.path)["home"] == str(landed.path / ".python" / "bin")


def test_case_04_a_wrong_home_is_told_where_it_is_fatal(ground: Ground, base: Path) -> None:
    source = venv(base, ground.shared / "fatal")
    _set(source, "home", "/nowhere/bin")
    error = ground.refused(source, *EMBED, code=17)
    assert error["code"] == "interpreter-broken"
    assert f"'{source}/bin/python' does not start: " in error["message"]


def _set(environment: Path, name: str, value: str) -> None:
    lines = (environment / "pyvenv.cfg").read_text().splitlines()
    kept = [f"{name} = {value}" if line.startswith(f"{name} ") else line for line in lines]
    (environment / "pyvenv.cfg").write_text("\n".join([*kept, ""]))


@pytest.mark.parametrize("options", [(), ("--copies",)], ids=["linked", "copies"])
def test_case_05_every_key_of_virtualenv_follows(ground: Ground, base: Path, options: tuple[str, ...]) -> None:
    source = ground.shared / "-".join(["virtualenv", *options])
    argv = [str(tools() / "virtualenv"), "-q", "--no-periodic-update", "--no-seed", "--python", str(base), *options]
    variables = {**os.environ, "LD_LIBRARY_PATH": str(base.parents[1] / "lib")}
    subprocess.run([*argv, str(source)], check=True, env=variables)
    add_script(source)
    before = settings(source)
    landed = ground.move(source, *EMBED, env={"LD_LIBRARY_PATH": str(base.parents[1] / "lib")})
    check(landed)
    after = settings(landed.path)
    top = str(landed.path / ".python")
    assert after == {
        **before,
        "home": f"{top}/bin", "base-prefix": top, "base-exec-prefix": top, "base-executable": f"{top}/bin/python3.11",
        **({"executable": f"{top}/bin/python3.11"} if "executable" in before else {}),
        **({"command": after["command"]} if "command" in before else {}),
    }  # fmt: skip
    assert naming(landed.path / "bin", ground.shared) == []


def test_case_06_a_base_behind_a_link_of_its_folder(ground: Ground, base: Path) -> None:
    """As uv installs it: `cpython-3.11` leads to `cpython-3.11.7`, and files name one or the other."""
    top = ground.shared / "cpython-3.11-linux"
    top.symlink_to(base.parents[1].name)
    source = venv(top / "bin" / "python3.11", ground.shared / "minor")
    assert settings(source)["home"] == str(top / "bin")
    (source / "both.txt").write_text(f"{top}/lib {base.parents[1]}/lib\n")
    landed = ground.move(source, *EMBED)
    check(landed)
    assert (landed.path / "both.txt").read_text() == f"{landed.path}/.python/lib {landed.path}/.python/lib\n"
    assert naming(landed.path / "bin", ground.shared) == []


def test_case_06_a_folder_of_links_to_programs_is_not_the_base(ground: Ground) -> None:
    """As ~/.local/bin, where uv puts a link to each python: all else in ~/.local is not the base's."""
    local = ground.shared / "home" / ".local"
    (local / "bin").mkdir(parents=True)
    (local / "bin" / "python3.11").symlink_to(python(BASE))
    (local / "data").write_text("of the user\n")
    source = venv(local / "bin" / "python3.11", ground.shared / "by-link")
    assert settings(source)["home"] == str(local / "bin")
    (source / "note.txt").write_text(f"{local}/share/data\n")
    (source / "data").symlink_to(local / "data")
    landed = ground.move(source, *EMBED)
    check(landed)
    assert (landed.path / "note.txt").read_text() == f"{local}/share/data\n"
    assert (landed.path / "data").read_text() == "of the user\n"
    assert not (landed.path / "data").is_symlink()
    assert settings(landed.path)["home"] == str(landed.path / ".python" / "bin")


SYSTEM = Path("/usr/bin/python3.11")


@pytest.fixture(scope="module")
def of_system(ground: Ground) -> Path:
    """A venv of the python of the operating system, which every node has."""
    if not SYSTEM.exists():
        pytest.skip(f"no {SYSTEM} here")
    source = venv(SYSTEM, ground.shared / "system")
    (source / "note.txt").write_text("/usr/lib/python3.11 is the system's\n")
    return source


def test_case_07_it_is_not_embedded_when_every_node_has_it(ground: Ground, of_system: Path) -> None:
    landed = ground.move(of_system)
    assert landed.says(landed.path / "bin" / "where").strip() == str(landed.path)
    assert landed.says(landed.python, "-c", "import os; print(os.__file__)").strip() == "/usr/lib/python3.11/os.py"
    assert not (landed.path / ".python").exists()
    said = landed.report["relocation"]["base"]
    assert (said["mode"], said["bytes"], said["path"]) == ("kept", 0, "/usr")


def test_case_07_it_can_be_embedded_all_the_same(ground: Ground, of_system: Path) -> None:
    landed = ground.move(of_system, *EMBED, hide=Path("/usr/lib/python3.11"))
    check(landed)
    assert not list(landed.path.rglob("dist-packages"))
    assert (landed.path / "note.txt").read_text() == "/usr/lib/python3.11 is the system's\n"


def without_run_path(program: bytes) -> bytes:
    """A 64-bit ELF file whose DT_RUNPATH is a tag that nobody knows."""
    headers, size, count = (*struct.unpack_from("<Q", program, 32), *struct.unpack_from("<HH", program, 54))
    new = bytearray(program)
    for header in range(headers, headers + size * count, size):
        if struct.unpack_from("<I", program, header) == (2,):  # PT_DYNAMIC
            offset, _, _, length = struct.unpack_from("<4Q", program, header + 8)
            for slot in range(offset, offset + length, 16):
                if struct.unpack_from("<Q", program, slot) == (29,):  # DT_RUNPATH
                    struct.pack_into("<Q", new, slot, 0x6000000D)
    assert new != program
    return bytes(new)


@pytest.fixture(scope="module")
def needy(ground: Ground, base: Path) -> Path:
    """The python of a module, which needs LD_LIBRARY_PATH to start."""
    executable = another_base(base, ground.shared / "needy")
    executable.write_bytes(without_run_path(executable.read_bytes()))
    (ground.shared / "module").mkdir()
    library = ground.shared / "needy" / "lib" / LIBRARY
    own = ground.shared / "module" / library.name
    own.write_bytes(library.read_bytes().replace(b"3.11.7", b"3.11.9"))  # no other is called so
    library.unlink()
    return executable


@pytest.fixture(scope="module")
def of_module(ground: Ground, needy: Path) -> Path:
    return venv(needy, ground.shared / "of-a-module", env={"LD_LIBRARY_PATH": str(ground.shared / "module")})


def test_case_08_its_libraries_come_along(ground: Ground, of_module: Path) -> None:
    landed = ground.move(of_module, *EMBED, env={"LD_LIBRARY_PATH": str(ground.shared / "module")})
    assert "LD_LIBRARY_PATH" not in landed.env
    assert check(landed) == "3.11.9"
    old = {**landed.env, "LD_LIBRARY_PATH": str(ground.shared / "module")}  # the module is still loaded
    ask = "import ssl; print(open('/proc/self/maps').read())"
    maps = subprocess.check_output([landed.python, "-c", ask], env=old, text=True)
    assert not names(maps.encode(), ground.shared)


def test_case_08_a_base_that_is_kept_is_tried_with_its_libraries(ground: Ground, of_module: Path) -> None:
    landed = ground.move(of_module, "--base", "keep", env={"LD_LIBRARY_PATH": str(ground.shared / "module")})
    assert landed.report["relocation"]["base"]["mode"] == "kept"


def test_case_08_without_the_module_it_is_told_which_library_is_missing(
    ground: Ground, needy: Path, of_module: Path
) -> None:
    source = ground.shared / "lacking"
    shutil.copytree(of_module, source, symlinks=True)
    (source / "bin" / "python").unlink()  # the system may have a libpython3.11 that would do
    (source / "bin" / "python").write_bytes(needy.read_bytes().replace(b"libpython3.11.so", b"libpython9.99.so"))
    (source / "bin" / "python").chmod(0o755)
    error = ground.refused(source, *EMBED, code=17)
    assert error["message"] == f"'{source}/bin/python' does not start: libpython9.99.so.1.0 not found"
    assert "module load" in error["hint"]


def test_case_09_the_packages_of_the_base_come_along_when_they_are_seen(ground: Ground, base: Path) -> None:
    landed = ground.move(venv(base, ground.shared / "seeing", "--system-site-packages"), *EMBED)
    check(landed)
    look = "import basepackage; print(basepackage.__file__)"
    assert Path(landed.says(landed.python, "-c", look).strip()).is_relative_to(landed.path / ".python")


def test_case_09_not_when_they_are_not(linked: Landed) -> None:
    assert linked.run(linked.python, "-c", "import basepackage").returncode == 1


def test_case_10_of_a_conda_environment_only_the_library_comes_along(ground: Ground, base: Path) -> None:
    top = ground.shared / "conda"
    executable = another_base(base, top)
    for name in ("conda-meta/python-3.11.7-0.json", "pkgs/big/data", "envs/other/bin/python", "lib/libcuda-big.so",
                 "share/data", "etc/conda/activate.d/x.sh"):  # fmt: skip
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("much")
    landed = ground.move(venv(executable, ground.shared / "on-conda"), *EMBED)
    check(landed)
    embedded = landed.path / ".python"
    assert sorted(os.listdir(embedded)) == ["bin", "lib"]
    assert sorted(os.listdir(embedded / "lib")) == [LIBRARY, "python3.11"]


def test_case_11_sysconfig_names_the_new_place(linked: Landed) -> None:
    top = linked.path / ".python"
    ask = "import sysconfig as s; print(s.get_config_var('LIBDIR')); print(s.get_config_var('prefix'))"
    assert linked.says(linked.python, "-c", ask).splitlines() == [f"{top}/lib", str(top)]
    assert not names(linked.says(linked.python, "-m", "sysconfig").encode(), linked.source.path.parent)
    makefile = top / "lib/python3.11/config-3.11-x86_64-linux-gnu/Makefile"
    assert makefile.read_text() == f"prefix= {top}\nLIBDIR= {top}/lib\n"
    assert naming(top, linked.source.path.parent) == []
