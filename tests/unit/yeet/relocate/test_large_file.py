"""Large files: the same becomes of them as of small ones, with their holes, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ezpz.yeet.relocate import large_file
from ezpz.yeet.relocate.formats import prefix_scanner
from ezpz.yeet.relocate.formats.prefix import PrefixMap
from ezpz.yeet.relocate.formats.prefix_scanner import PrefixScanner, find_split
from ezpz.yeet.relocate.large_file import MAX_WHOLE_FILE, READ_SIZE, LargeFileRewriter, write_at
from ezpz.yeet.relocate.recorder import RewriteResult
from ezpz.yeet.relocate.relocation import Relocation
from tests.unit.yeet.programs import dynamic, library, made_up, needs_gcc, run_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD, ALIAS, NEW = b"/p/venv", b"/p/my venv", b"/tmp/env"
MOVES = PrefixMap({OLD: NEW, ALIAS: NEW})
HOOKS = PrefixMap({OLD: NEW, ALIAS: NEW, b"/home/code": NEW + b"/.editable/code"})
RELOCATION = Relocation(NEW, text=MOVES, hooks=HOOKS, links=MOVES, root=OLD)
OUT_OF_A_PACK = PrefixMap({b"/packed": NEW, OLD: NEW})
PACKED = Relocation(NEW, text=OUT_OF_A_PACK, hooks=OUT_OF_A_PACK, packed=b"/packed")


def relocate(path: bytes, data: bytes, relocation: Relocation = RELOCATION) -> tuple[bytes, RewriteResult]:
    """What becomes of a file that is relocated in pieces."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file, tempfile.TemporaryFile(dir="/dev/shm") as sink:
        write_at(file.fileno(), data, 0)
        one = LargeFileRewriter(file.fileno(), os.fstat(file.fileno()), path, relocation)
        outcome = one.rewrite(sink.fileno())
        said = one.rewrite(None)
        assert (said.changed, said.replaced) == (outcome.changed, outcome.replaced)
        assert outcome.changed or said.case == outcome.case
        sink.seek(0)
        return sink.read(), outcome


def expected(path: bytes, data: bytes, relocation: Relocation = RELOCATION) -> tuple[bytes, RewriteResult]:
    """The same for one that is held in memory."""
    change = relocation.relocate_content(path, data)
    if change is None:
        return data, RewriteResult(changed=False)
    return change.data, RewriteResult(change.data != data, change.replaced, change.case)


WORDS = st.sampled_from(
    [OLD, ALIAS, b"/p/my\\ venv", b"/p/my%20venv", b"/home/code", b"-python", b"/x", b"x", b"x" * 40, b"/", b":", b" ",
     b"\n", b"\r\n", b"#", b"file://", b"(", b"-I", b'"', b"\\", b"\xff", b"%", b"/bin/python", b"../a\n"]
)  # fmt: skip
HEADS = st.sampled_from(
    [b"", b"#!/p/venv/bin/python\n", b"#!/p/my venv/bin/python\n", b"#!/bin/sh\n", b"#!/usr/bin/env python3\n",
     b"#!/bin/sh\n'''exec' '/p/my venv/bin/python' \"$0\" \"$@\"\n' '''\n", made_up(runpath=b"/p/venv/lib:/usr/lib"),
     made_up(rpath=b"/p/venv"), made_up(runpath=b"/usr/lib", needed=(b"/p/venv/lib/x.so",))]
)  # fmt: skip
TEXT = st.lists(WORDS, max_size=120).map(b"".join)
ANY = st.lists(WORDS | st.sampled_from([b"\0", bytes(40), b"PK\5\6"]), max_size=120).map(b"".join)
HOOK = b"__editable___x_finder.py"
PATHS = st.sampled_from([b"bin/x", b"x.so", b"x.sh", b"lib/a.pth", b"lib/a.egg-link", HOOK, b".python/lib/x"])


@pytest.fixture(scope="class")
def small_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_file, "READ_SIZE", 250)  # in which a header ends
        patch.setattr(large_file, "HEAD_SIZE", 2000)
        patch.setattr(prefix_scanner, "MAX_PATH", 90)
        yield


