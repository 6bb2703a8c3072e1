"""What a clean chooses: by keep, by family, by lock; and what it comes to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.destination.removal import STALE
from ezpz.errors import NodeLost
from ezpz.yeet.cli.show_clean import removal_rows
from ezpz.yeet.inventory.clean import newest_versions, select_removals
from ezpz.yeet.inventory.clean_report import CleanReport
from ezpz.yeet.inventory.status import group_by_destination
from ezpz.yeet.model.results import Failure
from tests.unit.yeet.inventory.test_status import DST, NOW, RUN, answer, found, lock, node, staging


def at(place: str, version: str = "a", created: int = NOW, source: str = "/lus/env", **more: Any) -> dict[str, Any]:
    told = found(version=version, created=created, **more)
    told["receipt"]["source"] = source
    return {**told, "place": place}


def chosen(*answers: list[dict[str, Any]] | NodeLost, keep: int = 0, by_source: bool = True) -> CleanReport:
    told = {node(number): each if isinstance(each, NodeLost) else answer(*each) for number, each in enumerate(answers)}
    lost = {each: Failure.of(heard) if isinstance(heard, NodeLost) else None for each, heard in told.items()}
    selections = select_removals(group_by_destination(told, ""), keep, by_source=by_source)
    return CleanReport(selections, lost, is_named=not by_source)


def gone(report: CleanReport) -> list[tuple[str, str, str]]:
    """Node, place and version of what goes."""
    return [
        (removal.node.given, each.destination.path, removal.status.version)
        for each in report.selections
        for removal in each.removals
        if removal.version
    ]


class TestChoice:
    def test_all_goes_by_default(self) -> None:
        report = chosen([at("/tmp/a"), at("/tmp/b")], [at("/tmp/a")], [])
        assert gone(report) == [("n0", "/tmp/a", "a"), ("n1", "/tmp/a", "a"), ("n0", "/tmp/b", "a")]

    def test_the_newest_of_each_source_stay(self) -> None:
        report = chosen(
            [at("/tmp/old", "a", 10), at("/tmp/new", "b", 20), at("/tmp/other", "c", 5, source="/lus/other")], keep=1
        )
        assert gone(report) == [("n0", "/tmp/old", "a")]

    def test_what_something_is_mounted_in_stays_and_is_a_failure(self) -> None:
        why = {"code": "destination-refused", "message": "'/tmp/a/home' is mounted in '/tmp/a'", "hint": "umount it"}
        report = chosen([at("/tmp/a", barred=why)], [at("/tmp/a")])
        assert gone(report) == [("n1", "/tmp/a", "a")]
        [line] = [line for line in removal_rows(report.selections[0]) if "leave alone" in line.text]
        assert line.text == "    1  n0  leave alone: '/tmp/a/home' is mounted in '/tmp/a'"
        assert line.below == ("hint: umount it",)
        done = replace(report, confirmed=True)
        assert done.exit_code == 20
        failures = [each["failure"] for each in done.to_dict()["destinations"][0]["removals"]]
        assert [each and each["code"] for each in failures] == [None, "destination-refused"]
        old = {**staging(live=False, age=STALE), "barred": why}
        report = chosen([at("/tmp/b", staging=[old])], keep=1)
        assert not report.removals
        assert [[each.to_json() for each in kept.staging] for kept in report.selections[0].refused] == [[old]]

    def test_one_version_at_two_places_is_one(self) -> None:
        report = chosen([at("/tmp/x", "a", 10), at("/tmp/y", "a", 30), at("/tmp/z", "b", 20)], keep=1)
        assert gone(report) == [("n0", "/tmp/z", "b")]

    def test_at_a_destination_that_is_named_the_newest_of_it_stays(self) -> None:
        report = chosen([at(DST, "a", 10)], [at(DST, "b", 20, source="/lus/other")], keep=1, by_source=False)
        assert gone(report) == [("n0", DST, "a")]

    def test_what_a_run_holds_on_one_node_stays_on_all(self) -> None:
        report = chosen([at(DST, lock=lock())], [at(DST), at("/tmp/free")])
        assert gone(report) == [("n1", "/tmp/free", "a")]
        assert (report.exit_code, replace(report, confirmed=True).exit_code) == (2, 22)
        assert RUN in report.selections[1].busy or RUN in report.selections[0].busy

    @pytest.mark.parametrize(
        ("facts", "go"),
        [
            ({"live": True, "age": 2 * STALE}, 0),
            ({"live": False, "age": STALE - 1}, 0),
            ({"live": False, "age": STALE}, 1),
            ({"live": False, "age": 0, "spent": True}, 1),
        ],
    )
    def test_staging_goes_when_nobody_writes_it_and_it_is_old(self, facts: dict[str, Any], go: int) -> None:
        report = chosen([{**found("partial", staging=[staging(**facts)]), "place": DST}])
        assert len(report.removals) == go

    @pytest.mark.parametrize("keep", [0, 1])
    def test_the_version_that_a_dead_run_moved_aside_is_kept_with_keep(self, keep: int) -> None:
        left = staging(live=False, age=STALE, rescue=True)
        assert bool(chosen([{**found("partial", staging=[left]), "place": DST}], keep=keep).removals) == (not keep)

    def test_what_is_not_proven_to_be_ours_never_goes(self) -> None:
        report = chosen([{**found("foreign", why="a link"), "place": DST}], by_source=False)
        assert (report.removals, report.exit_code) == ((), 21)
        assert [line.text for line in removal_rows(report.selections[0])] == ["    1  n0  leave alone: a link"]

    versions = st.tuples(
        st.sampled_from(("/tmp/a", "/tmp/b", "/tmp/c")), st.sampled_from("abcde"), st.integers(0, 9),
        st.sampled_from(("/s/1", "/s/2")),
    )  # fmt: skip

    @given(st.lists(st.lists(versions, max_size=3, unique_by=lambda each: each[0]), min_size=1, max_size=5),
           st.integers(0, 4), st.sampled_from((True, False)))  # fmt: skip
    def test_keep(self, nodes: list[list[tuple[str, str, int, str]]], keep: int, by_source: Any) -> None:
        """As many versions of each family stay as shall, all of each; none that goes is newer than one that stays."""
        report = chosen(*([at(*each) for each in some] for some in nodes), keep=keep, by_source=by_source)
        everything = {
            (f"n{number}", place, version): (source if by_source else place, created)
            for number, some in enumerate(nodes)
            for place, version, created, source in some
        }
        going = set(gone(report))
        staying = set(everything) - going
        assert going <= set(everything)
        for family in {family for family, _ in everything.values()}:
            newest: dict[str, int] = {}
            for (_, _, version), (whose, created) in everything.items():
                if whose == family:
                    newest[version] = max(created, newest.get(version, 0))
            kept = {key[2] for key in staying if everything[key][0] == family}
            left = {key[2] for key in going if everything[key][0] == family}
            assert len(kept) == min(keep, len(newest))
            assert not kept & left
            assert all(newest[old] <= newest[new] for old in left for new in kept)

    def test_a_tie_is_decided_the_same_everywhere(self) -> None:
        told = {node(0): answer(at("/tmp/x", "b", 5), at("/tmp/y", "a", 5))}
        assert newest_versions(group_by_destination(told, ""), 1, by_source=True) == {("/lus/env", "a")}


class TestOutcome:
    def test_the_exit_code(self) -> None:
        report = chosen([at(DST)])
        assert report.exit_code == 2
        assert replace(report, dry_run=True).exit_code == 0
        assert replace(report, confirmed=True).exit_code == 0
        assert chosen([]).exit_code == 0
        assert chosen([], NodeLost("n1: gone")).exit_code == 36

    def test_what_it_frees_is_added_up(self) -> None:
        report = chosen([at(DST, disk=1000, staging=[staging(live=False, age=STALE)])], [at(DST, disk=10)])
        assert report.freeable == 5106
        assert [line.text for line in removal_rows(report.selections[0])] == [
            f"    1  n0  remove version a from /lus/env and what run {RUN} left, unchanged for 1 h, frees 5.1 kB",
            "    1  n1  remove version a from /lus/env, frees 10 B",
        ]
