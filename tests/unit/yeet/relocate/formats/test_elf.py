"""Run paths in ELF files: read, pointed elsewhere and added, in programs that then run."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.relocate.formats.elf import add_run_path, is_elf, plan_edits, prefer_rpath, read_dynamic, retarget
from tests.unit.yeet.programs import (
    MACHINES,
    compile_c,
    dynamic,
    library,
    loaded,
    made_up,
    needs_gcc,
    output,
    program,
    run_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON = Path("/root/.pyenv/versions/3.11.7/bin/python3.11")
ORIGIN = b"$ORIGIN/../lib"


def to(*options: bytes, below: bytes = b"/S") -> Callable[[bytes], tuple[bytes, ...]]:
    return lambda entry: options if entry.startswith(below) else ()


def moved(source: Path, destination: Path, edit: Callable[[bytes], bytes]) -> Path:
    """Move `source` with its bin/program edited; the program's new place."""
    shutil.copytree(source, destination)
    shutil.rmtree(source)
    there = destination / "bin/program"
    there.write_bytes(edit(there.read_bytes()))
    return there


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A place with a library."""
    library(tmp_path / "source/lib/libhello.so.1", "its own")
    return tmp_path / "source"


@pytest.mark.processes
@needs_gcc
@pytest.mark.parametrize("old", [True, False])
def test_case_46_runpath_into_the_source_becomes_origin(source: Path, tmp_path: Path, *, old: bool) -> None:
    made = program(source / "bin/program", source / "lib/libhello.so.1", *run_path(f"{source}/lib:/usr/lib", old=old))
    before = made.read_bytes()
    entries = (bytes(source / "lib"), b"/usr/lib")
    known = dynamic(before)
    assert known is not None
    assert known.is_program
    assert known.needed[0] == b"libhello.so.1"
    assert (known.rpath, known.runpath) == ((entries, ()) if old else ((), entries))
    change = to(ORIGIN, below=bytes(source))
    after = retarget(before, change)
    assert (after.edited, after.stuck, len(after.data)) == (1, (), len(before))
    assert retarget(after.data, change).data == after.data
    assert output(moved(source, tmp_path / "destination", lambda _: after.data)) == "its own"


@pytest.mark.processes
@needs_gcc
def test_case_46_a_python_with_a_shared_library_runs_from_another_place(tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON} is not here")
    there = tmp_path / "a/bin/python3.11"
    there.parent.mkdir(parents=True)
    (tmp_path / "a/lib").mkdir()
    data = PYTHON.read_bytes()
    known = dynamic(data)
    assert known is not None
    name = known.needed[0].decode()
    shutil.copy(PYTHON.parents[1] / "lib" / name, tmp_path / "a/lib")
    after = retarget(data, to(ORIGIN, below=bytes(PYTHON.parents[1])))
    there.write_bytes(after.data)
    there.chmod(0o755)
    assert after.edited == 1
    assert loaded(there)[name.encode()] == bytes(tmp_path / "a/bin/../lib" / name)


@pytest.mark.parametrize(("bits", "order"), MACHINES)
def test_case_46_every_word_size_and_byte_order(bits: int, order: str) -> None:
    before = made_up(bits, order, runpath=b"/S/lib:/usr/lib", symbols=(1,))
    after = retarget(before, to(b"/D"))
    known, was = dynamic(after.data), dynamic(before)
    assert known is not None
    assert was is not None
    assert was.runpath == (b"/S/lib", b"/usr/lib")
    assert known.runpath == (b"/D", b"/usr/lib")
    assert known.needed == (b"libhello.so.1",)
    assert known.abi == was.abi
    differ = [at for at, (a, b) in enumerate(zip(before, after.data, strict=True)) if a != b]
    assert before.index(b"/S/lib") <= min(differ) <= max(differ) < before.index(b"/S/lib") + len(b"/S/lib:/usr/lib")


@pytest.mark.parametrize(
    ("entries", "options", "becomes", "stuck"),
    [
        (b"/S/lib", (b"/destination", b"$ORIGIN", b"/D"), b"/D", ()),
        (b"/S/lib/lib", (b"/dest", b"$ORIGIN"), b"/dest", ()),
        (b"/S/lib", (b"/destination",), b"/S/lib", (b"/S/lib",)),
        (b"/S/lib:/S/long/lib", (b"/destination", b"/D"), b"/destination:/D", ()),
        (b"/S/lib:/S/lib", (b"/dest/lib",), b"/S/lib:/S/lib", (b"/S/lib", b"/S/lib")),
        (b"/S/lib:/S/l/o/n/g", (b"/dest/li",), b"/dest/li:/dest/li", ()),
        (b"/S/long/lib:/S/l", (b"/dest/lib",), b"/dest/lib:/S/l", (b"/S/l",)),
        (b"/usr/lib:/S/l/o/n/g", (b"/dest/li",), b"/usr/lib:/dest/li", ()),
        (b"/usr/lib", (b"/D",), b"/usr/lib", ()),
        (b"/S/lib", (b"/S/lib",), b"/S/lib", ()),
    ],
)
def test_case_46_the_first_that_fits(
    entries: bytes, options: tuple[bytes, ...], becomes: bytes, stuck: tuple[bytes, ...]
) -> None:
    after = retarget(made_up(runpath=entries), to(*options))
    known = dynamic(after.data)
    assert known is not None
    assert b":".join(known.runpath) == becomes
    assert after.stuck == stuck


def test_case_46_the_room_of_the_first_place_is_not_lost() -> None:
    first = retarget(made_up(runpath=b"/S/long/path/lib"), to(b"/D"))
    second = retarget(first.data, to(b"/S/other/path", below=b"/D"))
    assert second.edited == 1
    assert second.data == made_up(runpath=b"/S/other/path\0\0\0")


SHARES = {
    "soname is its end": ["-Wl,-soname,tail", "-DF=f"],
    "it is the end of the soname": ["-Wl,-soname,x/S/some/tail", "-DF=f"],
    "symbol": ["-DF=tail"],
    "version": ["-DF=f", "-Wl,--version-script,{map}"],
    "needed version": ["-DF=f", "{versioned}"],
}


@pytest.mark.processes
@needs_gcc
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("hash_style", ["sysv", "gnu"])
def test_case_46_a_string_that_something_else_needs_is_left(share: str, hash_style: str, tmp_path: Path) -> None:
    script, versioned = tmp_path / "map", tmp_path / "versioned.so"
    script.write_text("tail { global: *; };\n")
    compile_c(versioned, "int v(void) { return 0; }", "-shared", "-fPIC", f"-Wl,--version-script,{script}")
    code = "int v(void);\nint F(void) { return v(); }"
    common = ["-shared", "-fPIC", "-s", f"-Wl,--hash-style={hash_style}", *run_path("/S/some/tail")]
    flags = [flag.format(map=script, versioned=versioned) for flag in SHARES[share]]
    before = compile_c(tmp_path / "x.so", code, *common, *flags).read_bytes()
    after = retarget(before, to(b"/D"))
    assert (after.data, after.edited, after.stuck) == (before, 0, (b"/S/some/tail",))
    alone = retarget(compile_c(tmp_path / "y.so", code, *common, "-DF=f").read_bytes(), to(b"/D"))
    assert (alone.edited, alone.stuck) == (1, ())


@pytest.mark.parametrize("offset", [0, 1, 14, 15, 16, 20, 21])
@pytest.mark.parametrize(("bits", "order"), MACHINES)
def test_case_46_names_of_every_table_are_left(bits: int, order: str, offset: int) -> None:
    holders = [
        made_up(bits, order, runpath=b"/S/lib", symbols=(1, offset)),
        made_up(bits, order, runpath=b"/S/lib", versions=verneed(order, offset, 0)),
        made_up(bits, order, runpath=b"/S/lib", versions=verneed(order, 0, offset)),
        made_up(bits, order, runpath=b"/S/lib", versions=verdef(order, offset)),
    ]
    inside = 15 <= offset < 21  # the run path, after a NUL and libhello.so.1
    assert [retarget(data, to(b"/D")).stuck == (b"/S/lib",) for data in holders] == [inside] * 4


def test_a_version_table_that_says_it_is_endless_ends() -> None:
    one, many = struct.pack("<2Q", 0x6FFFFFFF, 1), struct.pack("<2Q", 0x6FFFFFFF, 1 << 63)
    data = made_up(runpath=b"/S/lib", versions=verneed("<", 1, 1)).replace(one, many)
    assert retarget(data, to(b"/D")).edited == 1


def verneed(order: str, library: int, version: int) -> tuple[tuple[int, bytes]]:
    return ((0x6FFFFFFE, struct.pack(order + "2H3I", 1, 1, library, 16, 0) + struct.pack(order + "3I", 0, 0, version)),)


def verdef(order: str, version: int) -> tuple[tuple[int, bytes]]:
    return ((0x6FFFFFFC, struct.pack(order + "4H4I", 1, 0, 1, 1, 0, 20, 0, version)),)


@pytest.mark.processes
@needs_gcc
@pytest.mark.parametrize(
    "flags",
    [
        ["-Wl,--build-id=sha1"],
        ["-Wl,--build-id=none"],
        ["-Wl,--build-id=sha1", "-no-pie"],
        ["-Wl,--build-id=none", "-s"],
    ],
)
def test_case_08_a_program_finds_its_library_without_ld_library_path(
    flags: list[str], source: Path, tmp_path: Path
) -> None:
    library(tmp_path / "shared/libhello.so.1", "the shared one")
    made = program(source / "bin/program", source / "lib/libhello.so.1", *flags)
    assert output(made) == ""
    assert output(made, source / "lib") == "its own"
    before = made.read_bytes()
    after = add_run_path(before, ORIGIN)
    assert after is not None
    assert len(after) == len(before)
    there = moved(source, tmp_path / "destination", lambda _: after)
    assert output(there) == "its own"
    assert output(there, tmp_path / "shared") == "its own"
    known = dynamic(after)
    assert known is not None
    assert known.rpath == (ORIGIN,)
    assert add_run_path(after, ORIGIN) is None


@pytest.mark.processes
def test_case_08_a_program_keeps_the_run_path_that_it_has_behind_the_new_one(source: Path, tmp_path: Path) -> None:
    made = program(
        source / "bin/program", source / "lib/libhello.so.1", "-Wl,--build-id=none", "-Wl,-rpath,/nowhere/of/its/own"
    )
    assert output(made) == ""
    after = add_run_path(made.read_bytes(), ORIGIN)
    assert after is not None
    there = moved(source, tmp_path / "destination", lambda _: after)
    assert output(there) == "its own"
    known = dynamic(after)
    assert known is not None
    assert known.rpath == (ORIGIN, b"/nowhere/of/its/own")
    assert add_run_path(after, ORIGIN) is None


@pytest.mark.parametrize(("bits", "order"), MACHINES)
def test_case_08_a_run_path_can_be_added_to_every_word_size_and_byte_order(bits: int, order: str) -> None:
    before = made_up(bits, order)
    after = add_run_path(before, ORIGIN)
    assert after is not None
    assert len(after) == len(before)
    known = dynamic(after)
    assert known is not None
    assert known.rpath == (ORIGIN,)
    assert retarget(after, to(b"/D", below=b"$")).edited == 1


@pytest.mark.parametrize(
    "data",
    [
        made_up(runpath=b"/S/lib"),
        made_up(rpath=b"/S/lib"),
        made_up(spare=1),
        made_up(spare=0),
        made_up(build_id=False),
        made_up()[:-1],
        b"",
        b"#!/bin/sh\n",
    ],
)
def test_case_08_no_run_path_is_added_where_there_is_one_or_no_room(data: bytes) -> None:
    assert add_run_path(data, ORIGIN) is None


def test_case_08_what_another_tool_left_behind_the_end_does_not_matter() -> None:
    before = bytearray(made_up(build_id=True))
    before[-36 - 8 : -36] = b"leftover"  # the value of the last slot, before the note
    after = add_run_path(bytes(before), ORIGIN)
    assert after is not None
    known = dynamic(after)
    assert known is not None
    assert known.rpath == (ORIGIN,)


def test_case_08_a_run_path_longer_than_the_build_id_is_not_added() -> None:
    assert add_run_path(made_up(), b"x" * 19) is not None
    assert add_run_path(made_up(), b"x" * 20) is None


@pytest.mark.processes
@needs_gcc
def test_case_08_ld_library_path_does_not_override_a_preferred_run_path(source: Path, tmp_path: Path) -> None:
    library(tmp_path / "shared/libhello.so.1", "the shared one")
    made = program(source / "bin/program", source / "lib/libhello.so.1", *run_path("$ORIGIN/../lib"))
    assert output(made, tmp_path / "shared") == "the shared one"
    before = made.read_bytes()
    there = moved(source, tmp_path / "destination", prefer_rpath)
    assert output(there, tmp_path / "shared") == "its own"
    assert len(there.read_bytes()) == len(before)
    assert prefer_rpath(there.read_bytes()) == there.read_bytes()


def test_both_run_paths_are_not_merged() -> None:
    both = made_up(rpath=b"/old", runpath=b"/new")
    known = dynamic(both)
    assert known is not None
    assert (known.rpath, known.runpath) == ((b"/old",), (b"/new",))
    assert prefer_rpath(both) == both
    changed = dynamic(retarget(both, lambda entry: (entry[:2],)).data)
    assert changed is not None
    assert (changed.rpath, changed.runpath) == ((b"/o",), (b"/n",))


def test_static_files_and_others_have_no_dynamic_part() -> None:
    whole = made_up()
    assert dynamic(whole) is not None
    assert dynamic(whole[: whole.index(b"libhello")]) is None
    assert dynamic(b"\x7fELF") is None
    static = whole.replace(struct.pack("<2I", 2, 4), struct.pack("<2I", 9, 4))
    assert dynamic(static) is None
    assert is_elf(static)
    assert not is_elf(b"#!/bin/sh")


def test_a_large_file_is_not_read_whole() -> None:
    data = made_up(runpath=b"/S/lib", symbols=(1,) * 20000)
    read = 0

    def reader(offset: int, size: int) -> bytes:
        nonlocal read
        read += size
        return data[offset : offset + size]

    assert read_dynamic(reader) == dynamic(data)
    assert read < 5000 < len(data)


def test_what_to_write_is_what_differs_afterwards() -> None:
    data = made_up(runpath=b"/S/lib:/usr/lib", rpath=b"/S/a")
    writes, edited, stuck = plan_edits(lambda offset, size: data[offset : offset + size], to(b"/D"))
    new = bytearray(data)
    for start, text in writes:
        new[start : start + len(text)] = text
    assert (len(writes), edited, stuck) == (2, 2, ())
    assert bytes(new) == retarget(data, to(b"/D")).data != data
    assert plan_edits(lambda offset, size: bytes(new[offset : offset + size]), to(b"/D")).writes == ()


def mutants(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with some bytes changed, perhaps cut short."""

    def mutant(changes: dict[int, int], end: int) -> bytes:
        new = bytearray(data)
        for at, byte in changes.items():
            new[at] = byte
        return bytes(new[:end])

    headers = st.integers(0, min(len(data), 64 + 56 * 16) - 1)  # where most can go wrong
    spots = st.dictionaries(headers | st.integers(0, len(data) - 1), st.integers(0, 255), max_size=8)
    return st.builds(mutant, spots, st.just(len(data)) | st.integers(0, len(data)))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library with a run path and versions."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "map").write_text("HELLO_1 { global: *; };\n")
    flags = [f"-Wl,--version-script,{folder}/map", *run_path("/S/lib:/S/lib64")]
    return library(folder / "libhello.so.1", "hello", *flags).read_bytes()