@pytest.mark.usefixtures("small_pieces")
class TestSame:
    """In pieces of a few lines, wherever they end."""

    @given(st.sampled_from([RELOCATION, PACKED]), PATHS, HEADS, ANY | TEXT)
    def test_as_in_memory(self, relocation: Relocation, path: bytes, head: bytes, data: bytes) -> None:
        whole = head + data + b"#" * 250  # larger than a piece
        assume(path != HOOK or b"\0" not in whole)  # a module of python
        assert relocate(path, whole, relocation) == expected(path, whole, relocation)

    @given(TEXT, TEXT)
    def test_parts_hold_what_the_whole_holds(self, one: bytes, two: bytes) -> None:
        text = one + two
        end = find_split(text, MOVES)
        assert 0 <= end <= len(text)
        assert MOVES.substitute(text[:end])[0] + MOVES.substitute(text[end:])[0] == MOVES.substitute(text)[0]

    @given(ANY, st.integers(1, 70))
    def test_what_is_in_pieces_is_in_the_whole(self, data: bytes, size: int) -> None:
        looked = PrefixScanner(MOVES)
        for offset in range(0, len(data), size):
            looked.feed(offset, data[offset : offset + size])
        looked.finish(len(data))
        assert looked.has_prefix == MOVES.may_occur_in(data)
        assert looked.has_whole_path == (next(MOVES.find(data), None) is not None)
        assert looked.is_text == (b"\0" not in data)

    @pytest.mark.parametrize(
        ("text", "named"), [(b"x/p/venv ", False), (b" /p/venv-python ", False), (b" /p/venv ", True)]
    )
    def test_wherever_a_piece_ends(self, text: bytes, *, named: bool) -> None:
        for before in range(220):
            data = b" " + b"x" * before + text + b"z" * 400
            looked = PrefixScanner(MOVES)
            for offset in range(0, len(data), 100):
                looked.feed(offset, data[offset : offset + 100])
            looked.finish(len(data))
            assert (looked.has_prefix, looked.has_whole_path) == (True, named)

    @pytest.mark.parametrize("text", [b" /p/venv ", b"(/p/my venv/x", b" file:///p/my%20venv ", b"x/p/venv "])
    def test_one_long_line_is_not_parted_within_a_path(self, text: bytes) -> None:
        for after in range(120, 200):
            line = b"x" * 100 + text + b"z" * after
            end = find_split(line, MOVES)
            assert 0 < end < len(line)
            assert MOVES.substitute(line[:end])[0] + MOVES.substitute(line[end:])[0] == MOVES.substitute(line)[0]

    def test_only_the_first_line_is_a_header(self) -> None:
        spaced = Relocation(b"/tmp/my env", text=PrefixMap({OLD: b"/tmp/my env"}))
        data = b"#!/p/venv/bin/python\n" * 100
        assert relocate(b"bin/x", data, spaced) == expected(b"bin/x", data, spaced)


class TestSearch:
    """What a hole is."""

    def test_a_path_does_not_go_on_behind_one(self) -> None:
        looked = PrefixScanner(MOVES)
        looked.feed(0, b"/p/ve")
        looked.feed(4096, b"nv")
        looked.finish(4098)
        assert (looked.has_prefix, looked.is_text) == (False, False)
        looked = PrefixScanner(MOVES)
        looked.feed(4096, b"/p/venv")
        looked.finish(8192)
        assert (looked.has_prefix, looked.has_whole_path, looked.is_text) == (True, True, False)

    def test_one_at_the_end_makes_it_no_text(self) -> None:
        looked = PrefixScanner(MOVES)
        looked.feed(0, b"text")
        looked.finish(4096)
        assert not looked.is_text


