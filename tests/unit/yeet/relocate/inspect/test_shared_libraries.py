"""Which libraries programs need, compared with what ld.so itself loads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ezpz.yeet.relocate.inspect.shared_libraries import (
    LibraryClosure,
    SharedLibrary,
    find_libraries,
    system_directories,
)
from tests.unit.yeet.programs import compile_c, dynamic, library, loaded, made_up, needs_gcc, program, run_path

PYTHON = Path("/root/.pyenv/versions/3.11.7")


def put(path: Path, *needed: bytes, bits: int = 64, runpath: bytes = b"", rpath: bytes = b"") -> bytes:
    """Write a made-up library; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made_up(bits, needed=needed, runpath=runpath, rpath=rpath))
    return bytes(path)


def found(result: LibraryClosure) -> list[tuple[bytes, str]]:
    return [(each.path, each.by) for each in result.libraries]


def agree(made: Path, tmp_path: Path, library_path: Path | None = None) -> set[bytes]:
    """What we say that `made` loads is what ld.so loads; the real paths of it."""
    paths = () if library_path is None else (bytes(library_path),)
    result = find_libraries([bytes(made)], paths)
    truth = {name: path for name, path in loaded(made, library_path).items() if path.startswith(bytes(tmp_path))}
    assert {each.soname: os.path.join(each.found_in, each.soname) for each in result.libraries} == truth
    assert result.missing == ()
    return {each.path for each in result.libraries}


@pytest.mark.processes
@needs_gcc
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("override", [True, False])
def test_case_08_libraries_are_those_that_ld_so_loads(tmp_path: Path, *, old: bool, override: bool) -> None:
    deep = compile_c(tmp_path / "deep/libdeep.so", "int deep;", "-shared", "-fPIC", "-Wl,-soname,libdeep.so")
    for place in ("lib", "other"):  # of the library, its own run path finds the deep one
        library(
            tmp_path / place / "libhello.so.1", place, "-Wl,--no-as-needed", str(deep), *run_path("$ORIGIN/../deep")
        )
    flags = run_path("${ORIGIN}/../lib", old=old)
    made = program(tmp_path / "bin/program", tmp_path / "lib/libhello.so.1", *flags)
    (tmp_path / "link").symlink_to(made)
    other = tmp_path / "other" if override else None
    place = "other" if override and not old else "lib"
    expected = {bytes(tmp_path / place / "libhello.so.1"), bytes(deep)}
    assert agree(made, tmp_path, other) == agree(tmp_path / "link", tmp_path, other) == expected


@pytest.mark.processes
@needs_gcc
@pytest.mark.parametrize("old", [True, False])
def test_case_08_an_rpath_serves_the_libraries_of_libraries_and_a_runpath_does_not(
    tmp_path: Path, *, old: bool
) -> None:
    deep = compile_c(tmp_path / "lib/libdeep.so", "int deep;", "-shared", "-fPIC", "-Wl,-soname,libdeep.so")
    middle = library(tmp_path / "lib/libhello.so.1", "hello", "-Wl,--no-as-needed", str(deep))
    flags = [*run_path(str(tmp_path / "lib"), old=old), "-Wl,--allow-shlib-undefined"]
    made = program(tmp_path / "program", middle, f"-Wl,-rpath-link,{deep.parent}", *flags)
    if old:
        assert agree(made, tmp_path) == {bytes(middle), bytes(deep)}
    else:
        assert loaded(made)[b"libdeep.so"] == b"not found"
        assert find_libraries([bytes(made)]).missing == ((b"libdeep.so", bytes(middle)),)


@pytest.mark.processes
@needs_gcc
def test_case_08_the_origin_of_a_library_behind_a_link_is_where_the_link_is(tmp_path: Path) -> None:
    deep = compile_c(tmp_path / "lib/libdeep.so", "int deep;", "-shared", "-fPIC", "-Wl,-soname,libdeep.so")
    flags = ["-Wl,--no-as-needed", str(deep), *run_path("$ORIGIN")]
    middle = library(tmp_path / "store/libhello.so.1", "hello", *flags)
    (tmp_path / "lib/libhello.so.1").symlink_to(middle)
    made = program(tmp_path / "program", middle, "-Wl,--allow-shlib-undefined", *run_path(str(tmp_path / "lib")))
    assert agree(made, tmp_path) == {bytes(middle), bytes(deep)}


def test_case_08_a_python_with_its_modules(tmp_path: Path) -> None:
    if not PYTHON.is_dir():
        pytest.skip(f"{PYTHON} is not here")
    shutil.copy(PYTHON / "bin/python3.11", tmp_path / "python")
    modules = sorted(bytes(each) for each in (PYTHON / "lib/python3.11/lib-dynload").glob("*.so"))
    name = b"libpython3.11.so.1.0"
    assert find_libraries([bytes(tmp_path / "python"), *modules]) == LibraryClosure(
        (SharedLibrary(name, bytes(PYTHON / "lib") + b"/" + name, bytes(PYTHON / "lib"), "runpath"),), ()
    )


