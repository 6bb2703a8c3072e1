"""The verdict over a run, its exit code for every cause, and its one JSON document."""

from __future__ import annotations

import dataclasses
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz import errors
from ezpz.errors import EzpzError
from ezpz.yeet.model.plan import Request
from ezpz.yeet.model.report import RelocationSummary, RunReport, RunStatus, run_status
from ezpz.yeet.model.results import Failure, NodeResult, Outcome
from ezpz.yeet.model.warnings import MESSAGES, SourceWarnings
from tests.unit.yeet.plans import assert_valid, plan

if TYPE_CHECKING:
    from ezpz.cluster.allocation import Node

CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EzpzError) and kind is not errors.Interrupted
]


def report(*codes: str, threshold: int | None = None, interrupted: int = 0) -> RunReport:
    """A report on one node for each code: "ok", "skipped", or the code of its failure."""
    decided = plan(Request(min_success_nodes=threshold), count=len(codes))
    results = tuple(result(node, code) for node, code in zip(decided.allocation.nodes, codes, strict=True))
    return RunReport(decided, results, version="0" * 64, files=3, bytes=100, kind="venv", interrupted=interrupted)


def result(node: Node, code: str) -> NodeResult:
    if code == "ok":
        return NodeResult(node, Outcome.OK, attempts=1, via="n000", seconds=1.5)
    if code == "skipped":
        return NodeResult(node, Outcome.SKIPPED)
    failure = Failure(code, "it failed", "do something", node.given)
    return NodeResult(node, failure.outcome, attempts=3, failure=failure)


class TestJudge:
    """Without a threshold all must have it; with one, at least that many."""

    @pytest.mark.parametrize(
        ("succeeded", "nodes", "threshold", "status"),
        [
            (4, 4, None, RunStatus.SUCCESS), (3, 4, None, RunStatus.FAILURE), (0, 4, None, RunStatus.FAILURE),
            (4, 4, 2, RunStatus.SUCCESS), (3, 4, 3, RunStatus.PARTIAL), (2, 4, 3, RunStatus.FAILURE),
            (4, 4, 4, RunStatus.SUCCESS),
            (3, 4, 4, RunStatus.FAILURE), (1, 1, 1, RunStatus.SUCCESS), (1, 1, None, RunStatus.SUCCESS),
            (0, 0, None, RunStatus.FAILURE),
        ],
    )  # fmt: skip
    def test_verdicts(self, succeeded: int, nodes: int, threshold: int | None, status: RunStatus) -> None:
        assert run_status(succeeded, nodes, threshold) is status

    @given(st.integers(1, 50), st.data())
    def test_success_is_only_ever_all(self, nodes: int, data: st.DataObject) -> None:
        succeeded = data.draw(st.integers(0, nodes))
        threshold = data.draw(st.none() | st.integers(1, nodes))
        status = run_status(succeeded, nodes, threshold)
        assert (status is RunStatus.SUCCESS) == (succeeded == nodes)
        assert (status is RunStatus.PARTIAL) == (threshold is not None and threshold <= succeeded < nodes)


class TestExitCode:
    """The one cause of all failures has its own code; different causes, or a missed threshold, are 1."""

    @pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
    def test_one_cause(self, kind: type[EzpzError]) -> None:
        assert report("ok", kind.code, kind.code).exit_code == kind.exit_code
        assert report(kind.code).exit_code == kind.exit_code
        assert report("ok", kind.code, "skipped").exit_code == kind.exit_code
        assert report("ok", "ok", kind.code, threshold=2).exit_code == 0
        assert report("ok", kind.code, kind.code, threshold=2).exit_code == 1

    def test_all_have_it(self) -> None:
        assert report("ok", "ok").exit_code == 0
        assert report("ok", "ok", threshold=1).exit_code == 0

    def test_several_causes(self) -> None:
        assert report("ok", "no-space", "node-lost").exit_code == 1

    def test_a_missed_threshold_is_1_even_when_none_failed(self) -> None:
        assert report("ok", "skipped", "skipped", threshold=2).exit_code == 1

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupt_whatever_else_happened(self, number: int) -> None:
        for codes in (("ok", "ok"), ("ok", "no-space"), ("skipped", "skipped")):
            broken_off = report(*codes, interrupted=number)
            assert (broken_off.exit_code, broken_off.status) == (128 + number, RunStatus.FAILURE)

    def test_a_code_that_nobody_declared(self) -> None:
        assert report("ok", "from-the-future").exit_code == 1


