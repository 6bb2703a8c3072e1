"""launch/supervise.py, attempt.py and wish.py: the loop, with real commands here and nodes by word of mouth."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.cluster.model import Allocation, Node
from ezpz.errors import ChecksFailed, NodeLost, UsageError
from ezpz.launch.checks import Wanted
from ezpz.launch.consult import Heard, Said
from ezpz.launch.launchers import Invocation, Job
from ezpz.launch.plan import LaunchPlan
from ezpz.launch.restarts import Policy
from ezpz.launch.supervise import Outcome, Supervisor, World
from ezpz.launch.wish import Watching, Wish, bounds, first_nodes

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("n0", "n1", "n2", "n3")
ALLOCATION = Allocation("hosts", None, tuple(Node(name, name, name) for name in NAMES))


@dataclass
class Fake:
    """A launcher that runs a script here with its nodes as arguments; `dead` nodes do not answer questions."""

    script: str
    dead: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    asked: list[tuple[tuple[str, ...], dict[str, Any]]] = field(default_factory=list)
    fewest: int = 1

    def replan(self, allocation: Allocation) -> LaunchPlan:
        if len(allocation.nodes) < self.fewest:
            raise UsageError("-n does not fit")
        argv = ("sh", "-c", self.script, "fake", *(node.name for node in allocation.nodes))
        job = Job(("app",), allocation, len(allocation.nodes), 1, {})
        return LaunchPlan("fake", "because", (), Invocation(argv), job)

    def consult(self, nodes: tuple[Node, ...], request: dict[str, Any], **_: object) -> dict[str, Heard]:
        self.asked.append((tuple(node.name for node in nodes), request))
        return {
            node.name: NodeLost(f"{node.name}: gone") if node.name in self.dead else Said({"time": 1.0}, 1.0, 1.0)
            for node in nodes
        }

    def run(self, wish: Wish) -> Outcome:
        world = World(self.replan, dict(os.environ), self.told.append, consult=self.consult, back_off=0.0)
        return Supervisor(wish, ALLOCATION, world).run()


def wish(**settings: Any) -> Wish:
    return Wish(Watching(end_when_lost=True, labels=True), **settings)


def test_a_culprit_is_replaced_until_it_works() -> None:
    fake = Fake('echo step: 1; case "$*" in *n1*) echo "x: rank 1 died from signal 9"; exit 1;; esac')
    outcome = fake.run(wish(spares=1, restarts=3))
    assert (outcome.reason, outcome.status, outcome.error) == ("success", 0, None)
    assert [record.nodes for record in outcome.attempts] == [("n0", "n1", "n2"), ("n0", "n3", "n2")]
    assert fake.told[1] == "attempt 2 in 5 s on n[0,2-3]: n3 takes the place of n1"


def test_a_dead_node_that_no_message_names_is_found_by_asking() -> None:
    fake = Fake('case "$*" in *n2*) exit 255;; esac', dead={"n2"})
    outcome = fake.run(wish(spares=1, restarts=3))
    assert [record.nodes for record in outcome.attempts] == [("n0", "n1", "n2"), ("n0", "n1", "n3")]
    assert fake.asked[0][0] == NAMES
    assert fake.asked[0][1]["sweep"].startswith("EZPZ_LAUNCH_ID=")


@pytest.mark.parametrize(
    ("script", "settings", "dead", "reason", "code"),
    [
        ("exit 3", {"restarts": 5}, (), "no-progress", 62),
        ("echo step=1; exit 3", {"restarts": 2}, (), "restarts-exhausted", 63),
        ("echo step=1; exit 3", {"restarts": 2}, ("n1",), "no-spares", 61),
        ("echo CANCELLED AT x DUE TO TIME LIMIT; exit 3", {"restarts": 2}, (), "walltime", 64),
    ],
)
def test_why_it_stops(script: str, settings: dict[str, Any], dead: tuple[str, ...], reason: str, code: int) -> None:
    outcome = Fake(script, set(dead)).run(wish(**settings))
    assert outcome.reason == reason
    assert outcome.error is not None
    assert outcome.error.exit_code == code == outcome.to_dict()["exit_code"]


def test_without_restarts_the_status_is_the_commands() -> None:
    outcome = Fake("exit 3").run(Wish(Watching(idle=50)))
    assert (outcome.reason, outcome.status, outcome.error) == ("failed", 3, None)


def test_silence_without_restarts() -> None:
    fake = Fake("exec sleep 60")
    outcome = fake.run(Wish(Watching(idle=0.3, grace=5)))
    assert outcome.error is not None
    assert outcome.error.exit_code == 124
    assert "sweep" in fake.asked[-1][1]


def test_what_remains_is_too_little_for_the_command() -> None:
    outcome = Fake("echo step=1; exit 1", {"n3"}, fewest=4).run(wish(fewest=2, most=4, restarts=2))
    assert outcome.reason == "no-spares"
    assert "-n does not fit" in outcome.why


def test_checks_leave_nodes_out() -> None:
    fake = Fake("exit 0", {"n1"})
    outcome = fake.run(Wish(check=Wanted()))
    assert outcome.left_out == ("n1",)
    assert outcome.attempts[0].nodes == ("n0", "n2", "n3")
    assert fake.told[-1] == "left out: n1; 3 of 4 nodes remain"


def test_spares_fill_up_what_the_checks_take() -> None:
    outcome = Fake("exit 0", {"n1"}).run(Wish(check=Wanted(), spares=1))
    assert outcome.attempts[0].nodes == ("n0", "n2", "n3")
    with pytest.raises(ChecksFailed, match=r"2 nodes passed the checks, and 3 are needed; n\[1,3\] did not"):
        Fake("exit 0", {"n1", "n3"}).run(Wish(check=Wanted(), spares=1))


def test_a_signal_between_attempts_ends_it() -> None:
    fake = Fake("echo step=1; exit 1")
    world = World(fake.replan, dict(os.environ), fake.told.append, consult=fake.consult, back_off=10.0)
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    outcome = Supervisor(wish(restarts=3), ALLOCATION, world).run()
    timer.join()
    assert outcome.reason == "walltime"


def test_logs_and_summary(tmp_path: Path) -> None:
    fake = Fake("echo step: 1; echo 'rank 2 exited with code 7'; echo 'ValueError: no' >&2; exit 7")
    outcome = fake.run(wish(spares=1, restarts=1, log_dir=str(tmp_path)))
    assert outcome.error is not None
    assert outcome.error.hint == f"the logs are in {tmp_path}"
    assert "launcher: step: 1\n" in (tmp_path / "attempt-2.log").read_text()
    summary = (tmp_path / "summary.txt").read_text()
    for words in ("3 ranks on n[0-2] (3), by fake", "cause   rank 2 on n2 exited with 7", "failed  2 (1 rank)"):
        assert words in summary
    assert "    ValueError: no\n" in summary
    assert "outcome: restarts-exhausted: it failed 2 times" in summary


@pytest.mark.parametrize(
    ("settings", "count"), [({}, 4), ({"spares": 1}, 3), ({"fewest": 2, "most": 2}, 2), ({"fewest": 2, "most": 9}, 4)]
)
def test_the_nodes_of_the_first_attempt(settings: dict[str, Any], count: int) -> None:
    assert len(first_nodes(Wish(**settings), ALLOCATION).nodes) == count


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"spares": 4}, "--spares 4"), ({"fewest": 5, "most": 9}, "--nhosts 5"), ({"fewest": 8, "most": 8}, "--nhosts 8")],
)
def test_more_than_there_is(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"{said} does not fit: the job has 4 nodes"):
        first_nodes(Wish(**settings), ALLOCATION)


def test_bounds() -> None:
    assert bounds(Wish(restarts=2), 4, 4, 4) == Policy(4, 4, 2)
    assert bounds(Wish(), 4, 4, 2) == Policy(2, 2)  # -n needs only two: the others are spares
    assert bounds(Wish(spares=1), 4, 3, 3) == Policy(3, 3)
    assert bounds(Wish(fewest=2, most=9), 4, 4, 4) == Policy(2, 4)


def test_what_needs_nobody_in_between() -> None:
    assert Wish(Watching(grace=3, progress="x"), spares=1).is_plain
    assert not Wish(Watching(idle=3)).is_plain
    assert not Wish(restarts=1).is_plain
