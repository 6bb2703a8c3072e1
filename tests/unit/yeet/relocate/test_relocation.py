"""What an entry of a tree becomes: pure, so that it can be asked about anything."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ezpz.errors import PrefixTooLong
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.relocate.formats.prefix import PrefixMap
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from tests.unit.yeet.programs import dynamic, library, needs_gcc, run_path

if TYPE_CHECKING:
    from pathlib import Path

OLD, ALIAS, BASE, NEW = b"/p/venv", b"/alias/venv", b"/p/venv-python", b"/tmp/env"
MOVES = PrefixMap({OLD: NEW, ALIAS: NEW, BASE: NEW + b"/.python"})
PYTHON = b".python/bin/python3.11"
RELOCATION = Relocation(NEW, text=MOVES, hooks=MOVES, links=MOVES, root=OLD, python=PYTHON)
KEEPING = Relocation(NEW, text=PrefixMap({OLD: NEW, ALIAS: NEW}), links=PrefixMap({OLD: NEW, ALIAS: NEW}), root=OLD)


def link(path: bytes, target: bytes, relocation: Relocation = RELOCATION) -> bytes:
    return relocation.relocate_link(path, target)


def become(path: bytes, data: bytes, relocation: Relocation = RELOCATION) -> bytes:
    """The content of a file afterwards."""
    change = relocation.relocate_content(path, data) if relocation.may_change_content(path) else None
    return data if change is None else change.data


class TestLinks:
    """What leads into the tree becomes relative; what leads out of it stays, or is spelled out when it was relative."""

    @pytest.mark.parametrize(
        ("path", "target", "after"),
        [
            (b"bin/x", b"/p/venv/bin/y", b"y"),
            (b"bin/x", b"/alias/venv/bin/y", b"y"),
            (b"lib64", b"/p/venv/lib", b"lib"),
            (b"a/b/up", b"/p/venv/lib/x", b"../../lib/x"),
            (b"a/b/top", b"/p/venv", b"../.."),
            (b"top", b"/p/venv/", b"."),
            (b"odd", b"/p/venv/lib/../bin//x", b"bin/x"),
            (b"bin/x", b"/p/venv-python/bin/x", b"../.python/bin/x"),
            (b"bin/x", b"/p/venv-2/bin/x", b"/p/venv-2/bin/x"),
            (b"bin/x", b"/p/venv/../other", b"/p/venv/../other"),
            (b"bin/x", b"y", b"y"),
            (b"bin/x", b"../lib/x", b"../lib/x"),
            (b"bin/x", b"../../venv-python/lib", b"../.python/lib"),
            (b"bin/x", b"../../venv/lib", b"../lib"),
            (b"bin/x", b"../../other/lib", b"/p/other/lib"),
            (b"bin/x", b"p/venv/x", b"p/venv/x"),
            (b"bin/x", b"/p/venv/\xff\n", b"../\xff\n"),
        ],
    )
    def test_case_35_targets(self, path: bytes, target: bytes, after: bytes) -> None:
        assert link(path, target) == after
        assert link(path, after) == after

    def test_case_36_out_of_an_archive_a_relative_one_stays(self) -> None:
        """Nobody knows what it led to."""
        nowhere = Relocation(NEW, text=MOVES, links=MOVES)
        assert link(b"bin/x", b"../../other/lib", nowhere) == b"../../other/lib"

    @given(
        st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4),
        st.lists(st.sampled_from([b"a", b"b"]), max_size=4),
    )
    def test_it_leads_to_the_same_place(self, path: list[bytes], inside: list[bytes]) -> None:
        after = link(b"/".join(path), b"/".join([OLD, *inside]))
        assert not after.startswith(b"/")
        assert os.path.normpath(os.path.join(NEW, *path[:-1], after)) == os.path.normpath(os.path.join(NEW, *inside))


class TestPython:
    """The names of the interpreter in `bin` lead to the embedded one."""

    def entry(self, path: bytes, target: bytes = b"", origin: bytes = b"") -> Entry:
        mode = stat.S_IFLNK | 0o777 if target else stat.S_IFREG | 0o755
        return Entry(path, mode, 5, 0 if target else 7, target, origin=origin)

    @pytest.mark.parametrize("name", [b"python", b"python3", b"python3.11"])
    def test_case_01_a_link_out_of_the_tree_becomes_one_into_it(self, name: bytes) -> None:
        after = RELOCATION.relocate_entry(self.entry(b"bin/" + name, BASE + b"/bin/python3.11"))
        assert after.target == b"../.python/bin/python3.11"

    def test_case_02_so_does_a_copy(self) -> None:
        after = RELOCATION.relocate_entry(self.entry(b"bin/python3"))
        assert (after.target, after.size, after.is_symlink, after.mtime_ns) == (b"../" + PYTHON, 0, True, 5)

    def test_a_link_to_its_neighbour_stays(self) -> None:
        assert RELOCATION.relocate_entry(self.entry(b"bin/python", b"python3")).target == b"python3"

    @pytest.mark.parametrize("path", [b"bin/python-config", b"bin/python3.11-config", b"bin/pythonx", b"lib/python3"])
    def test_others_are_not_meant(self, path: bytes) -> None:
        assert RELOCATION.relocate_entry(self.entry(path)) == self.entry(path)

    def test_nor_the_embedded_one_itself(self) -> None:
        one = self.entry(PYTHON, origin=BASE + b"/bin/python3.11")
        assert RELOCATION.relocate_entry(one) == one

    def test_a_base_that_is_kept_is_left(self) -> None:
        one = self.entry(b"bin/python", BASE + b"/bin/python3.11")
        assert KEEPING.relocate_entry(one) == one


class TestConfiguration:
    """`pyvenv.cfg` says where the embedded base will be."""

    def test_case_05_keys_and_then_paths(self) -> None:
        relocation = Relocation(NEW, text=MOVES, configuration={b"home": NEW + b"/.python/bin"})
        before = b"home = /elsewhere/bin\ncommand = /p/venv-python/bin/python -m venv /p/venv\n"
        after = b"home = /tmp/env/.python/bin\ncommand = /tmp/env/.python/bin/python -m venv /tmp/env\n"
        assert become(b"pyvenv.cfg", before, relocation) == after
        assert become(b"pyvenv.cfg", after, relocation) == after

    def test_only_that_of_the_top(self) -> None:
        relocation = Relocation(NEW, text=MOVES, configuration={b"home": b"/new"})
        assert become(b"lib/pyvenv.cfg", b"home = /elsewhere\n", relocation) == b"home = /elsewhere\n"


class TestContent:
    """Text changes wherever a whole old path is in it; binaries only where it is known what the bytes are for."""

    def test_case_15_the_base_and_the_environment_are_told_apart(self) -> None:
        assert become(b"x", b"/p/venv-python/bin /p/venv/bin /p/venv-other") == (
            b"/tmp/env/.python/bin /tmp/env/bin /p/venv-other"
        )

    def test_case_16_by_any_of_its_names(self) -> None:
        assert become(b"bin/activate", b"VIRTUAL_ENV=/alias/venv\n") == b"VIRTUAL_ENV=/tmp/env\n"

    def test_case_33_bytecode_is_never_looked_at(self) -> None:
        assert not RELOCATION.may_change_content(b"lib/__pycache__/x.cpython-311.pyc")

    def test_case_48_nor_are_the_records_of_conda(self) -> None:
        assert not RELOCATION.may_change_content(b"conda-meta/python-3.11-0.json")
        assert RELOCATION.may_change_content(b"conda-meta/history")

    def test_nothing_is_looked_at_when_nothing_moves(self) -> None:
        assert not Relocation(NEW).may_change_content(b"bin/x")
        assert not Relocation(NEW).is_needed
        assert not Relocation(NEW, text=PrefixMap({NEW: NEW})).is_needed

    def test_case_50_a_prefix_in_a_binary_is_noted_and_left(self) -> None:
        data = b"\0\1" + OLD + b"/share\0"
        change = RELOCATION.relocate_content(b"lib/x.bin", data)
        assert change is not None
        assert (change.data, change.replaced, change.case) == (data, 0, "baked-prefix")

    def test_case_50_not_in_the_base_which_is_told_where_it_is(self) -> None:
        change = RELOCATION.relocate_content(b".python/lib/x.bin", b"\0" + BASE + b"\0")
        assert change is None or change.case == ""

    def test_case_50_they_are_listed(self) -> None:
        recorder = RelocationRecorder(RELOCATION)
        for number in range(12):
            recorder.relocate_content(b"lib/%02d.bin" % number, b"\0" + OLD + b"\0")
        (warning,) = recorder.notices.warnings()
        assert (warning.case, warning.count, len(warning.paths)) == ("baked-prefix", 12, 10)
        assert (recorder.files, recorder.replaced) == (0, 0)

    def test_case_48_in_a_binary_of_conda_it_is_replaced(self) -> None:
        conda = Relocation(b"/d", text=PrefixMap({OLD: b"/d"}), binaries={b"bin/tool": 100})
        change = conda.relocate_content(b"bin/tool", b"\0/p/venv/lib:/p/venv/x\0\0")
        assert change is not None
        assert (change.data, change.replaced) == (b"\0/d/lib:/d/x" + b"\0" * 12, 2)

    def test_case_49_one_that_has_no_room_is_refused(self) -> None:
        conda = Relocation(NEW + b"/longer", text=PrefixMap({OLD: NEW + b"/longer"}), binaries={b"bin/tool": 100})
        with pytest.raises(PrefixTooLong, match="prefix too long by 8 bytes in bin/tool"):
            conda.relocate_content(b"bin/tool", b"\0/p/venv/lib\0x")

    @pytest.mark.processes
    @needs_gcc
    def test_case_46_a_run_path_becomes_relative(self, tmp_path: Path) -> None:
        data = library(tmp_path / "x.so", "x", *run_path("/p/venv/lib/x.libs:/usr/lib")).read_bytes()
        change = RELOCATION.relocate_content(b"lib/a/x.so", data)
        assert change is not None
        found = dynamic(change.data)
        assert found is not None
        assert found.runpath == (b"$ORIGIN/../x.libs", b"/usr/lib")
        assert (len(change.data), change.case) == (len(data), "")
        assert RELOCATION.relocate_content(b"lib/a/x.so", change.data) is None


class TestDigest:
    """Two relocations that make something else of anything differ."""

    def test_it_tells_them_apart(self) -> None:
        ones = (
            RELOCATION, KEEPING, Relocation(NEW), Relocation(NEW + b"2"), Relocation(NEW, links=MOVES),
            Relocation(NEW, text=MOVES), Relocation(NEW, text=MOVES, configuration={b"home": b"/x"}),
        )  # fmt: skip
        assert len({one.digest for one in ones}) == len(ones)
        assert Relocation(NEW, text=PrefixMap({OLD: NEW})).digest == Relocation(NEW, text=PrefixMap({OLD: NEW})).digest


WORDS = st.sampled_from(
    [OLD, ALIAS, BASE, NEW, b"/p/venv2", b"/p/ven", b"x", b"/", b":", b" ", b'"', b"'", b"\n", b"#!", b"-python",
     b"/bin", b"python", b"\xff", b"=", b"\\", b"file://", b"%20", b"\0"]
)  # fmt: skip
TEXT = st.lists(WORDS.filter(lambda word: word != b"\0"), max_size=12).map(b"".join)
ANY = st.lists(WORDS, max_size=12).map(b"".join)
PATHS = st.sampled_from(
    [b"bin/x", b"pyvenv.cfg", b"lib/x.py", b"lib/python3.11/site-packages/__editable___x_finder.py", b"a.sh", b"x.so"]
)
RELOCATIONS = st.sampled_from([RELOCATION, KEEPING, Relocation(NEW, text=MOVES, links=MOVES, hooks=MOVES)])


class TestProperties:
    """What is true of every file there could be."""

    @given(RELOCATIONS, PATHS, st.binary(max_size=200))
    def test_a_file_that_does_not_hold_the_prefix_never_changes(
        self, relocation: Relocation, path: bytes, data: bytes
    ) -> None:
        if not any(old in data for old in relocation.text.old):
            assert become(path, data, relocation) == data

    @given(RELOCATIONS, PATHS, ANY)
    def test_nor_one_that_holds_only_what_resembles_it(self, relocation: Relocation, path: bytes, data: bytes) -> None:
        if not any(old in data for old in relocation.text.old):
            assert become(path, data, relocation) == data

    @given(RELOCATIONS, st.sampled_from([b"bin/x", b"lib/x.so", b"lib/x.py"]), ANY, ANY)
    def test_a_binary_keeps_its_length(self, relocation: Relocation, path: bytes, data: bytes, more: bytes) -> None:
        binary = b"\1" + data + b"\0" + more
        assert len(become(path, binary, relocation)) == len(binary)

    @given(
        st.lists(st.sampled_from([OLD, b"/p/venv-2", b"/lib", b":", b"\0", b"\0\0", b"x"]), max_size=12).map(b"".join)
    )
    def test_case_48_so_does_one_of_conda_which_holds_no_old_prefix_after(self, data: bytes) -> None:
        conda = Relocation(b"/d", text=PrefixMap({OLD: b"/d"}), binaries={b"bin/tool": 50})
        after = become(b"bin/tool", b"\0" + data, conda)
        assert len(after) == len(data) + 1
        assert become(b"bin/tool", after, conda) == after

    @given(RELOCATIONS, PATHS, TEXT)
    @example(RELOCATION, b"bin/x", b"#!" + OLD + OLD + b":" + OLD)
    def test_a_text_that_was_relocated_stays_as_it_is(self, relocation: Relocation, path: bytes, data: bytes) -> None:
        once = become(path, data, relocation)
        assert become(path, once, relocation) == once

    @given(RELOCATIONS, PATHS, ANY)
    def test_and_so_does_anything_else(self, relocation: Relocation, path: bytes, data: bytes) -> None:
        once = become(path, data, relocation)
        assert become(path, once, relocation) == once

    @given(st.lists(st.sampled_from([b"a", b"b", b".."]), min_size=1, max_size=5), TEXT.filter(bool))
    def test_so_does_a_link(self, path: list[bytes], target: bytes) -> None:
        where = b"/".join([*(part for part in path if part != b".."), b"link"])
        for relocation in (RELOCATION, KEEPING):
            once = relocation.relocate_link(where, target)
            assert relocation.relocate_link(where, once) == once
