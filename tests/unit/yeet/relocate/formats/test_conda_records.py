"""Conda environments: their records, prefixes inside compiled code, base environments, and archives of conda-pack."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ezpz.errors import PrefixTooLong
from ezpz.yeet.relocate.formats.conda_records import (
    PackRecords,
    PrefixRecords,
    nested_directories,
    read_pack_records,
    read_prefix_records,
    replace_binary,
)
from ezpz.yeet.relocate.formats.prefix import PrefixMap
from tests.lab import conda
from tests.lab.model import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OLD, NEW = b"/p/env", b"/tmp/e"
ONE = ((OLD, NEW),)
PLACEHOLDER = "/build/_h_env" + "_placehold" * 24
ROOM = len(PLACEHOLDER)


class Tree:
    """A tree of files that exists only in memory."""

    def __init__(self, files: Mapping[bytes, bytes]) -> None:
        self.files = files

    def read(self, path: bytes) -> bytes | None:
        return self.files.get(path)

    def names(self, folder: bytes) -> tuple[bytes, ...]:
        start = folder + b"/" if folder else b""
        return tuple(sorted({path[len(start) :].split(b"/")[0] for path in self.files if path.startswith(start)}))


def record(*entries: object) -> bytes:
    return json.dumps({"name": "x", "paths_data": {"paths": entries, "paths_version": 1}}).encode()


def entry(path: object, mode: object, placeholder: object = PLACEHOLDER) -> dict[str, object]:
    return {"_path": path, "path_type": "hardlink", "file_mode": mode, "prefix_placeholder": placeholder}


def records(*contents: bytes, **more: bytes) -> PrefixRecords:
    files = {b"conda-meta/p%d.json" % number: content for number, content in enumerate(contents)}
    tree = Tree(files | {name.encode(): content for name, content in more.items()} | {b"lib/python3.11/os.py": b""})
    return read_prefix_records(tree.read, tree.names)


# Records


def test_case_47_text_with_a_prefix_tells_its_placeholder() -> None:
    found = records(record(entry("bin/tool", "text"), {"_path": "share/data", "path_type": "hardlink"}))
    assert found == PrefixRecords({}, frozenset([PLACEHOLDER.encode()]))


def test_case_48_binaries_have_as_much_room_as_their_placeholder_is_long() -> None:
    assert records(record(entry("lib/libx.so", "binary"))).binary == {b"lib/libx.so": ROOM}


def test_packages_for_any_python_are_recorded_as_they_were_before_they_were_installed() -> None:
    found = records(record(entry("site-packages/x/x.so", "binary"), entry("python-scripts/x", "binary")))
    assert found.binary == {b"lib/python3.11/site-packages/x/x.so": ROOM, b"bin/x": ROOM}


def test_case_54_a_file_that_two_packages_claim_has_the_smaller_room() -> None:
    found = records(record(entry("bin/x", "binary")), record(entry("bin/x", "binary", "/opt/short")))
    assert found.binary == {b"bin/x": len("/opt/short")}


@pytest.mark.parametrize(
    "damaged",
    [
        b"", b"{", b"null", b"[]", b'"paths_data"', b"\xff\xfe", b"[" * 100_000, b'{"paths_data": []}',
        b'{"paths_data": {"paths": {"_path": "bin/x"}}}', b'{"name": "old", "files": ["bin/x"]}',
        record("bin/x", 1, None, [], entry(1, "binary"), entry("bin/y", "binary", None), entry("bin/y", "binary", "")),
        record(entry("bin/z", "other"), entry("bin/z", None), entry("bin/z", ["text"]), {"file_mode": "binary"}),
    ],
)  # fmt: skip
def test_case_54_a_damaged_or_older_record_says_nothing_and_the_others_count(damaged: bytes) -> None:
    found = records(damaged, record(entry("bin/tool", "binary")))
    assert found.binary == {b"bin/tool": ROOM}


def test_case_54_records_that_are_missing_say_nothing() -> None:
    assert read_prefix_records(lambda path: None, lambda folder: ()) == PrefixRecords()
    assert read_prefix_records(lambda path: None, lambda folder: (b"gone.json", b"history")) == PrefixRecords()


def test_names_that_are_not_utf_8_are_bytes() -> None:
    assert set(records(record(entry("bin/\udcff", "binary"))).binary) == {b"bin/\xff"}
    assert set(records(record(entry("bin/\ud800", "binary"))).binary) == {b"\0"}


# Binary code


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"/p/env\0", b"/tmp/e\0"),
        (b"\0/p/env/lib\0\0x", b"\0/tmp/e/lib\0\0x"),
        (b"\x7f/p/env/a:/p/env/b:/p/env\0z", b"\x7f/tmp/e/a:/tmp/e/b:/tmp/e\0z"),
        (b"-I/p/env/include -L/p/env/lib\0", b"-I/tmp/e/include -L/tmp/e/lib\0"),
        (b"A/p/env\0", b"A/tmp/e\0"),  # a constant's last byte before a string looks like any letter
        (b"\xf0\xbf/p/env\0", b"\xf0\xbf/tmp/e\0"),
        (b"file:///p/env/x\0", b"file:///tmp/e/x\0"),
        (b"/p/env/no/end", b"/tmp/e/no/end"),
    ],
)
def test_case_48_a_prefix_is_replaced_at_each_place_of_a_string(before: bytes, after: bytes) -> None:
    assert replace_binary(before, ONE) == (after, before.count(OLD))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"/p/env2\0",
        b"/p/env-old/x\0",
        b"/p/env.bak\0",
        b"/p/envs\0",
        b"/mnt/p/env\0",
        b"../../p/env\0",
        b"/p\0",
    ],
)
def test_case_48_other_paths_stay(data: bytes) -> None:
    assert replace_binary(data, ONE) == (data, 0)


def test_case_48_a_shorter_prefix_is_filled_up_behind_its_string() -> None:
    data = b"\1/long/prefix/lib:/long/prefix/bin\0\2"
    assert replace_binary(data, ((b"/long/prefix", b"/d"),)) == (
        b"\1/d/lib:/d/bin\0".ljust(len(data) - 1, b"\0") + b"\2",
        2,
    )


def test_the_longest_old_prefix_comes_first_and_each_has_its_own_new_one() -> None:
    moves = ((b"/p", b"/short"), (b"/p/env", b"/tmp/env"), (b"/p/env/", b"/tmp/env"))
    assert replace_binary(b"/p/env/x:/p/y\0\0\0\0\0\0\0", moves)[0] == b"/tmp/env/x:/short/y\0"


def test_case_49_a_longer_prefix_takes_the_nuls_that_follow_and_leaves_one() -> None:
    data = b"\1/p/env/x\0\0\0\0\2"
    assert replace_binary(data, ((OLD, b"/tmp/env1"),)) == (b"\1/tmp/env1/x\0\2", 1)
    with pytest.raises(PrefixTooLong) as caught:
        replace_binary(data, ((OLD, b"/tmp/env123"),), path=b"lib/libx.so")
    assert caught.value.message == "prefix too long by 2 bytes in lib/libx.so"
    assert caught.value.hint == "use a shorter --dst"


def test_case_49_what_is_missing_is_by_how_much_the_prefix_has_to_be_shorter() -> None:
    data = b"/p/env:/p/env:/p/env\0\0\0\0" + b"/p/env\0\0\0"
    with pytest.raises(PrefixTooLong, match="too long by 2 bytes"):
        replace_binary(data, ((OLD, b"/tmp/1234"),))
    assert replace_binary(data, ((OLD, b"/tmp/12"),))[1] == 4


def test_case_49_nuls_beyond_the_room_are_not_free() -> None:
    data = OLD + bytes(100)
    assert replace_binary(data, ((OLD, b"/tmp/env12"),), room=10)[0].rstrip(b"\0") == b"/tmp/env12"
    with pytest.raises(PrefixTooLong, match="too long by 1 bytes"):
        replace_binary(data, ((OLD, b"/tmp/env123"),), room=10)


PIECES = st.sampled_from(
    [OLD, NEW, b"/p/env2", b"/p", b"/foo", b"/bin", b"lib", b" ", b":", b"=", b"-I", b"\0", b"\0\0\0", b"\1", b"\xff",
     b"file://", b"//", b"/other/place", b"."]
)  # fmt: skip
DATA = st.lists(PIECES, max_size=14).map(b"".join) | st.binary(max_size=60)
NEWS = st.sampled_from([NEW, b"/d", b"/tmp/e/longer", b"/scratch/name"])


@given(DATA, NEWS)
def test_the_length_stays_and_a_second_time_changes_nothing(data: bytes, new: bytes) -> None:
    try:
        once, count = replace_binary(data, ((OLD, new),))
    except PrefixTooLong:
        assume(False)
    assert len(once) == len(data)
    assert (count > 0) == (once != data)
    assert replace_binary(once, ((OLD, new),)) == (once, 0)


@given(st.lists(PIECES.filter(lambda piece: piece != OLD), max_size=14).map(b"".join))
def test_nothing_changes_without_the_prefix(data: bytes) -> None:
    assume(OLD not in data)
    assert replace_binary(data, ((OLD, NEW), (b"/q", b"/r"))) == (data, 0)


STRINGS = st.lists(
    st.sampled_from([OLD, b"/p/env2", b"/foo", b"/bin", b" ", b":", b"=", b" -I", b"\1"]), min_size=1, max_size=8
).map(b"".join)


@given(st.lists(STRINGS, max_size=6), NEWS)
def test_each_string_is_its_text_with_the_prefix_replaced(strings: list[bytes], new: bytes) -> None:
    room = 60  # NULs, as after a placeholder
    data = b"".join(string + bytes(room * string.count(OLD) + 1) for string in strings)
    changed, _ = replace_binary(data, ((OLD, new),))
    prefixes, place = PrefixMap({OLD: new}), 0
    for string in strings:
        expected, _ = prefixes.substitute(string)
        end = place + len(string) + room * string.count(OLD) + 1
        assert changed[place:end] == expected.ljust(end - place, b"\0")
        place = end


# A real program


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> conda.Package:
    """The package of a program in C that has its prefix compiled in."""
    try:
        return conda.make_tool(tmp_path_factory.mktemp("conda") / "pkgs")
    except LabUnavailable as why:
        pytest.skip(str(why))


def relocated_tool(tool: conda.Package, source: Path, destination: Path) -> subprocess.CompletedProcess[str]:
    """Run the program from another place, with nothing of the first left."""
    conda.install((tool,), source)
    root = bytes(source)
    found = read_prefix_records(
        lambda path: (source / path.decode()).read_bytes(),
        lambda folder: tuple(
            bytes(each.relative_to(source / folder.decode())) for each in (source / folder.decode()).glob("*")
        ),
    )
    assert found.binary == {b"bin/labtool": 255}
    for path, room in found.binary.items():
        program = source / path.decode()
        before = program.read_bytes()
        data, count = replace_binary(before, ((root, bytes(destination)),), path=path, room=room)
        assert count == before.count(root) == 3
        program.write_bytes(data)
    destination.parent.mkdir(parents=True, exist_ok=True)
    source.rename(destination)
    return subprocess.run([destination / "bin" / "labtool"], capture_output=True, text=True)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["d", "a much/longer name than the one that it had at first", "x" * 60])
def test_case_48_a_program_with_a_prefix_in_it_finds_its_data_elsewhere(
    tool: conda.Package, tmp_path: Path, name: str
) -> None:
    destination = tmp_path / name
    done = relocated_tool(tool, tmp_path / "source", destination)
    assert done.stdout == f"found by the program\n{destination}/lib:{destination}/share:/usr/lib\n", done.stderr


@pytest.mark.processes
def test_case_49_a_program_has_room_for_the_placeholder_and_no_more(tool: conda.Package, tmp_path: Path) -> None:
    last = tmp_path / "a" / ("x" * (255 - len(bytes(tmp_path / "a" / "")) - 1))
    assert len(bytes(last)) == 255
    assert relocated_tool(tool, tmp_path / "fits", last).returncode == 0
    with pytest.raises(PrefixTooLong, match="too long by 1 bytes in bin/labtool"):
        relocated_tool(tool, tmp_path / "source", last.with_name(last.name[:-1]) / "y")


# Base environments


BASE: dict[bytes, bytes] = {b"conda-meta/conda-24.1.2-py311_0.json": b"", b"pkgs/x": b"", b"envs/a/bin/x": b""}


@pytest.mark.parametrize(
    ("files", "folders"),
    [
        (BASE, (b"pkgs", b"envs")),
        ({b"condabin/conda": b"", b"conda-meta/history": b"", b"pkgs/x": b""}, (b"pkgs",)),
        ({b"condabin/conda": b"", b"conda-meta/history": b"", b"bin/x": b""}, ()),
        ({b"conda-meta/conda-build-24.1.json": b"", b"conda-meta/conda-env-2.6.json": b"", b"pkgs/x": b""}, ()),
        ({b"conda-meta/history": b"", b"pkgs/x": b"", b"envs/y": b""}, ()),
        ({}, ()),
    ],
)
def test_case_51_only_a_base_environment_has_folders_that_are_not_its_own(
    files: dict[bytes, bytes], folders: tuple[bytes, ...]
) -> None:
    assert nested_directories(Tree(files).names) == folders


# conda-pack


UNPACK = """#!/usr/bin/env python
# Import progress bar to display unpack progress
from conda_unpack_progress import progressbar