def test_the_order_is_rpath_then_ld_library_path_then_runpath(tmp_path: Path) -> None:
    for place in "abc":
        put(tmp_path / place / "libx.so")
    into = bytes(tmp_path / "a") + b":" + bytes(tmp_path / "b")
    old, new = put(tmp_path / "old", b"libx.so", rpath=into), put(tmp_path / "new", b"libx.so", runpath=into)
    both = put(tmp_path / "both", b"libx.so", rpath=into, runpath=b"/nowhere")
    path = (bytes(tmp_path / "c"),)
    assert found(find_libraries([old], path)) == [(bytes(tmp_path / "a/libx.so"), "rpath")]
    assert found(find_libraries([new], path)) == [(bytes(tmp_path / "c/libx.so"), "LD_LIBRARY_PATH")]
    assert found(find_libraries([new])) == [(bytes(tmp_path / "a/libx.so"), "runpath")]
    assert find_libraries([both]).missing == ((b"libx.so", both),)


def test_a_chain_skips_the_rpath_of_a_file_that_has_a_runpath(tmp_path: Path) -> None:
    deep = put(tmp_path / "deep/libdeep.so")
    middle = put(tmp_path / "lib/libmiddle.so", b"libdeep.so")
    top, lib = (
        put(tmp_path / "lib/libtop.so", b"libmiddle.so", rpath=b"$ORIGIN:$ORIGIN/../deep"),
        bytes(tmp_path / "lib"),
    )
    assert [path for path, _ in found(find_libraries([top]))] == [middle, deep]
    put(tmp_path / "lib/libtop.so", b"libmiddle.so", rpath=b"$ORIGIN:$ORIGIN/../deep", runpath=lib)
    assert find_libraries([top]).missing == ((b"libdeep.so", middle),)


def test_libraries_of_another_machine_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "a/libx.so", bits=32)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/libx.so").write_text("INPUT(libx.so.1)")
    (tmp_path / "c").mkdir()
    os.mkfifo(tmp_path / "c/libx.so")
    put(tmp_path / "d/libx.so")
    asks = put(tmp_path / "asks", b"libx.so")
    places = tuple(bytes(tmp_path / place) for place in "abcd")
    assert found(find_libraries([asks], places)) == [(bytes(tmp_path / "d/libx.so"), "LD_LIBRARY_PATH")]
    assert find_libraries([asks], places[:3]).missing == ((b"libx.so", asks),)


def test_system_libraries_are_neither_listed_nor_followed(tmp_path: Path) -> None:
    system = (bytes(tmp_path / "usr/lib"),)
    put(tmp_path / "usr/lib/libx.so", b"libnowhere.so")
    put(tmp_path / "usr/lib/below/liby.so", b"libnowhere.so")
    put(tmp_path / "real/libz.so")
    (tmp_path / "usr/lib/libz.so").symlink_to(tmp_path / "real/libz.so")
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "away").mkdir()
    (tmp_path / "away/libw.so").symlink_to(tmp_path / "usr/lib/libx.so")
    into = b":".join(bytes(tmp_path / place) for place in ("lib", "usr/lib/below", "away"))
    asks = put(tmp_path / "asks", b"libx.so", b"liby.so", b"libz.so", b"libw.so", runpath=into)
    assert find_libraries([asks], system=system) == LibraryClosure((), ())
    assert find_libraries([put(tmp_path / "plain", b"libx.so")], system=system) == LibraryClosure((), ())
    assert len(find_libraries([asks], system=()).libraries) == 4


def test_what_cannot_be_known_is_skipped(tmp_path: Path) -> None:
    put(tmp_path / "lib/libx.so")
    entries = b"$LIB:lib:$ORIGIN/$PLATFORM::$ORIGINAL/lib"
    asks = put(tmp_path / "asks", b"libx.so", b"linux-vdso.so.1", b"ld-linux-x86-64.so.2", runpath=entries)
    assert find_libraries([asks], (b"", b"lib", b"$ORIGIN/lib")).missing == ((b"libx.so", asks),)
    assert find_libraries([bytes(tmp_path / "no such file"), bytes(tmp_path), __file__.encode()]) == LibraryClosure(
        (), ()
    )


def test_a_library_of_a_wheel_is_served_by_what_loads_it(tmp_path: Path) -> None:
    deep, middle = (
        put(tmp_path / "x.libs/libdeep.so"),
        put(tmp_path / "x.libs/libmiddle.so", b"libdeep.so", b"libno.so"),
    )
    one, two = (
        put(tmp_path / place / "module.so", b"libmiddle.so", b"libdeep.so", rpath=b"$ORIGIN/../x.libs")
        for place in ("x", "y")
    )
    result = find_libraries([deep, middle, one, two])
    assert sorted(path for path, _ in found(result)) == [deep, middle]
    alone, inside = middle, bytes(tmp_path / "x/../x.libs/libmiddle.so")
    assert {each for each in result.missing if each[1] in (alone, inside)} == {
        (b"libno.so", alone),
        (b"libno.so", inside),
    }
    assert (b"libdeep.so", middle) in find_libraries([deep, middle]).missing