def survives(data: bytes) -> None:
    """Nothing raises, and no length changes."""
    dynamic(data)
    assert len(retarget(data, to(b"/D", b"")).data) == len(data)
    assert len(prefer_rpath(data)) == len(data)
    assert len(add_run_path(data, ORIGIN) or data) == len(data)


@given(
    st.binary(max_size=200)
    | st.binary(max_size=600).map(lambda tail: b"\x7fELF" + tail)
    | mutants(made_up(runpath=b"/S/lib:/S/deep/lib"))
    | mutants(made_up(32, ">", runpath=b"/S/lib", symbols=(3, 5)))
    | mutants(made_up())
)
def test_damaged_files_are_never_an_error_and_keep_their_length(data: bytes) -> None:
    survives(data)


@pytest.mark.processes
@needs_gcc
@given(st.data())
def test_a_damaged_library_is_never_an_error_and_keeps_its_length(real: bytes, data: st.DataObject) -> None:
    survives(data.draw(mutants(real)))


PATHS = st.text("Sab/", min_size=1, max_size=12).map(lambda text: b"/" + text.encode())


@given(
    st.lists(PATHS | PATHS.map(lambda path: b"/S" + path), min_size=1, max_size=5),
    st.lists(st.text("dD/", min_size=1, max_size=15).map(str.encode), max_size=4),
    st.sampled_from(list(MACHINES)),
)
def test_retargeting_twice_is_retargeting_once(
    entries: list[bytes], options: list[bytes], machine: tuple[int, str]
) -> None:
    change = to(*options)
    before = made_up(*machine, runpath=b":".join(entries))
    once = retarget(before, change)
    assert len(once.data) == len(before)
    again = retarget(once.data, change)
    assert (again.data, again.edited, again.stuck) == (once.data, 0, once.stuck)
    known = dynamic(once.data)
    assert known is not None
    for old, new in zip(entries, known.runpath, strict=True):
        assert new == old or (old.startswith(b"/S") and new in options)
