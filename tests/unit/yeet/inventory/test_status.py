"""What is made of what the nodes tell: states, who is the newest, who is alike; and what has become of a source."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common.messages.queries import InventoryAnswer
from ezpz.agent.common.messages.receipt import Receipt
from ezpz.cluster.allocation import Node
from ezpz.cluster.hostnames import expand
from ezpz.errors import EzpzError, NodeLost
from ezpz.yeet.cli.show_status import status_rows
from ezpz.yeet.cli.status_rows import INDENT, wrap_line
from ezpz.yeet.cli.watch_display import describe_progress
from ezpz.yeet.inventory.progress import pause_after, run_progress
from ezpz.yeet.inventory.source_changes import SourceChange, SourceState, check_source, run_start_time
from ezpz.yeet.inventory.status import group_by_destination, make_report, mark_stale, missing_places
from ezpz.yeet.inventory.status_report import CopyState, StatusReport

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000
DST = "/tmp/env"
RUN = "20261120-164754-252269f7"


def node(number: int) -> Node:
    return Node(f"n{number}", address=f"n{number}", given=f"n{number}", is_local=False)


def found(state: str = "whole", version: str = "a" * 64, created: int = NOW - 60, **more: Any) -> dict[str, Any]:
    receipt = {
        "version": version, "files": 2, "bytes": 10, "created": created, "source": "/lus/env", "run": RUN,
        "kind": "data", "destination": DST,
    }  # fmt: skip
    return {
        "place": DST, "state": state, "why": "", "receipt": receipt if state in ("whole", "modified") else None,
        "differences": None, "contents": False, "lock": None, "staging": [], "disk": 0, "barred": None, **more,
    }  # fmt: skip


def answer(*copies: dict[str, Any], seconds: float = 0.0) -> InventoryAnswer:
    """Return the answer of a node that found these copies."""
    return InventoryAnswer.from_json({"found": copies, "seconds": seconds})


def staging(run: str = RUN, *, live: bool = True, size: int = 5, **more: Any) -> dict[str, Any]:
    path = f"/tmp/.env.ezpz-{run}"
    told = {"path": path, "run": run, "files": 1, "bytes": size, "disk": 4096, "age": 7, "live": live}
    return {**told, "spent": False, "rescue": False, "barred": None, **more}


def lock(run: str = RUN) -> dict[str, Any]:
    return {"run": run, "user": "me", "host": "n1", "pid": 7, "since": NOW}


def report(*answers: dict[str, Any] | EzpzError | None, source: SourceState | None = None) -> StatusReport:
    """The status of nodes of which each has this one thing, nothing, or no answer."""
    told: dict[Node, InventoryAnswer | EzpzError] = {
        node(number): each if isinstance(each, EzpzError) else answer(*([each] if each else []))
        for number, each in enumerate(answers)
    }
    looked = source or SourceState(SourceChange.UNCHANGED)
    destinations = group_by_destination(told, DST)
    return make_report(tuple(mark_stale(replace(each, source=looked)) for each in destinations), told)


def states(*answers: Any, source: SourceState | None = None) -> list[str]:
    return [each.state.value for each in report(*answers, source=source).destinations[0].statuses]


class TestStates:
    def test_each(self) -> None:
        answers = (found(), None, found("foreign"), found("partial", staging=[staging()]), found("modified"))
        assert states(*answers, NodeLost("n5: gone")) == [
            "current", "absent", "foreign", "partial", "modified", "unreachable",
        ]  # fmt: skip

    def test_the_newest_wins_however_many_have_an_older_one(self) -> None:
        old, new = found(version="b" * 64, created=NOW - 100), found(created=NOW - 50)
        assert states(old, old, new, old) == ["stale", "stale", "current", "stale"]

    def test_a_modified_one_may_be_the_newest(self) -> None:
        assert states(found("modified", created=NOW), found(version="b" * 64)) == ["modified", "stale"]

    def test_nobody_is_current_once_the_source_has_changed(self) -> None:
        changed = report(found(), found(), None, source=SourceState(SourceChange.CHANGED, b"lib/x\x1b.py"))
        assert [each.state.value for each in changed.destinations[0].statuses] == ["stale", "stale", "absent"]
        assert changed.destinations[0].statuses[0].why == r"its source has changed since: lib/x\x1b.py"

    @pytest.mark.parametrize("change", [SourceChange.UNCHANGED, SourceChange.GONE, SourceChange.UNKNOWN])
    def test_a_source_that_cannot_be_seen_changes_nothing(self, change: SourceChange) -> None:
        assert states(found(), source=SourceState(change)) == ["current"]

    @pytest.mark.parametrize(
        ("answers", "code"),
        [
            ((found(), found()), 0),
            ((found(), None), 1),
            ((found(), NodeLost("n1: gone")), 1),
            ((found("modified"),), 1),
            ((found("partial"),), 1),
            ((found("foreign"),), 1),
            ((found(), found(version="b" * 64)), 1),
        ],
    )
    def test_the_exit_code_is_0_only_if_all_are_current(self, answers: tuple[Any, ...], code: int) -> None:
        assert report(*answers).exit_code == code

    def test_nothing_anywhere_is_not_current(self) -> None:
        told: dict[Node, InventoryAnswer | EzpzError] = {node(0): answer(), node(1): NodeLost("n1: gone")}
        assert group_by_destination(told, "") == ()
        assert make_report((), told).exit_code == 1

    def test_nodes_are_asked_again_for_what_only_others_told_of(self) -> None:
        told: dict[Node, InventoryAnswer | EzpzError] = {
            node(0): answer(found(), {**found(), "place": "/tmp/other"}),
            node(1): answer(found()),
            node(2): NodeLost("n2: gone"),
            node(3): answer(),
        }
        assert missing_places(told) == {node(1): ["/tmp/other"], node(3): [DST, "/tmp/other"]}


class TestLines:
    def test_nodes_that_are_alike_share_one(self) -> None:
        lines = status_rows(report(found(), found(), None, found()).destinations[0], NOW)
        assert [line.text.split()[:2] for line in lines] == [["3", "n[0-1,3]"], ["1", "n2"]]

    def test_it_tells_state_version_size_files_age_when_and_run(self) -> None:
        [line] = status_rows(report(found()).destinations[0], NOW)
        when = time.strftime("%d %b %H:%M:%S", time.localtime(NOW - 60))
        assert line.text == f"    1  n0  current aaaaaaaaaaaa, 10 B, 2 files, 1 min old ({when}), run {RUN}"

    def test_how_much_of_a_partial_one_is_there(self) -> None:
        going = [found("partial", staging=[staging(size=size)], lock=lock()) for size in (1000, 3_000_000)]
        died = found("partial", staging=[staging(live=False)])
        texts = [line.text for line in status_rows(report(*going, died).destinations[0], NOW)]
        assert texts == [
            f"    2  n[0-1]  partial: run {RUN} of me is under way, 1.0 kB to 3.0 MB in 1 file so far",
            "    1  n2  partial: left by a run that died, 5 B in 1 file so far, last changed 7 s ago",
        ]

    def test_what_differs_is_listed_up_to_a_limit(self) -> None:
        paths = [f"file\n{number:03}" for number in range(100)]
        differences = {
            "changed": 2000, "changed_paths": paths, "missing": 0, "missing_paths": [], "extra": 0, "extra_paths": [],
        }  # fmt: skip
        destination = report(found("modified", differences=differences)).destinations[0]
        assert "2,000 changed" in status_rows(destination, NOW)[0].text
        [line] = status_rows(destination, NOW, verify=True)
        assert line.below[0] == r"changed  file\n000"
        assert line.below[-1] == "... and 1,980 more; --json lists 100 of them"
        assert len(line.below) == 21

    def test_what_a_node_tells_cannot_fake_a_line(self) -> None:
        evil = "x\n    9  n[1-9]  current\x1b[31m"
        told = found("whole", version=evil)
        told["receipt"]["run"] = evil
        text = status_rows(report(told, found("foreign", why="fine")).destinations[0], NOW)[0].text
        assert text.isprintable()

    @given(
        st.lists(st.sampled_from(("whole", "other", "absent", "foreign", "modified", "partial", "lost")), min_size=1)
    )
    def test_every_node_is_in_exactly_one_line(self, kinds: list[str]) -> None:
        what: dict[str, Any] = {
            "whole": found(), "other": found(version="b" * 64, created=NOW - 90), "absent": None,
            "foreign": found("foreign", why="a link"), "modified": found("modified", why="size"),
            "partial": found("partial", staging=[staging()]), "lost": NodeLost("x: gone"),
        }  # fmt: skip
        lines = status_rows(report(*(what[kind] for kind in kinds)).destinations[0], NOW)
        told = [name for line in lines for name in expand(line.text.split()[1])]
        assert sorted(told) == sorted(f"n{number}" for number in range(len(kinds)))
        assert len(lines) == len(set(kinds))

    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300), st.integers(0, 130))
    def test_a_line_is_broken_where_it_fits_and_loses_nothing(self, text: str, width: int) -> None:
        pieces = tuple(wrap_line(text, width))
        assert "".join("".join(pieces).split()) == "".join(text.split())
        if len(pieces) > 1:
            assert all(piece.startswith(INDENT) for piece in pieces[1:])


class TestSince:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        root = tmp_path / "source"
        (root / "lib").mkdir(parents=True)
        (root / "lib" / "a.py").write_text("")
        for path in (root / "lib" / "a.py", root / "lib", root):
            os.utime(path, (NOW - 5000, NOW - 5000))
        return root

    def receipt(self, source: Path, start: float) -> Receipt:
        run = time.strftime("%Y%m%d-%H%M%S-252269f7", time.localtime(start))
        return Receipt(source=str(source), created=int(start) + 3, run=run)

    def look(self, source: Path, *, timeout: float | None = 60.0) -> SourceState:
        return check_source(self.receipt(source, time.time() - 1000), "/tmp/dst", lambda: None, timeout=timeout)

    def old(self, *paths: Path) -> None:
        for path in paths:
            os.utime(path, (time.time() - 5000, time.time() - 5000))

    def test_unchanged(self, source: Path) -> None:
        self.old(source / "lib" / "a.py", source / "lib", source)
        assert self.look(source) == SourceState(SourceChange.UNCHANGED)

    def test_a_file_or_a_folder_that_changed(self, source: Path) -> None:
        self.old(source / "lib" / "a.py", source / "lib", source)
        (source / "lib" / "a.py").write_text("more")
        assert self.look(source) == SourceState(SourceChange.CHANGED, b"lib/a.py")
        self.old(source / "lib" / "a.py")
        (source / "new").symlink_to("lib")
        assert self.look(source).change is SourceChange.CHANGED
        (source / "new").unlink()
        assert self.look(source) == SourceState(SourceChange.CHANGED, b"")
        self.old(source)
        (source / "lib" / "a.py").unlink()
        assert self.look(source) == SourceState(SourceChange.CHANGED, b"lib")

    def test_a_folder_that_goes_while_one_looks_is_a_change(self, source: Path) -> None:
        (source / "other").mkdir()
        self.old(source / "lib" / "a.py", source / "lib", source / "other", source)

        def going_on() -> None:
            for name in ("lib", "other"):
                shutil.rmtree(source / name, ignore_errors=True)

        found = check_source(self.receipt(source, time.time() - 1000), "/tmp/dst", going_on, timeout=60.0)
        assert found == SourceState(SourceChange.CHANGED)

    def test_bytecode_does_not_count(self, source: Path) -> None:
        cache = source / "lib" / "__pycache__"
        cache.mkdir()
        (cache / "a.pyc").write_text("")
        self.old(source / "lib" / "a.py", source)
        assert self.look(source) == SourceState(SourceChange.UNCHANGED)
        self.old(cache / "a.pyc")  # the folder has changed for another reason
        assert self.look(source) == SourceState(SourceChange.CHANGED, b"lib")

    def test_times_in_the_future_do_not_count(self, source: Path) -> None:
        self.old(source / "lib" / "a.py", source / "lib", source)
        os.utime(source / "lib" / "a.py", (4 * 10**9, 4 * 10**9))
        assert self.look(source).change is SourceChange.UNCHANGED

    def test_an_archive(self, tmp_path: Path) -> None:
        path = tmp_path / "x.tar.gz"
        path.write_text("")
        assert self.look(path) == SourceState(SourceChange.CHANGED)
        self.old(path)
        assert self.look(path) == SourceState(SourceChange.UNCHANGED)

    def test_gone_unreadable_too_large_or_the_destination_itself(self, source: Path) -> None:
        self.old(source / "lib" / "a.py", source / "lib", source)
        assert self.look(source / "none") == SourceState(SourceChange.GONE)
        assert self.look(source, timeout=-1.0) == SourceState(SourceChange.UNKNOWN)
        receipt = self.receipt(source, time.time())
        assert check_source(receipt, str(source), lambda: None).change is SourceChange.UNKNOWN
        for unknown in (None, Receipt(), receipt.updated(run="nonsense")):
            assert check_source(unknown, "/tmp/dst", lambda: None).change is SourceChange.UNKNOWN
        odd = receipt.updated(source="/a\0b")
        assert check_source(odd, "/tmp/dst", lambda: None).change is not SourceChange.CHANGED

    @given(st.integers(-14 * 4, 14 * 4), st.integers(0, 899))
    def test_a_run_is_dated_whatever_the_time_zone_of_its_host(self, quarters: int, took: int) -> None:
        named = time.localtime(NOW + quarters * 900)
        run = time.strftime("%Y%m%d-%H%M%S-252269f7", named)
        if time.mktime(named) == NOW + quarters * 900:  # not in an hour that is there twice
            assert run_start_time(Receipt(run=run, created=NOW + took)) == NOW


class TestProgress:
    def test_of_a_run_in_the_middle(self) -> None:
        answers: tuple[Any, ...] = (
            found(lock=lock()),
            found("partial", staging=[staging(size=5)], lock=lock()),
            found("partial", staging=[staging(size=0, files=0)], lock=lock()),
            found("modified", version="b" * 64, lock=lock("20261121-164754-252269f7")),
            NodeLost("n4: gone"),
        )
        answers[3]["receipt"]["run"] = "another"
        progress = run_progress(report(*answers).destinations[0])
        assert progress is not None
        assert (progress.published, progress.writing, progress.preparing, progress.waiting, progress.lost) == (
            1, 1, 1, 1, 1,
        )  # fmt: skip
        assert (progress.written_bytes, progress.total_bytes) == (15, 40)
        assert describe_progress(progress) == (
            "1 of 5 nodes have it, 1 writing, 1 preparing, 1 waiting, 1 unreachable",
            "15 B of 40 B on their disks",
        )

    def test_looking_is_rarer_where_it_takes_long(self) -> None:
        def after(*seconds: float) -> float:
            told: dict[Node, InventoryAnswer | EzpzError] = {
                node(number): answer(seconds=each) for number, each in enumerate(seconds)
            }
            return pause_after({**told, node(99): NodeLost("n99: gone")})

        assert (after(), after(0.01, 0.02), after(0.3, 0.01), after(5.0)) == (1.0, 1.0, 3.0, 10.0)

    def test_nobody_holds_the_lock(self) -> None:
        assert run_progress(report(found(), None).destinations[0]) is None

    def test_the_total_is_not_known_before_somebody_has_it(self) -> None:
        progress = run_progress(report(found("partial", staging=[staging()], lock=lock())).destinations[0])
        assert progress is not None
        assert describe_progress(progress)[1] == "5 B on their disks"


def test_every_state_has_its_word() -> None:
    assert {state.value for state in CopyState} == {
        "current", "stale", "absent", "partial", "modified", "unreachable", "foreign",
    }  # fmt: skip