SHEBANG_REGEX = (br'^(#!' br'(?:[ ]*)')

_prefix_records = [
%s
]

if __name__ == '__main__':
    import os
"""


def unpack(*lines: object) -> bytes:
    return (UNPACK % ",\n".join(map(repr, lines))).encode()


def test_case_19_the_script_of_conda_pack_tells_what_its_files_hold() -> None:
    script = unpack(("bin/x", "/p/e'nv", "text"), ("lib/x.so", PLACEHOLDER, "binary"), ("n\udcff", "/p/env", "text"))
    text = {b"bin/x": b"/p/e'nv", b"n\xff": b"/p/env"}
    assert read_pack_records(script) == PackRecords(text, {b"lib/x.so": PLACEHOLDER.encode()})


@pytest.mark.parametrize(
    "script",
    [
        b"", b"#!/bin/sh\n", b"\xff\0", UNPACK.encode() % b"(", UNPACK.encode() % b"open('x')",
        UNPACK.encode() % b"\xff", b"_prefix_records = [\n" + b"[" * 5000 + b"\n]\n",
        unpack(1, "xyz", ("a", "b"), ("a", "b", "unknown"), ("a", 1, "text"), ("a", "", "text"), ("a", "b", "text", 4)),
    ],
)  # fmt: skip
def test_any_other_script_tells_nothing(script: bytes) -> None:
    assert read_pack_records(script) == PackRecords()


@given(st.binary(max_size=80))
def test_whatever_a_script_says_is_borne(tail: bytes) -> None:
    assert isinstance(read_pack_records(b"_prefix_records = [\n" + tail + b"\n]\n"), PackRecords)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["paths_data", "paths", "_path", "file_mode", "prefix_placeholder"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_case_54_whatever_a_record_says_is_borne(data: object) -> None:
    assert isinstance(
        records(json.dumps(data).encode(), json.dumps({"paths_data": {"paths": data}}).encode()), PrefixRecords
    )