class TestKinds:
    """Each kind of file, with pieces as they are."""

    def test_one_long_line(self) -> None:
        data = (b'{"path":"/p/venv/x","blob":"' + b"QUJD" * 5000 + b'"},') * 200
        assert relocate(b"x.json", data) == (data.replace(OLD, NEW), RewriteResult(changed=True, replaced=200))

    def test_a_pth_of_weights_is_no_list_of_folders(self) -> None:
        data = b"PK\3\4\0" + os.urandom(2 * MAX_WHOLE_FILE)
        assert relocate(b"lib/model.pth", data) == (data, RewriteResult(changed=False))

    def test_case_25_a_zip_archive_with_a_longer_header_moves(self) -> None:
        data = b"#!/p/venv/bin/python\nPK\3\4\0" + os.urandom(3 * READ_SIZE) + b"PK\5\6" + bytes(18)
        longer = Relocation(NEW + b"/longer", text=PrefixMap({OLD: NEW + b"/longer"}))
        new, outcome = relocate(b"bin/app.pyz", data, longer)
        assert new == b"#!/tmp/env/longer/bin/python\n" + data[21:]
        assert outcome == RewriteResult(changed=True, replaced=1)

    def test_case_25_nor_does_one_stay_whose_header_gets_shorter(self) -> None:
        data = b"#!/bin/sh\n'''exec' '/p/a rather long venv/bin/python' \"$0\" \"$@\"\n' '''\n\0" + os.urandom(
            3 * READ_SIZE
        )
        data += b"PK\5\6" + bytes(18)
        shorter = Relocation(b"/tmp/e v", text=PrefixMap({b"/p/a rather long venv": b"/tmp/e v"}))
        new, outcome = relocate(b"bin/app.pyz", data, shorter)
        assert (new, outcome) == expected(b"bin/app.pyz", data, shorter)
        assert len(new) < len(data)

    @pytest.mark.processes
    @needs_gcc
    @pytest.mark.parametrize("also", [b"", b"\0/p/venv/share\0"], ids=["alone", "and elsewhere"])
    def test_case_46_run_paths_are_edited_in_place(self, tmp_path: Path, also: bytes) -> None:
        made = library(tmp_path / "x.so", "x", *run_path("/p/venv/lib/x.libs:/usr/lib")).read_bytes()
        data = made + bytes(2 * MAX_WHOLE_FILE) + also
        new, outcome = relocate(b"lib/a/x.so", data)
        assert (new, outcome) == expected(b"lib/a/x.so", data)
        assert outcome == RewriteResult(changed=True, replaced=1, case="baked-prefix" if also else "")
        found = dynamic(new)
        assert found is not None
        assert found.runpath == (b"$ORIGIN/../x.libs", b"/usr/lib")


CODE = """
import os, resource, sys
from pathlib import Path
from ezpz.agent.common.cancel import CancelToken
from ezpz.yeet.strategies.base import STRATEGIES, CopyJob
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.formats.prefix import PrefixMap
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.source.scanner import scan_directory
from ezpz.yeet.transfer.copy_sinks import StagingSink
source, target = map(os.fsencode, sys.argv[2:4])
moves = PrefixMap({source: b"/tmp/on-the-node"})
recorder = RelocationRecorder(Relocation(b"/tmp/on-the-node", text=moves, root=source))
os.mkdir(target)
strategy = STRATEGIES.load(sys.argv[1])()
sinks = (StagingSink(target),)
job = CopyJob(source, scan_directory(source), target, recorder, CancelToken(), lambda _: None, sinks=sinks)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
strategy.fill(job)
print(recorder.notices.counts, recorder.files, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
GIGABYTES = 3


@pytest.mark.processes
@pytest.mark.parametrize("strategy", ["direct", "cp"])
@pytest.mark.parametrize("kind", ["database", "elf", "zip"])
def test_case_43_a_huge_sparse_file_takes_little_memory_and_keeps_its_holes(
    tmp_path: Path, strategy: str, kind: str
) -> None:
    old = os.fsencode(tmp_path / "S")
    (tmp_path / "S" / "data").mkdir(parents=True)
    heads = {
        "database": b"SQLite format 3\0",
        "elf": made_up(runpath=old + b"/lib:/usr/lib"),
        "zip": b"#!" + old + b"/bin/python\nPK\3\4\0",
    }
    with open(tmp_path / "S" / "data" / "run.db", "wb") as file:
        file.write(heads[kind])
        file.seek(2 << 30)
        file.write(old + b"/lib")
        file.truncate((GIGABYTES << 30) - 22)
        file.seek(0, os.SEEK_END)
        file.write(b"PK\5\6" + bytes(18))
    if (tmp_path / "S" / "data" / "run.db").stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this filesystem keeps no holes")
    argv = [sys.executable, "-c", CODE, strategy, str(tmp_path / "S"), str(tmp_path / "D")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    said, _, rest = done.stdout.partition("} ")
    changed, megabytes = map(int, rest.split())
    assert said + "}" == ("{}" if kind == "zip" else "{'baked-prefix': 1}")
    assert changed == (kind != "database")
    assert megabytes < 40
    status = (tmp_path / "D" / "data" / "run.db").stat()
    assert status.st_blocks * 512 < 1 << 20
    if kind == "database":
        assert status.st_size == GIGABYTES << 30
        with open(tmp_path / "D" / "data" / "run.db", "rb") as copy:
            assert copy.read(15) == b"SQLite format 3"
            copy.seek(2 << 30)
            assert copy.read(len(old) + 4) == old + b"/lib"
