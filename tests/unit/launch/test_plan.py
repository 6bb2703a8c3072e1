"""launch/plan.py and launchers.py: pure, so every site is a table row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.cluster.model import Allocation, Node
from ezpz.errors import LauncherMissing, UsageError
from ezpz.launch.launchers import HOSTFILE, Invocation, Job, Tools, Verdict
from ezpz.launch.plan import LaunchPlan, LaunchRequest, plan, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

PALS = "mpiexec PALS 1.4.0 revision abc"
HYDRA = "HYDRA build details:\n    Version: 4.0.2\n"
OPEN_MPI = "mpiexec (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n"


@dataclass
class FakeTools:
    """Programs that exist by word of mouth: name -> what --version prints."""

    versions: Mapping[str, str] = field(default_factory=dict)
    directory: str = "/usr/bin"

    def path(self, name: str) -> str:
        """Where it is said to be."""
        return f"{self.directory}/{name}" if name in self.versions else ""

    def version(self, name: str) -> str:
        """What it is said to print."""
        return self.versions[name]


def nodes(count: int, *, local: int = 0) -> tuple[Node, ...]:
    names = [f"n{number:03}" for number in range(count)]
    return tuple(Node(name, f"{name}-hsn0", f"{name}.site", is_local=i < local) for i, name in enumerate(names))


def decide(
    scheduler: str,
    tools: Tools,
    *,
    count: int = 4,
    local: int = 0,
    job_id: str | None = None,
    environ: Mapping[str, str] | None = None,
    command: tuple[str, ...] = ("app", "-x"),
    nproc: int | None = None,
    ppn: int | None = None,
) -> LaunchPlan:
    allocation = Allocation(scheduler, job_id, nodes(count, local=local))
    return plan(LaunchRequest(command, nproc, ppn), allocation, tools, environ=environ or {})


SRUN = FakeTools({"srun": "slurm 22.05.8", "mpiexec": HYDRA})
IN_JOB = {"SLURM_JOB_ID": "7"}


def test_srun_inside_a_slurm_job() -> None:
    planned = decide("slurm", SRUN, job_id="7", environ=IN_JOB, ppn=2)
    assert planned.launcher == "srun"
    assert planned.reason == "the nodes belong to Slurm's job 7"
    line = "srun --quit-on-interrupt -N 4 -n 8 --ntasks-per-node=2 -w n[000-003] -- app -x"
    assert planned.invocation == Invocation(tuple(line.split()))


def test_srun_inside_a_step_overlaps_it() -> None:
    assert "--overlap" in decide("slurm", SRUN, job_id="7", environ=IN_JOB | {"SLURM_STEP_ID": "0"}).invocation.argv


def test_srun_from_a_login_node_reaches_into_the_job() -> None:
    argv = decide("slurm", SRUN, job_id="7").invocation.argv
    assert "--jobid=7" in argv
    assert "--overlap" in argv
    assert "--jobid=7" in decide("slurm", SRUN, job_id="7", environ={"SLURM_JOB_ID": "6"}).invocation.argv


def test_hosts_chosen_among_those_of_a_slurm_job_go_through_srun() -> None:
    planned = decide("hosts", SRUN, environ=IN_JOB, count=1)
    assert planned.launcher == "srun"
    assert "--jobid=7" not in planned.invocation.argv
    assert planned.invocation.argv[planned.invocation.argv.index("-w") + 1] == "n000"


def test_only_the_nodes_that_get_ranks_are_named() -> None:
    planned = decide("slurm", SRUN, job_id="7", environ=IN_JOB, nproc=2)
    assert "n[000-001]" in planned.invocation.argv
    assert len(planned.job.allocation.nodes) == 2


@pytest.mark.parametrize(
    "tools", [FakeTools({"mpiexec": PALS}), FakeTools({"mpiexec": "version 1.7.1"}, "/opt/cray/pals/1.7/bin")]
)
def test_pals_under_pbs(tools: FakeTools) -> None:
    planned = decide("pbs", tools, job_id="1.server", ppn=12)
    assert planned.launcher == "pals"
    assert planned.invocation.argv == tuple(f"mpiexec -n 48 --ppn 12 --hostfile {HOSTFILE} --envall app -x".split())
    assert planned.invocation.hostfile == "n000.site\nn001.site\nn002.site\nn003.site\n"


@pytest.mark.parametrize("scheduler", ["pbs", "hosts", "hostfile", "slurm"])
def test_hydra_anywhere(scheduler: str) -> None:
    planned = decide(scheduler, FakeTools({"mpiexec": HYDRA}), count=2)
    assert planned.launcher == "hydra"
    assert planned.invocation.argv == tuple(f"mpiexec -f {HOSTFILE} -n 2 -ppn 1 app -x".split())
    assert planned.invocation.hostfile == "n000-hsn0\nn001-hsn0\n"


def test_open_mpi_counts_slots() -> None:
    planned = decide("hosts", FakeTools({"mpiexec": OPEN_MPI}), count=2, nproc=8)
    assert planned.launcher == "openmpi"
    assert planned.invocation.argv == tuple(f"mpiexec --hostfile {HOSTFILE} -n 8 --map-by ppr:4:node app -x".split())
    assert planned.invocation.hostfile == "n000-hsn0 slots=4\nn001-hsn0 slots=4\n"


@pytest.mark.parametrize("scheduler", ["localhost", "hosts", "hostfile"])
def test_this_host_alone_needs_no_launcher(scheduler: str) -> None:
    planned = decide(scheduler, FakeTools({"mpiexec": HYDRA}), count=1, local=1, nproc=2)
    assert planned.launcher == "local"
    assert planned.invocation.argv == ("app", "-x")
    assert [(rank["RANK"], rank["LOCAL_RANK"], rank["WORLD_SIZE"]) for rank in planned.invocation.ranks] == [
        ("0", "0", "2"),
        ("1", "1", "2"),
    ]


def test_every_launcher_that_was_passed_over_says_why() -> None:
    assert decide("hosts", FakeTools({"mpiexec": OPEN_MPI}), count=2).evidence == (
        "srun: this is no Slurm job",
        "local: not all nodes are this host",
        "pals: this is no PBS job",
        "hydra: /usr/bin/mpiexec --version says 'mpiexec (Open MPI) 4.1.4', not HYDRA or Intel(R) MPI",
    )


@pytest.mark.parametrize(
    ("scheduler", "tools", "why"),
    [
        ("slurm", FakeTools(), "srun is not on PATH"),
        ("pbs", FakeTools(), "mpiexec is not on PATH"),
        ("hosts", FakeTools({"mpiexec": ""}), "says 'nothing', not HYDRA"),
    ],
)
def test_no_launcher_is_an_error_that_says_what_was_tried(scheduler: str, tools: FakeTools, why: str) -> None:
    with pytest.raises(LauncherMissing, match="can start ranks on n\\[000-003\\]") as caught:
        decide(scheduler, tools)
    assert why in caught.value.message
    assert "load the module" in caught.value.hint


def test_a_command_that_looks_like_an_option_is_refused() -> None:
    with pytest.raises(UsageError, match="'--version' looks like an option"):
        decide("hosts", FakeTools({"mpiexec": HYDRA}), command=("--version",))


def test_a_command_that_looks_like_the_hostfile_stays_itself() -> None:
    argv = decide("hosts", FakeTools({"mpiexec": HYDRA}), command=("cat", HOSTFILE)).invocation.argv
    assert argv.index(HOSTFILE) == 2
    assert argv[-1] == HOSTFILE


@pytest.mark.parametrize(
    ("count", "nproc", "ppn", "spreads"),
    [
        (4, None, None, (4, 1)),
        (4, None, 12, (48, 12)),
        (4, 8, None, (8, 2)),
        (4, 2, None, (2, 1)),
        (4, 10, 3, (10, 3)),
        (4, 3, 3, (3, 3)),
        (1, 7, None, (7, 7)),
    ],
)
def test_spread(count: int, nproc: int | None, ppn: int | None, spreads: tuple[int, int]) -> None:
    assert spread(LaunchRequest(("x",), nproc, ppn), count) == spreads


def test_numbers_that_do_not_fit_are_shown_as_a_sum() -> None:
    with pytest.raises(UsageError, match="-n 10 does not fit with --ppn 2: 4 nodes x 2 = 8 < 10"):
        spread(LaunchRequest(("x",), 10, 2), 4)
    with pytest.raises(UsageError, match="4 nodes x 2 = 8, 4 nodes x 3 = 12") as caught:
        spread(LaunchRequest(("x",), 10), 4)
    assert caught.value.hint == "add --ppn 3 to fill the nodes one after another"


counts = st.integers(1, 5000)


@given(count=counts, nproc=st.none() | counts, ppn=st.none() | st.integers(1, 128))
def test_what_is_spread_always_fits(count: int, nproc: int | None, ppn: int | None) -> None:
    try:
        ranks, per_node = spread(LaunchRequest(("x",), nproc, ppn), count)
    except UsageError:
        return
    assert nproc in (None, ranks)
    assert ppn in (None, per_node)
    assert per_node >= 1
    assert ranks <= count * per_node


def test_a_launcher_of_ones_own() -> None:
    class Aprun:
        name = "aprun"

        def judge(self, job: Job, tools: Tools, /) -> Verdict:
            return Verdict(able=True, why="because")

        def invocation(self, job: Job) -> Invocation:
            return Invocation(("aprun", *job.command))

    allocation = Allocation("pbs", "1", nodes(2))
    planned = plan(LaunchRequest(("app",)), allocation, FakeTools(), environ={}, launchers=[Aprun()])
    assert planned.invocation.argv == ("aprun", "app")


def test_the_document_and_the_lines_say_the_same() -> None:
    planned = decide("hosts", FakeTools({"mpiexec": HYDRA}), ppn=2)
    document = planned.to_dict()
    assert document["schema"] == "ezpz/launch/1"
    assert (document["launcher"], document["ranks"], document["ppn"]) == ("hydra", 8, 2)
    assert document["nodes"] == ["n000", "n001", "n002", "n003"]
    assert "\n".join(planned.to_lines()) == (
        "nodes     n[000-003] (4)\n"
        "ranks     8, 2 a node\n"
        "launcher  hydra: /usr/bin/mpiexec --version says HYDRA\n"
        f"command   mpiexec -f {HOSTFILE} -n 8 -ppn 2 app -x"
    )
