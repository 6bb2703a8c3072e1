"""A plan is decided before anything is done: destination, threshold, words, and the document that shows it."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz import __version__
from ezpz.errors import UsageError
from ezpz.yeet.model.plan import Request, threshold
from ezpz.yeet.model.source import Source
from ezpz.yeet.pipeline.make_plan import totals_of
from ezpz.yeet.source.scan import Scan
from tests.unit.yeet.plans import ARCHIVE, DATA, TOTALS, VENV, assert_valid, plan


class TestThreshold:
    """N, F of the nodes rounded up, or all."""

    @pytest.mark.parametrize(
        ("fraction", "nodes", "needed"),
        [
            (0.1, 30, 3), (0.3, 10, 3), (0.7, 10, 7), (0.57, 100, 57), (0.28, 100, 28), (0.55, 20, 11), (0.9, 16, 15),
            (1.0, 7, 7), (1.0, 1, 1), (0.5, 1, 1), (0.5, 3, 2), (0.001, 4096, 5), (0.999, 1000, 999), (1 / 3, 3, 1),
            (2 / 3, 3, 2), (0.0001, 1, 1),
        ],
    )  # fmt: skip
    def test_a_fraction_is_rounded_up_and_not_by_a_float_too_much(
        self, fraction: float, nodes: int, needed: int
    ) -> None:
        assert threshold(Request(min_success_fraction=fraction), nodes) == needed

    @given(st.integers(1, 1000), st.integers(1, 10_000))
    def test_thousandths_are_exact(self, thousandths: int, nodes: int) -> None:
        exact = math.ceil(Fraction(thousandths, 1000) * nodes)
        assert threshold(Request(min_success_fraction=thousandths / 1000), nodes) == exact

    @given(st.floats(0, 1, exclude_min=True), st.integers(1, 10_000))
    def test_it_is_at_least_one_and_at_most_all(self, fraction: float, nodes: int) -> None:
        needed = threshold(Request(min_success_fraction=fraction), nodes)
        assert needed is not None
        assert 1 <= needed <= nodes

    def test_a_number_is_itself(self) -> None:
        assert threshold(Request(min_success_nodes=3), 4) == 3
        assert threshold(Request(min_success_nodes=4), 4) == 4
        assert threshold(Request(), 4) is None

    def test_more_than_there_are_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="--min-success-nodes 5 is more than the 4 nodes"):
            threshold(Request(min_success_nodes=5), 4)


class TestDestination:
    """Absolute, by default below /tmp, by the source's name."""

    @pytest.mark.parametrize(
        ("dst", "there"),
        [(None, "/tmp/env"), ("/local/x", "/local/x"), ("/local/x/", "/local/x"), ("/", "/"), ("///", "/")],
    )
    def test_where_it_goes(self, dst: str | None, there: str) -> None:
        assert plan(Request(dst=dst)).destination == there

    @pytest.mark.parametrize("dst", ["relative", "./x", "~/x", "../x", "host:/x"])
    def test_a_relative_one_is_a_usage_error(self, dst: str) -> None:
        with pytest.raises(UsageError, match=f"--dst '{dst}'"):
            plan(Request(dst=dst))

    def test_an_empty_one_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="--dst ''"):
            plan(Request(dst=""))

    def test_in_place_is_the_source_itself_on_a_disk_of_this_host(self) -> None:
        assert plan(Request(dst="/local/data"), source=DATA).in_place
        assert plan(Request(dst="/local/data/"), source=DATA).in_place
        assert not plan(Request(dst="/local/data2"), source=DATA).in_place
        assert not plan(Request(dst="/shared/env"), source=VENV).in_place
        linked = Source("/link", "/local/data", "link", DATA.kind, node_local=True)
        assert plan(Request(dst="/local/data"), source=linked).in_place
        assert not plan(Request(dst="/link"), source=linked).in_place

    def test_the_others_are_the_nodes_that_are_not_this_host(self) -> None:
        assert [node.name for node in plan(count=3).remote_nodes] == ["n001", "n002"]
        assert [node.name for node in plan(count=2, local=False).remote_nodes] == ["n000", "n001"]


class TestWords:
    """What `--dry-run` prints is the object that would be executed."""

    def test_relocation_is_what_was_found_out(self) -> None:
        assert plan().relocation == plan().to_dict()["relocation"] == "words"

    def test_the_engine_and_why(self) -> None:
        assert dataclasses.astuple(plan().engine) == ("stream", "default")
        assert dataclasses.astuple(plan(Request(engine="other")).engine) == ("other", "asked for")

    @pytest.mark.parametrize("source", [VENV, DATA, ARCHIVE], ids=["venv", "data", "archive"])
    @pytest.mark.parametrize("local", [True, False])
    def test_the_document_obeys_its_schema(self, source: Source, *, local: bool) -> None:
        request = Request(min_success_fraction=0.5, exclude=("*.pyc",), timeout=0.0, retries=7)
        decided = plan(request, source=source, local=local)
        said = decided.to_dict()
        assert_valid({"schema": "ezpz/yeet-plan/1", "ezpz": __version__, "plan": said}, "yeet-plan")
        assert (said["threshold"], said["retries"], said["timeout"], said["exclude"]) == (2, 7, 0.0, ["*.pyc"])
        assert said["allocation"]["local"] == ("n000.domain" if local else None)
        assert said["allocation"]["nodes"][:2] == ["n000.domain", "n001.domain"]
        assert said["source"]["kind"] == (source.kind.value if source.kind else "archive")

    def test_what_becomes_of_the_environment_is_what_was_asked_for(self) -> None:
        said = plan().to_dict()
        assert (said["base"], said["editable"], said["compile"]) == ("auto", "snapshot", "auto")
        said = plan(Request(base="embed", editable="refuse", compile="never")).to_dict()
        assert_valid({"schema": "ezpz/yeet-plan/1", "ezpz": __version__, "plan": said}, "yeet-plan")
        assert (said["base"], said["editable"], said["compile"]) == ("embed", "refuse", "never")

    def test_a_plan_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            plan().destination = "/elsewhere"  # type: ignore[misc]


def test_totals() -> None:
    scanned = Scan(b"", files=10, directories=3, size=1000, allocated=40_960)
    assert dataclasses.replace(totals_of(VENV, scanned, 0), left_out=1) == TOTALS
    unpacked = totals_of(ARCHIVE, Scan(b""), 777)
    assert (unpacked.files, unpacked.directories, unpacked.bytes, unpacked.allocated) == (None, None, 777, 777)