def test_every_spelling_of_a_directory_is_told(tmp_path: Path) -> None:
    lib = put(tmp_path / "real/libx.so")
    (tmp_path / "alias").symlink_to("real")
    places = [bytes(tmp_path / place) for place in ("real", "alias", "folder/../real")]
    (tmp_path / "folder").mkdir()
    result = find_libraries([put(tmp_path / f"asks{n}", b"libx.so", runpath=place) for n, place in enumerate(places)])
    assert [(each.found_in, each.path) for each in result.libraries] == [(place, lib) for place in places[:2]]


def test_loops_end_and_each_library_is_listed_once(tmp_path: Path) -> None:
    a, b = put(tmp_path / "liba.so", b"libb.so"), put(tmp_path / "libb.so", b"liba.so", b"libb.so")
    put(tmp_path / "asks", b"liba.so", b"libb.so")
    result = find_libraries([bytes(tmp_path / "asks"), a, b], (bytes(tmp_path),))
    assert sorted(path for path, _ in found(result)) == [a, b]


def test_a_library_that_is_needed_by_its_path(tmp_path: Path) -> None:
    there = put(tmp_path / "lib/libx.so", b"liby.so", runpath=b"$ORIGIN")
    put(tmp_path / "lib/liby.so")
    asks = put(tmp_path / "asks", there, b"relative/libx.so")
    result = find_libraries([asks])
    assert found(result) == [(there, "path"), (bytes(tmp_path / "lib/liby.so"), "runpath")]
    assert result.missing == ((b"relative/libx.so", asks),)


@pytest.mark.processes
@needs_gcc
def test_a_module_finds_what_its_program_has_loaded_or_has_an_rpath_for(tmp_path: Path) -> None:
    one = library(tmp_path / "lib/libhello.so.1", "hello")
    two = library(tmp_path / "lib/libtwo.so", "two")
    made = program(tmp_path / "program", one, *run_path(str(tmp_path / "lib"), old=True))
    known = dynamic(made.read_bytes())
    assert known is not None
    flags = ["-shared", "-fPIC", "-Wl,--no-as-needed", str(one), str(two)]
    module = compile_c(tmp_path / "module.so", "int module;", *flags)
    assert find_libraries([bytes(module)]).missing == ((b"libhello.so.1", bytes(module)), (b"libtwo.so", bytes(module)))
    new = program(tmp_path / "new", one, *run_path(str(tmp_path / "lib")))
    assert find_libraries([bytes(module), bytes(new)]).missing == ((b"libtwo.so", bytes(module)),)
    result = find_libraries([bytes(module), bytes(made)])
    assert result.missing == ()
    assert found(result) == [(bytes(one), "rpath"), (bytes(two), "rpath")]


def test_system_directories_are_those_of_ld_so_conf_and_the_defaults(tmp_path: Path) -> None:
    for name in ("one", "two", "three", "four"):
        (tmp_path / name).mkdir()
    (tmp_path / "conf.d").mkdir()
    conf = tmp_path / "conf"
    conf.write_text(f"# {tmp_path}/four\n{tmp_path}/one\ninclude conf.d/*.conf\ninclude {conf}\nhwcap 0 nosegneg\n")
    (tmp_path / "conf.d/a.conf").write_text(f"{tmp_path}/two/ # comment\n{tmp_path}/nowhere\n")
    (tmp_path / "conf.d/b.conf").write_text(f"{tmp_path}/three\n")
    found = system_directories(bytes(conf))
    assert found[:3] == tuple(bytes(tmp_path / name) for name in ("one", "two", "three"))
    assert b"/usr/lib" in found
    assert bytes(tmp_path / "four") not in found


@pytest.mark.processes
@needs_gcc
def test_a_library_is_known_by_its_own_name_too(tmp_path: Path) -> None:
    one = library(tmp_path / "lib/libhello.so.1", "hello")
    (tmp_path / "lib/libalias.so").symlink_to(one)
    asks = put(tmp_path / "asks", b"libalias.so", b"liblater.so", runpath=bytes(tmp_path / "lib"))
    later = put(tmp_path / "lib/liblater.so", b"libhello.so.1")  # has no run path of its own
    assert find_libraries([asks]) == LibraryClosure(
        (
            SharedLibrary(b"libalias.so", bytes(one), bytes(tmp_path / "lib"), "runpath"),
            SharedLibrary(b"liblater.so", later, bytes(tmp_path / "lib"), "runpath"),
        ),
        (),
    )
