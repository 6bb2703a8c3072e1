"""The page of a report: one file, nothing from elsewhere, true, small enough, and closed to hostile names."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.cluster.allocation import Node
from ezpz.yeet.model.events import (
    Event,
    NodeConnected,
    NodeDeferred,
    NodeDone,
    NodeProgress,
    NodeReceived,
    NodeRetrying,
    PhaseStarted,
    Read,
    RunStarted,
)
from ezpz.yeet.model.plan import Request
from ezpz.yeet.model.report import RunReport
from ezpz.yeet.model.results import Failure, NodeResult, Outcome
from ezpz.yeet.reporting.html.chart_data import NOBODY, ROOT, picture
from ezpz.yeet.reporting.html.page import render_page
from ezpz.yeet.reporting.timeline import Timeline
from tests.unit.yeet.plans import plan

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 1000
LOST = Failure("node-lost", "it stopped answering", "look at it")


class Page(HTMLParser):
    """What a browser makes of a page: elements with their attributes, scripts, and the text that is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.held: dict[str, str] = {}
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.inside += str(dict(attrs).get("type", ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.held[self.inside] = self.held.get(self.inside, "") + data
        else:
            self.shown += data

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.held["scriptapplication/json"])
        return found


def run(results: Sequence[NodeResult], *events: tuple[float, Event], **facts: Any) -> tuple[RunReport, Timeline]:
    """A report on these nodes, and what was heard meanwhile."""
    decided = plan(Request(min_success_nodes=1), count=1)
    allocation = dataclasses.replace(decided.allocation, nodes=tuple(result.node for result in results))
    timeline = Timeline()
    for now, event in ((0.0, RunStarted(len(results))), *events):
        timeline.hear(event, now)
    settings: dict[str, Any] = {"version": "0" * 64, "files": 3, "bytes": SIZE, "kind": "venv", "seconds": 9.0, **facts}
    return RunReport(dataclasses.replace(decided, allocation=allocation), tuple(results), **settings), timeline


def node(name: str, *, local: bool = False) -> Node:
    return Node(name, name, name, is_local=local)


ME, A, B, C = node("n0", local=True), node("n1"), node("n2"), node("n3")


def usual() -> tuple[RunReport, Timeline]:
    return run(
        (
            NodeResult(ME, Outcome.OK, seconds=3),
            NodeResult(A, Outcome.OK, 1, "this host", sent_bytes=SIZE, seconds=5),
            NodeResult(B, Outcome.OK, 2, "n1", seconds=6), NodeResult(C, Outcome.UNREACHABLE, 1, "n2", failure=LOST),
        ),
        (0, PhaseStarted("reach")), (1, PhaseStarted("stream", SIZE)), (1, NodeConnected(A, "this host", 1)),
        (1, NodeConnected(B, "this host", 1)), (1, NodeConnected(C, "n2", 2)), (2, Read(SIZE)),
        (2, NodeProgress(A, 250)),
        (2, NodeDeferred(B)), (3, NodeConnected(B, "n1", 2, True)), (3, NodeDone(NodeResult(ME, Outcome.OK))),
        (4, NodeReceived(A)), (4, NodeRetrying(B, "damaged")), (5, NodeDone(NodeResult(A, Outcome.OK))),
        (6, NodeDone(NodeResult(B, Outcome.OK))), (7, NodeDone(NodeResult(C, Outcome.UNREACHABLE, failure=LOST))),
        phases={"reach": 1.0, "stream": 7.5},
    )  # fmt: skip


class TestData:
    """What the pictures are drawn from."""

    def test_every_node_with_its_moments_and_the_tree_in_the_end(self) -> None:
        data = Page(render_page(*usual())).data
        states = data["states"]
        me, first, second, third = data["nodes"]
        assert [each[0] for each in data["nodes"]] == ["n0", "n1", "n2", "n3"]
        assert [(each[2], each[3]) for each in data["nodes"]] == [(NOBODY, 0), (ROOT, 1), (1, 2), (2, 3)]
        assert data["local"] == 0
        assert [(at, states[state]) for at, state, *_ in me[5]] == [(1000, "receiving"), (3000, "done")]
        assert first[6] == [2000, 250]
        assert [(at, states[state], via, adopted) for at, state, via, adopted, *_ in second[5]] == [
            (1000, "receiving", ROOT, 0), (2000, "parked", NOBODY, 0), (3000, "receiving", 1, 1),
            (4000, "waiting", NOBODY, 0), (6000, "done", NOBODY, 0),
        ]  # fmt: skip
        assert second[5][3][4] == "damaged"
        assert third[7] == ["node-lost", "it stopped answering"]
        assert [(name, at, end) for name, _, at, end in data["phases"]] == [("reach", 0, 1000), ("stream", 1000, 8500)]
        assert (sum(data["received"]["bins"]), sum(data["read"]["bins"]), data["end"]) == (250, SIZE, 9000)

    def test_this_host_had_what_it_had_read(self) -> None:
        received = Page(render_page(*usual())).data["nodes"][0][6]
        assert (received[1], received[-1]) == (0, 1000)

    def test_a_node_that_nothing_was_heard_of_ends_when_its_result_says(self) -> None:
        results = (NodeResult(A, Outcome.FAILED, seconds=2, failure=LOST), NodeResult(B, Outcome.SKIPPED))
        first, second = Page(render_page(*run(results))).data["nodes"]
        assert [moment[0] for moment in first[5]] == [2000]
        assert second[5] == []

    def test_who_served_is_known_by_either_name(self) -> None:
        first, second = (Node(f"n{number}", f"n{number}", f"n{number}.domain") for number in (1, 2))
        for via in ("n1", "n1.domain"):
            drawn = picture(*run((NodeResult(first, Outcome.OK), NodeResult(second, Outcome.OK, via=via))))
            assert drawn.rows[1].parent == 0

    def test_who_serve_each_other_in_a_circle_are_a_tree_all_the_same(self) -> None:
        results = tuple(NodeResult(each, Outcome.OK, via=via.given) for each, via in ((A, C), (B, A), (C, B)))
        drawn = picture(*run(results))
        assert sorted(row.depth for row in drawn.rows) == [1, 2, 3]
        assert [row.parent for row in drawn.rows].count(ROOT) == 1

    def test_no_more_than_so_many_points_of_a_node(self) -> None:
        moved = tuple((number / 10, NodeProgress(A, number)) for number in range(SIZE))
        received = Page(render_page(*run((NodeResult(A, Outcome.OK),), *moved))).data["nodes"][0][6]
        assert len(received) == 48
        assert (received[:2], received[-2:]) == ([0, 0], [99900, 999])


class TestText:
    """What stands there without any script."""

    def test_the_verdict_the_failures_by_cause_and_every_node(self) -> None:
        shown = " ".join(Page(render_page(*usual())).shown.split())
        assert "3 of 4 nodes have /tmp/env (venv, 3 files, 1.0 kB, version 000000000000) after 9.0 s" in shown
        assert "1n3node-lostit stopped answeringlook at it" in shown
        assert "n2ok" in shown
        assert "PBS_NODEFILE says so" in shown

    def test_failures_of_one_cause_are_one_row_with_folded_names(self) -> None:
        results = [
            NodeResult(node(f"n{number:03d}"), Outcome.FAILED, failure=Failure("no-space", f"n{number:03d}: full"))
            for number in range(100)
        ]
        shown = Page(render_page(*run(results))).shown
        assert "100n[000-099]no-spacefull" in shown

    def test_many_names_are_broken_between_two_of_them(self) -> None:
        names = [f"x{number}c{number}" for number in range(40)]
        text = render_page(*run([NodeResult(node(name), Outcome.FAILED, failure=LOST) for name in names]))
        assert text.count(",<wbr>x") == 39

    def test_a_row_of_a_node_has_the_cause_to_be_found_by_and_its_name_once(self) -> None:
        failed = NodeResult(A, Outcome.UNREACHABLE, failure=Failure("node-lost", "n1: it stopped answering"))
        made = Page(render_page(*run((failed,), (1, NodeRetrying(A, "n1: it broke")), (2, NodeDone(failed)))))
        assert "n1unreachable (node-lost)---" in made.shown
        assert "n1: " not in made.shown
        assert made.data["nodes"][0][7] == ["node-lost", "it stopped answering"]
        assert made.data["nodes"][0][5][0][4] == "it broke"

    def test_without_failures_there_is_no_table_of_them(self) -> None:
        assert "Failures" not in Page(render_page(*run((NodeResult(A, Outcome.OK),)))).shown

    @pytest.mark.parametrize(
        ("facts", "status"),
        [({}, "success"), ({"interrupted": 2}, "failure"), ({"version": "", "kind": ""}, "success")],
    )
    def test_of_every_end(self, facts: dict[str, Any], status: str) -> None:
        made = Page(render_page(*run((NodeResult(A, Outcome.OK),), **facts)))
        assert ("header", {"class": status}) in made.elements


HOSTILE = (
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"' onmouseover=alert(1) x='", "]]><!--",
    "${data}", "\u202egnp.exe", "a\x00b\x1b[2Jc", "caf\udce9", "\u2028",
)  # fmt: skip


def said(text: str) -> tuple[RunReport, Timeline]:
    """A run in which a text is everything that others can say."""
    failed = NodeResult(A, Outcome.FAILED, via=text, failure=Failure("error", text, text))
    return run(
        (failed,), (1, NodeConnected(A, text, 1)), (2, NodeRetrying(A, text)), (3, NodeDone(failed)), failed_list=text
    )


class TestHostile:
    """Names and messages come from other hosts, and are text and nothing else."""

    @pytest.mark.parametrize("text", HOSTILE, ids=ascii)
    def test_nothing_breaks_out_of_its_place(self, text: str) -> None:
        calm, wild = (Page(render_page(*said(words))) for words in ("harmless", text))
        without = [(tag, attributes) for tag, attributes in wild.elements if tag != "meta"]
        assert without == [(tag, attributes) for tag, attributes in calm.elements if tag != "meta"]
        assert wild.held["script"] == calm.held["script"]
        assert wild.data["nodes"][0][7] == ["error", text]
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u2028\u202e\ud800-\udfff]", wild.shown)

    @pytest.mark.parametrize("text", HOSTILE, ids=ascii)
    def test_it_can_be_written(self, text: str) -> None:
        assert b"it stopped" not in render_page(*said(text)).encode("utf-8")

    def test_only_its_own_script_may_run_and_nothing_may_be_fetched(self) -> None:
        made = Page(render_page(*usual()))
        policy = next(str(each["content"]) for tag, each in made.elements if tag == "meta" and "http-equiv" in each)
        for kind in ("script", "style"):
            digest = base64.b64encode(hashlib.sha256(made.held[kind].encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy

    def test_it_needs_nothing_from_elsewhere(self) -> None:
        text = render_page(*usual())
        assert not re.findall(
            r"https?:|//[a-z]+\.|@import|url\(|\bsrc=|<link|<img|\bfetch\(|XMLHttpRequest|import\(", text
        )
        assert "innerHTML" not in text


@pytest.mark.scale
class TestSize:
    """4,096 nodes, each with as much to tell as can be kept."""

    def test_of_a_large_run(self) -> None:
        names = [node(f"x{number:04d}c0s0b0n0") for number in range(4096)]
        events: list[tuple[float, Event]] = [(1, PhaseStarted("stream", SIZE * 1000))]
        for at in range(80):
            events += [(1 + at / 4, NodeProgress(each, at * 12_345)) for each in names]
        for at in range(3):
            events += [
                (22 + at, NodeConnected(each, names[number // 3].given, 5, True)) for number, each in enumerate(names)
            ]
        results = [NodeResult(each, Outcome.OK, 3, "x0001c0s0b0n0", sent_bytes=10**9, seconds=25.5) for each in names]
        text = render_page(*run(results, *sorted(events, key=lambda each: each[0]), bytes=SIZE * 1000))
        assert len(text.encode()) < 3_000_000
        assert len(Page(text).data["nodes"]) == 4096