class TestFailure:
    """A node's failure is data: the same code, one line, the next step."""

    @pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
    def test_it_keeps_what_the_error_said(self, kind: type[EzpzError]) -> None:
        failure = Failure.of(kind("what happened", hint="what to do", node="n001"))
        assert failure == Failure(kind.code, "what happened", "what to do", "n001")
        assert failure.message == "n001: what happened"
        error = failure.to_error()
        assert (type(error), error.message, error.hint) == (kind, "n001: what happened", "what to do")

    def test_its_text_next_to_the_name_of_a_node_has_the_name_of_another_node_only(self) -> None:
        failure = Failure("node-lost", "it is gone", node="n001")
        assert (failure.text_next_to("n001"), failure.text_next_to("n002")) == ("it is gone", "n001: it is gone")

    @pytest.mark.parametrize(
        ("code", "outcome"),
        [
            ("timed-out", Outcome.TIMED_OUT), ("node-lost", Outcome.UNREACHABLE), ("ssh-refused", Outcome.UNREACHABLE),
            ("host-unknown", Outcome.UNREACHABLE), ("login-refused", Outcome.UNREACHABLE), ("no-space", Outcome.FAILED),
            ("host-key-unknown", Outcome.UNREACHABLE), ("verify-failed", Outcome.FAILED), ("error", Outcome.FAILED),
        ],
    )  # fmt: skip
    def test_its_outcome(self, code: str, outcome: Outcome) -> None:
        assert Failure(code, "").outcome is outcome


class TestDocument:
    """One versioned document with a schema."""

    @pytest.mark.parametrize(
        "finished",
        [
            report("ok", "ok"),
            report("ok", "no-space", "timed-out", "node-lost", threshold=1),
            report("skipped", "skipped", interrupted=2),
            report("ok", "error"),
        ],
        ids=["success", "partial", "interrupted", "failure"],
    )
    def test_it_obeys_its_schema(self, finished: RunReport) -> None:
        said = finished.to_dict()
        assert_valid(said, "yeet-report")
        assert said["exit_code"] == finished.exit_code
        assert said["status"] == finished.status.value
        assert said["succeeded"] + said["failed"] == len(said["nodes"])

    def test_what_relocation_did(self) -> None:
        notices = SourceWarnings()
        for case in MESSAGES:
            for number in range(12):
                notices.add(case, b"name \xff%d" % number)
        carried = RelocationSummary(
            files_patched=1, paths_replaced=2, links_rewritten=3, links_followed=4, followed_bytes=5, base="embedded",
            base_reason="n001: it is not there", base_path="/opt/py", base_bytes=6,
            base_site_packages=2, python="Python 3.11.7",
            editables=("/home/me/pkg",), bytecode_compiled=7, bytecode_failed=8, warnings=notices.warnings(),
        )  # fmt: skip
        said = dataclasses.replace(report("ok"), relocation=carried, leaks=0).to_dict()
        assert_valid(said, "yeet-report")
        warnings = said["relocation"].pop("warnings")
        assert said["relocation"] == {
            "files_patched": 1, "paths_replaced": 2, "links_rewritten": 3, "links_followed": 4, "followed_bytes": 5,
            "python": "Python 3.11.7",
            "base": {"mode": "embedded", "reason": "n001: it is not there", "path": "/opt/py", "bytes": 6,
                     "site_packages_bytes": 2},
            "editables": ["/home/me/pkg"], "bytecode": {"compiled": 7, "failed": 8},
        }  # fmt: skip
        assert [(each["case"], each["count"], len(each["paths"])) for each in warnings] == [
            (c, 12, 10) for c in MESSAGES
        ]
        assert all("and 9 more" in each["text"] for each in warnings)
        assert (said["leaks"], report("ok").to_dict()["leaks"]) == (0, None)

    def test_what_it_says_of_a_node_that_failed(self) -> None:
        said = report("ok", "no-space").to_dict()["nodes"][1]
        assert said["outcome"] == "failed"
        assert said["failure"] == {"code": "no-space", "message": "n001.domain: it failed", "hint": "do something"}
        assert said["attempts"] == 3
