"""launch/supervise.py, attempt.py and care.py: the loop, with real commands here and nodes by word of mouth."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.common.messages.queries import HealthCheckAnswer, HealthCheckRequest
from ezpz.cluster.allocation import Allocation, Node
from ezpz.cluster.schedulers.pbs import PBS
from ezpz.cluster.schedulers.slurm import SLURM
from ezpz.errors import ChecksFailed, Interrupted, NodeLost, UsageError
from ezpz.launch.execute.node_checks import CheckRequest
from ezpz.launch.execute.options import MonitorOptions, SupervisionOptions, make_restart_policy
from ezpz.launch.execute.restart_policy import RestartPolicy
from ezpz.launch.execute.supervisor import RUN_ID_VARIABLE, Supervisor, SupervisorDependencies
from ezpz.launch.launchers.base import Availability, Invocation, Launcher, LaunchSpec, Tools
from ezpz.launch.plan.plan import Facts, LaunchPlan, LaunchRequest
from ezpz.launch.plan.topology import NodeCount, RankRequest, Topology, compute_topology
from ezpz.remote.health_check import Reply, ReplyOrError
from tests.waiting import DEADLINE, act_when

if TYPE_CHECKING:
    from pathlib import Path

    from ezpz.cluster.schedulers.base import JobSystem
    from ezpz.launch.execute.outcome import LaunchOutcome

NAMES = ("n0", "n1", "n2", "n3")
ENVIRON = {**os.environ, RUN_ID_VARIABLE: "1a2b"}
ALLOCATION = Allocation("hosts", None, tuple(Node(name, name, name) for name in NAMES))


ALL = RankRequest()


class FakeLauncher(Launcher):
    name = "fake"
    order = 1

    def check_availability(self, job: LaunchSpec, tools: Tools, /) -> Availability:
        return Availability(is_available=True, why="because")

    def invocation(self, job: LaunchSpec) -> Invocation:
        return Invocation(job.command)


@dataclass
class Fake:
    """A launcher that runs a script here with its nodes as arguments; `dead` nodes do not answer questions."""

    script: str
    dead: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    asked: list[tuple[tuple[str, ...], HealthCheckRequest]] = field(default_factory=list)
    min_nodes: int = 1
    system: JobSystem | None = None

    def plan(self, rank_request: RankRequest = ALL) -> LaunchPlan:
        topology = compute_topology(rank_request, len(ALLOCATION.nodes))
        used = replace(ALLOCATION, nodes=ALLOCATION.nodes[: topology.nodes])
        return replace(self.replan(used), request=LaunchRequest(("app",), rank_request), topology=topology)

    def replan(self, allocation: Allocation) -> LaunchPlan:
        count = len(allocation.nodes)
        if count < self.min_nodes:
            raise UsageError("-n does not fit")
        argv = ("sh", "-c", self.script, "fake", *(node.name for node in allocation.nodes))
        job = LaunchSpec(("app",), allocation, count, 1, ENVIRON, system=self.system)
        request, topology = LaunchRequest(("app",)), Topology(count, count, 1)
        return LaunchPlan(FakeLauncher(), "because", (), Invocation(argv), job, request, topology, Facts())

    def consult(self, nodes: tuple[Node, ...], request: HealthCheckRequest, **_: object) -> dict[str, ReplyOrError]:
        self.asked.append((tuple(node.name for node in nodes), request))
        well = Reply(HealthCheckAnswer(time=1.0), 1.0, 1.0)
        return {node.name: NodeLost(f"{node.name}: gone") if node.name in self.dead else well for node in nodes}

    def run(
        self, supervision: SupervisionOptions, rank_request: RankRequest = ALL, *, backoff: float = 0.0
    ) -> LaunchOutcome:
        dependencies = SupervisorDependencies(
            self.replan, ENVIRON, self.told.append, consult=self.consult, backoff=backoff
        )
        return Supervisor(supervision, ALLOCATION, self.plan(rank_request), dependencies).run()


def supervision(**settings: Any) -> SupervisionOptions:
    return SupervisionOptions(MonitorOptions(end_when_lost=True, labels=True), **settings)


@pytest.mark.processes
def test_a_culprit_is_replaced_until_it_works() -> None:
    fake = Fake('echo step: 1; case "$*" in *n1*) echo "x: rank 1 died from signal 9"; exit 1;; esac')
    outcome = fake.run(supervision(max_restarts=3), RankRequest(spares=1))
    assert (outcome.reason, outcome.status, outcome.error) == ("success", 0, None)
    assert [record.nodes for record in outcome.attempts] == [("n0", "n1", "n2"), ("n0", "n3", "n2")]
    assert fake.told[1] == "attempt 2 in 5 s on n[0,2-3]: n3 takes the place of n1"


@pytest.mark.processes
def test_a_dead_node_that_no_message_names_is_found_by_asking() -> None:
    fake = Fake('case "$*" in *n2*) exit 255;; esac', dead={"n2"})
    outcome = fake.run(supervision(max_restarts=3), RankRequest(spares=1))
    assert [record.nodes for record in outcome.attempts] == [("n0", "n1", "n2"), ("n0", "n1", "n3")]
    assert fake.asked[0][0] == NAMES
    assert fake.asked[0][1].sweep == "EZPZ_LAUNCH_ID=1a2b"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("script", "settings", "dead", "reason", "code"),
    [
        ("exit 3", {"max_restarts": 5}, (), "no-progress", 62),
        ("echo step=1; exit 3", {"max_restarts": 2}, (), "restarts-exhausted", 63),
        ("echo step=1; exit 3", {"max_restarts": 2}, ("n1",), "no-spares", 61),
        ("echo CANCELLED AT x DUE TO TIME LIMIT; exit 3", {"max_restarts": 2}, (), "walltime", 64),
    ],
)
def test_why_it_stops(script: str, settings: dict[str, Any], dead: tuple[str, ...], reason: str, code: int) -> None:
    fake = Fake(script, set(dead))
    outcome = fake.run(supervision(**settings))
    assert outcome.reason == reason
    assert bool(fake.asked) == (reason != "walltime")  # the nodes are the job's no more
    assert outcome.error is not None
    assert outcome.error.exit_code == code == outcome.to_dict()["exit_code"]


@pytest.mark.processes
def test_without_restarts_the_status_is_the_commands() -> None:
    outcome = Fake("exit 3").run(SupervisionOptions(MonitorOptions(idle=50)))
    assert (outcome.reason, outcome.status, outcome.error) == ("failed", 3, None)


@pytest.mark.processes
def test_a_lost_node_is_not_the_commands_failure() -> None:
    fake = Fake("echo 'Timeout, server n2 not responding.' >&2; exit 255", dead={"n2"})
    outcome = fake.run(SupervisionOptions(MonitorOptions(idle=50)))
    assert outcome.error is not None
    assert (outcome.reason, outcome.error.exit_code) == ("failed", 36)
    assert outcome.error.message == "n2 was lost: Timeout, server n2 not responding."
    assert fake.asked[-1][1].sweep


@pytest.mark.processes
def test_silence_without_restarts() -> None:
    fake = Fake("exec sleep 60")
    outcome = fake.run(SupervisionOptions(MonitorOptions(idle=0.3, grace=5)))
    assert outcome.error is not None
    assert outcome.error.exit_code == 124
    assert fake.asked[-1][1].sweep


@pytest.mark.processes
def test_slurm_is_told_to_overlap_the_step_that_lost_a_node(tmp_path: Path) -> None:
    said = tmp_path / "said"
    for system, expected in ((SLURM, "-\n1\n"), (PBS, "-\n-\n")):
        fake = Fake(f'echo "${{SLURM_OVERLAP:--}}" >> {said}; echo step=1; exit 1', system=system)
        fake.run(supervision(max_restarts=1))
        assert said.read_text() == expected
        said.unlink()


@pytest.mark.processes
def test_what_remains_is_too_little_for_the_command() -> None:
    outcome = Fake("echo step=1; exit 1", {"n3"}, min_nodes=4).run(
        supervision(max_restarts=2), RankRequest(nhosts=NodeCount(2, 4))
    )
    assert outcome.reason == "no-spares"
    assert "-n does not fit" in outcome.why


@pytest.mark.processes
def test_checks_leave_nodes_out() -> None:
    fake = Fake("exit 0", {"n1"})
    outcome = fake.run(SupervisionOptions(check=CheckRequest()))
    assert outcome.left_out == ("n1",)
    assert outcome.attempts[0].nodes == ("n0", "n2", "n3")
    assert fake.told[-1] == "left out: n1; 3 of 4 nodes remain"


@pytest.mark.processes
def test_spares_fill_up_what_the_checks_take() -> None:
    outcome = Fake("exit 0", {"n1"}).run(SupervisionOptions(check=CheckRequest()), RankRequest(spares=1))
    assert outcome.attempts[0].nodes == ("n0", "n2", "n3")
    with pytest.raises(ChecksFailed, match=r"2 nodes passed the checks, 3 needed; n\[1,3\] did not"):
        Fake("exit 0", {"n1", "n3"}).run(SupervisionOptions(check=CheckRequest()), RankRequest(spares=1))


def test_what_passes_the_checks_is_too_little_for_the_command() -> None:
    with pytest.raises(ChecksFailed, match="3 of 4 nodes passed the checks, which is not enough: -n does not fit"):
        Fake("exit 0", {"n1"}, min_nodes=4).run(SupervisionOptions(check=CheckRequest()), RankRequest(nproc=4))


@pytest.mark.processes
@pytest.mark.parametrize(("status", "reason"), [(0, "success"), (3, "walltime")])
def test_a_warning_of_the_scheduler_is_none_for_whoever_succeeds(tmp_path: Path, status: int, reason: str) -> None:
    begun, warned = tmp_path / "begun", tmp_path / "warned"

    def warn() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        warned.touch()

    sender = act_when(begun.exists, warn)
    script = f"trap '' USR1; touch {begun}; until test -e {warned}; do sleep 0.05; done; exit {status}"
    outcome = Fake(script).run(supervision(max_restarts=3))
    sender.join()
    assert (outcome.reason, outcome.attempts[0].end.signals) == (reason, (signal.SIGUSR1,))


@pytest.mark.processes
def test_logs_that_vanish_cost_nothing_but_themselves(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    fake = Fake(f"echo step: 1; rm -rf {logs}; exit 3")
    outcome = fake.run(supervision(max_restarts=1, log_dir=str(logs)))
    assert (outcome.reason, len(outcome.attempts)) == ("restarts-exhausted", 2)
    assert f"'{logs}/attempt-2.log' cannot be written: No such file or directory" in fake.told
    assert fake.told[-1] == f"'{logs}/summary.txt' cannot be written: No such file or directory"


@pytest.mark.processes
def test_a_signal_while_nodes_are_asked_ends_it() -> None:
    def consult(*_: object, **__: object) -> dict[str, ReplyOrError]:
        raise Interrupted("SIGTERM came", signal=15)

    fake = Fake("echo step=1; exit 1")
    fake.consult = consult  # type: ignore[method-assign]
    assert fake.run(supervision(max_restarts=3)).reason == "walltime"


@pytest.mark.processes
def test_a_signal_between_attempts_ends_it() -> None:
    fake = Fake("echo step=1; exit 1")
    sender = act_when(lambda: fake.told, lambda: os.kill(os.getpid(), signal.SIGTERM))
    outcome = fake.run(supervision(max_restarts=3), backoff=DEADLINE)
    sender.join()
    assert outcome.reason == "walltime"


@pytest.mark.processes
def test_logs_and_summary(tmp_path: Path) -> None:
    fake = Fake("echo step: 1; echo 'rank 2 exited with code 7'; echo 'ValueError: no' >&2; exit 7")
    outcome = fake.run(supervision(max_restarts=1, log_dir=str(tmp_path)), RankRequest(spares=1))
    assert outcome.error is not None
    assert outcome.error.message.endswith(f"; the logs are in {tmp_path}")
    assert not outcome.error.hint  # the last line says why it stopped
    assert "launcher: step: 1\n" in (tmp_path / "attempt-2.log").read_text()
    summary = (tmp_path / "summary.txt").read_text()
    for words in ("3 ranks on n[0-2] (3), by fake", "cause   rank 2 on n2 exited with 7", "failed  2 (1 rank)"):
        assert words in summary
    assert "    ValueError: no\n" in summary
    assert "outcome: restarts-exhausted: it failed 2 times" in summary


@pytest.mark.parametrize(
    ("rank_request", "min_nodes", "maximum"),
    [
        (RankRequest(), 4, 4),
        (RankRequest(2), 2, 2),  # -n needs only two: the others are spares
        (RankRequest(spares=1), 3, 3),
        (RankRequest(nhosts=NodeCount(2, 2)), 2, 2),
        (RankRequest(nhosts=NodeCount(2, 9)), 2, 4),
    ],
)
def test_bounds(rank_request: RankRequest, min_nodes: int, maximum: int) -> None:
    assert make_restart_policy(SupervisionOptions(max_restarts=2), Fake("").plan(rank_request)) == RestartPolicy(
        min_nodes, maximum, 2
    )


def test_what_needs_nobody_in_between() -> None:
    assert SupervisionOptions(MonitorOptions(grace=3, progress="x")).is_plain
    assert not SupervisionOptions(MonitorOptions(idle=3)).is_plain
    assert not SupervisionOptions(max_restarts=1).is_plain
