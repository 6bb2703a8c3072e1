"""launch/culprit.py and evidence.py: what launchers really print, and who is to blame. One table."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ezpz.cluster.allocation import Node
from ezpz.launch.output.failure_analysis import FailureAnalyzer, FailureCause, RankPlacement
from ezpz.launch.sites.site import FailureRule, choose_site

NODES = tuple(Node(f"n00{number}", f"n00{number}-hsn0", f"n00{number}.lab") for number in range(4))
X = tuple(Node(name, f"{name}.hsn.cm.aurora", name) for name in ("x4117c0s6b0n0", "x4115c5s4b0n0", "x4406c6s7b0n0"))


@dataclass(frozen=True)
class Case:
    """What was printed, and what is to be made of it; lines of a rank begin with `RANK| `."""

    said: str
    node: str | None
    words: str = ""
    ppn: int = 1
    nodes: tuple[Node, ...] = NODES
    failed: frozenset[int] = frozenset()


HYDRA_BLOCK = """
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 22752 RUNNING AT n002
=   EXIT CODE: 9
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
===================================================================================
[proxy:0:0@n000] HYD_pmcd_pmip_control_cmd_cb (pm/pmiserv/pmip_cb.c:899): assert (!closed) failed
[proxy:0:0@n000] main (pm/pmiserv/pmip.c:169): demux engine error waiting for event
[mpiexec@n000] HYDT_bscu_wait_for_completion (tools/bootstrap/utils/bscu_wait.c:73): one of the processes
"""

CASES = {
    # MPICH 4.0.2
    "hydra, a rank was killed": Case(HYDRA_BLOCK, "n002", "a rank on n002 exited with 9"),
    "hydra, a node died": Case(
        "Connection to n002 closed by remote host.\n"
        "[mpiexec@n000] control_cb (pm/pmiserv/pmiserv_cb.c:206): assert (!closed) failed\n"
        "[mpiexec@n000] main (ui/mpich/mpiexec.c:325): process manager error waiting for completion\n",
        "n002",
        "n002 was lost: Connection to n002 closed by remote host.",
    ),
    "hydra, a node is dead": Case("ssh: connect to host n003 port 22: Connection refused\n", "n003", "n003 was lost"),
    "hydra, by its fast name": Case("ssh: connect to host n003-hsn0 port 22: No route to host\n", "n003"),
    "hydra, an abort": Case(
        "application called MPI_Abort(MPI_COMM_WORLD, 3) - process 2\n", "n002", "rank 2 on n002 exited with 3"
    ),
    "hydra, an abort of MPICH 4": Case("Abort(5) on node 1 (rank 1 in comm 0): application called\n", "n001"),
    "Intel MPI": Case(
        "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n"
        "=   RANK 3 PID 2468 RUNNING AT n001\n"
        "=   KILLED BY SIGNAL: 11 (Segmentation fault)\n",
        "n001",
        "rank 3 on n001 died from signal 11",
        ppn=2,
    ),
    # Slurm 22.05
    "srun, a rank was killed, the others were ended": Case(
        "srun: error: n002: task 2: Killed\n"
        "srun: launch/slurm: _step_signal: Terminating StepId=4.0\n"
        "slurmstepd-n000: error: *** STEP 4.0 ON n000 CANCELLED AT 2026-11-29T01:55:36 ***\n"
        "srun: error: n003: task 3: Terminated\n"
        "srun: error: n001: task 1: Exited with exit code 143\n"
        "srun: error: n000: task 0: Terminated\n",
        "n002",
        "rank 2 on n002 died from signal 9",
        failed=frozenset((2,)),
    ),
    "srun, victims are told first": Case(
        "srun: error: n003: task 3: Terminated\nsrun: error: n002: task 2: Exited with exit code 3\n",
        "n002",
        "rank 2 on n002 exited with 3",
    ),
    "srun, tasks of one node": Case(
        "srun: error: n001: tasks 4-6: Segmentation fault (core dumped)\n", "n001", ppn=4, failed=frozenset((4, 5, 6))
    ),
    "srun, out of memory": Case(
        "slurmstepd-n003: error: Detected 1 oom_kill event in StepId=11300781.0. Some of the step tasks\n"
        "srun: error: n003: task 3: Out Of Memory\n",
        "n003",
    ),
    "srun, a node failed after ranks had noticed": Case(
        "srun: error: n001: task 1: Exited with exit code 1\n"
        "srun: error: Node failure on n003\n"
        "srun: error: n000: task 0: Exited with exit code 1\n",
        "n003",
        "n003 was lost",
    ),
    "srun, its connection to a node broke": Case(
        "srun: error: _server_read: fd 18 error reading header: Connection reset by peer\n"
        "srun: error: step_launch_notify_io_failure: aborting, io error with slurmstepd on node 2\n"
        "srun: Job step aborted: Waiting up to 32 seconds for job step to finish.\n",
        "n002",
    ),
    "srun, a node takes no tasks": Case(
        "srun: error: Task launch for StepId=125452.4 failed on node n001: Communication connection failure\n", "n001"
    ),
    "srun, all ranks fail alike": Case(
        "srun: error: n000: task 0: Exited with exit code 1\nsrun: error: n002: task 2: Exited with exit code 1\n"
        "srun: error: n003: task 3: Exited with exit code 1\n",
        None,
        "exited with 1",
        failed=frozenset((0, 2, 3)),
    ),
    # PALS, on Aurora and Polaris
    "PALS, a shepherd was killed": Case(
        "x4117c0s6b0n0.hsn.cm.aurora.alcf.anl.gov: shepherd died from signal 9\n"
        "x4115c5s4b0n0.hsn.cm.aurora.alcf.anl.gov: rank 12 died from signal 15\n",
        "x4117c0s6b0n0",
        nodes=X,
        ppn=12,
    ),
    "PALS, only victims": Case(
        "x4115c5s4b0n0.hsn.cm.aurora.alcf.anl.gov: rank 12 died from signal 15\n", None, nodes=X, ppn=12
    ),
    "PALS, a silent node": Case("mpiexec: ping RPC timeout from x4406c6s7b0n0 after 120s\n", "x4406c6s7b0n0", nodes=X),
    "PALS, a rank aborted": Case(
        "x4406c6s7b0n0.hsn.cm.aurora.alcf.anl.gov: rank 7 died from signal 6 and dumped core\n",
        "x4406c6s7b0n0",
        "rank 7 on x4406c6s7b0n0 died from signal 6",
        nodes=X,
        ppn=3,
    ),
    "PALS, an exit code": Case(
        "x4115c5s4b0n0.hsn.cm: rank 1 exited with code 1\nx4117c0s6b0n0.hsn.cm: rank 0 died from signal 15\n",
        "x4115c5s4b0n0",
        nodes=X,
    ),
    "the words of the issue": Case("rank 7 (n003) died from signal 9\n", "n003", ppn=2),
    # Open MPI 4 and 5
    "Open MPI, a signal": Case(
        "mpirun noticed that process rank 2 with PID 0 on node n001 exited on signal 9 (Killed).\n", "n001", ppn=2
    ),
    "Open MPI, an exit code": Case(
        "mpirun detected that one or more processes exited with non-zero status, thus causing\n"
        "the job to be terminated. The first process to do so was:\n\n"
        "  Process name: [[17652,1],3]\n  Exit code:    3\n",
        "n003",
        "rank 3 on n003 exited with 3",
    ),
    "Open MPI 5": Case("   Process name: [prterun-n000-41@1,2]\n   Exit code:    1\n", "n002"),
    "Open MPI, a lost daemon": Case(
        "ORTE has lost communication with a remote daemon.\n\n"
        "  HNP daemon   : [[21234,0],0] on node n000\n  Remote daemon: [[21234,0],2] on node n002\n",
        "n002",
        "n002 was lost",
    ),
    # what ranks say
    "a GPU that is no good": Case(
        "1| torch.AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable\n"
        "0| RuntimeError: [1] is setting up NCCL communicator: Connection reset by peer\n"
        "x4117c0s6b0n0.hsn.cm: rank 0 exited with code 1\n",
        "x4115c5s4b0n0",
        nodes=X,
    ),
    "who only noticed is a victim": Case(
        "0| RuntimeError: Connection closed by peer [10.0.0.1]:53121\n"
        "srun: error: n000: task 0: Exited with exit code 1\n"
        "srun: error: n003: task 3: Exited with exit code 1\n",
        "n003",
    ),
    "a full disk, but nobody knows whose": Case("OSError: [Errno 28] No space left on device\n", None),
    "nothing": Case("all is well\n", None),
    "a range that is none": Case("error: x: task -: Killed\n", None),
    "more ranks than there are": Case("error: x: tasks 2-99999999: Killed\n", "n002", failed=frozenset((2, 3))),
    "a rank speaks of a node": Case("0| ssh: connect to host n003 port 22: Connection refused\n", None),
    "a stranger": Case("ssh: connect to host login1 port 22: Connection refused\n", None),
}


def heard(case: Case, *failures: FailureRule) -> FailureCause:
    analyzer = FailureAnalyzer(RankPlacement(case.nodes, case.ppn), case.ppn * len(case.nodes), failures)
    for line in case.said.splitlines():
        rank, bar, text = line.partition("| ")
        if bar and rank.isdigit():
            analyzer.feed(text, int(rank))
        else:
            analyzer.feed(line)
    return analyzer.cause()


SITES = {name: choose_site((), {}, wanted=name, directory="").failures for name in ("default", "aurora", "polaris")}


@pytest.mark.parametrize("failures", [(), *SITES.values()], ids=["alone", *SITES])
@pytest.mark.parametrize("name", CASES)
def test_who_is_to_blame_whatever_the_site_adds(name: str, failures: tuple[FailureRule, ...]) -> None:
    case = CASES[name]
    cause = heard(case, *failures)
    assert (cause.finding.node if cause.finding else None) == case.node
    assert case.words in str(cause.finding)
    if case.failed:
        assert cause.failed == case.failed


@pytest.mark.parametrize(
    "said",
    [
        "slurmstepd: error: *** STEP 3.0 ON n000 CANCELLED AT 2026-11-29T01:55:36 DUE TO TIME LIMIT ***",
        "=>> PBS: job killed: walltime 3642 exceeded limit 3600",
    ],
)
def test_the_time_is_over(said: str) -> None:
    cause = heard(Case(said, None))
    assert cause.time_over
    assert cause.finding is None
    assert heard(Case(f"0| {said}", None)).finding is None


def test_whoever_ends_because_the_run_was_asked_to_is_no_culprit() -> None:
    """As MPICH tells of a rank that our SIGTERM has ended, on a node that is as good as any."""
    analyzer = FailureAnalyzer(RankPlacement(NODES, 1), 4)
    analyzer.end_requested = True
    for line in HYDRA_BLOCK.splitlines():
        analyzer.feed(line)
    assert analyzer.cause() == FailureCause()
    analyzer.feed("slurmstepd: error: *** STEP 3.0 ON n000 CANCELLED AT 2026-11-29T01:55:36 DUE TO TIME LIMIT ***")
    assert analyzer.cause() == FailureCause(time_over=True)


def test_a_site_has_signs_of_its_own() -> None:
    case = Case(
        "NODEFAIL host=n002 op=gpu\n1| peer has left\nsrun: error: n001: task 1: Exited with exit code 1\n", None
    )
    signs = (
        FailureRule(r"NODEFAIL host=(?P<host>\S+)", "a GPU fell off"),
        FailureRule("peer has left", "", is_cause=False),
    )
    cause = heard(case, *signs)
    assert cause.finding is not None
    assert (cause.finding.node, cause.failed) == ("n002", frozenset())
    assert str(cause.finding).endswith("says: NODEFAIL host=n002 op=gpu (a GPU fell off)")


@pytest.mark.parametrize(
    ("said", "node"), [("bad card at rank 3", "n003"), ("bad card at rank x", None), ("1| bad card at rank x", "n001")]
)
def test_a_sites_sign_may_name_a_rank(said: str, node: str | None) -> None:
    finding = heard(Case(said, None), FailureRule(r"bad card at rank (?P<rank>\w+)", "bad card")).finding
    assert (finding.node if finding else None) == node


@pytest.mark.parametrize(
    ("said", "rank", "lost"),
    [
        ("ssh: connect to host n003 port 22: Connection refused", None, True),
        ("ssh: connect to host login1 port 22: Connection refused", None, False),
        ("ssh: connect to host n003 port 22: Connection refused", 1, False),
    ],
)
def test_only_the_launcher_knows_that_a_node_of_the_run_is_lost(said: str, rank: int | None, *, lost: bool) -> None:
    analyzer = FailureAnalyzer(RankPlacement(NODES, 1), 4)
    analyzer.feed(said, rank)
    assert analyzer.node_lost is lost


def test_a_flood_costs_little() -> None:
    analyzer = FailureAnalyzer(RankPlacement(NODES, 1), 4)
    for _ in range(5000):
        analyzer.feed("srun: error: n003: task 3: Exited with exit code 1")
    assert analyzer.cause().finding is not None
