"""launch/plan/make_plan.py and launch/launchers/: pure, so every site is a table row."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.cluster.allocation import Allocation, Node
from ezpz.errors import LauncherMissing, UsageError
from ezpz.launch.launchers.base import HOSTFILE, Availability, Invocation, Launcher, LaunchSpec, Tools
from ezpz.launch.plan.environment import RankEnvironment
from ezpz.launch.plan.make_plan import make_plan
from ezpz.launch.plan.plan import Facts, LaunchPlan, LaunchRequest
from ezpz.launch.plan.rendezvous import Rendezvous
from ezpz.launch.plan.topology import NodeCount, RankRequest
from ezpz.launch.sites.site import Site

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
    options: tuple[str, ...] = (),
    cpu_bind: str | None = None,
    facts: Facts | None = None,
    **rank_request: Any,
) -> LaunchPlan:
    allocation = Allocation(scheduler, job_id, nodes(count, local=local))
    request = LaunchRequest(command, RankRequest(**rank_request), cpu_bind, options)
    return make_plan(request, allocation, tools, environ=environ or {}, facts=facts)


def bare(planned: LaunchPlan) -> tuple[str, ...]:
    """The command line without the wrapper around the command."""
    argv = planned.invocation.argv
    at = argv.index("sh")
    assert argv[at + 1] == "-c"
    assert argv[at + 3] == "ezpz"
    return (*argv[:at], *argv[at + 4 :])


SRUN = FakeTools({"srun": "slurm 22.05.8", "mpiexec": HYDRA})
IN_JOB = {"SLURM_JOB_ID": "7"}


def test_srun_inside_a_slurm_job() -> None:
    planned = decide("slurm", SRUN, job_id="7", environ=IN_JOB, ppn=2)
    assert planned.launcher == "srun"
    assert planned.reason == "the nodes belong to Slurm's job 7"
    line = "srun --quit-on-interrupt -N 4 -n 8 --ntasks-per-node=2 -w n[000-003].site -- app -x"
    assert bare(planned) == tuple(line.split())


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
    assert planned.invocation.argv[planned.invocation.argv.index("-w") + 1] == "n000.site"


def test_only_the_nodes_that_get_ranks_are_named() -> None:
    planned = decide("slurm", SRUN, job_id="7", environ=IN_JOB, nproc=2)
    assert "n[000-001].site" in planned.invocation.argv
    assert len(planned.spec.allocation.nodes) == 2


@pytest.mark.parametrize(
    "tools", [FakeTools({"mpiexec": PALS}), FakeTools({"mpiexec": "version 1.7.1"}, "/opt/cray/pals/1.7/bin")]
)
def test_pals_under_pbs(tools: FakeTools) -> None:
    planned = decide("pbs", tools, job_id="1.server", ppn=12)
    assert planned.launcher == "pals"
    assert bare(planned) == tuple(f"mpiexec -n 48 --ppn 12 --hostfile {HOSTFILE} app -x".split())
    assert planned.invocation.hostfile == "n000.site\nn001.site\nn002.site\nn003.site\n"


@pytest.mark.parametrize("scheduler", ["pbs", "hosts", "hostfile", "slurm"])
def test_hydra_anywhere(scheduler: str) -> None:
    planned = decide(scheduler, FakeTools({"mpiexec": HYDRA}), count=2)
    assert planned.launcher == "hydra"
    assert bare(planned) == tuple(f"mpiexec -f {HOSTFILE} -n 2 -ppn 1 app -x".split())
    in_job = scheduler in ("pbs", "slurm")
    assert planned.invocation.hostfile == ("n000.site\nn001.site\n" if in_job else "n000-hsn0\nn001-hsn0\n")


def test_open_mpi_inside_a_job_gets_the_names_that_the_job_has() -> None:
    """With those of another network, an mpiexec that asks the scheduler says that they are not allocated."""
    planned = decide("hosts", FakeTools({"mpiexec": OPEN_MPI}), count=2, environ={"PBS_JOBID": "7"})
    assert planned.invocation.hostfile == "n000.site slots=1\nn001.site slots=1\n"


def test_open_mpi_counts_slots() -> None:
    planned = decide("hosts", FakeTools({"mpiexec": OPEN_MPI}), count=2, nproc=8)
    assert planned.launcher == "openmpi"
    assert bare(planned) == tuple(f"mpiexec --hostfile {HOSTFILE} -n 8 --map-by ppr:4:node app -x".split())
    assert planned.invocation.hostfile == "n000-hsn0 slots=4\nn001-hsn0 slots=4\n"


@pytest.mark.parametrize("scheduler", ["localhost", "hosts", "hostfile"])
def test_this_host_alone_needs_no_launcher(scheduler: str) -> None:
    planned = decide(scheduler, FakeTools({"mpiexec": HYDRA}), count=1, local=1, nproc=2)
    assert planned.launcher == "local"
    assert planned.invocation.argv == ("app", "-x")
    assert [
        (rank["RANK"], rank["LOCAL_RANK"], rank["WORLD_SIZE"]) for rank in planned.invocation.rank_environments
    ] == [
        ("0", "0", "2"),
        ("1", "1", "2"),
    ]


def test_every_launcher_that_was_passed_over_says_why() -> None:
    assert decide("hosts", FakeTools({"mpiexec": OPEN_MPI}), count=2).evidence == (
        "--ppn 1: one rank a node",
        "-n 2: 2 nodes x 1",
        "srun: this is no Slurm job",
        "local: not all nodes are this host",
        "pals: this is no PBS job",
        "hydra: /usr/bin/mpiexec --version says 'mpiexec (Open MPI) 4.1.4', not HYDRA or Intel(R) MPI",
    )


@pytest.mark.parametrize(
    ("scheduler", "tools", "why"),
    [
        ("slurm", FakeTools(), "srun is not on PATH"),
        ("pbs", FakeTools(), "neither mpiexec nor mpirun is on PATH"),
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


def test_a_launcher_of_ones_own() -> None:
    class Aprun(Launcher):
        name = "aprun"
        order = 1

        def check_availability(self, job: LaunchSpec, tools: Tools, /) -> Availability:
            return Availability(is_available=True, why="because")

        def invocation(self, job: LaunchSpec) -> Invocation:
            return Invocation(("aprun", *job.command))

    allocation = Allocation("pbs", "1", nodes(2))
    planned = make_plan(LaunchRequest(("app",)), allocation, FakeTools(), environ={}, launchers=[Aprun()])
    assert planned.invocation.argv == ("aprun", "app")


def test_the_document_and_the_lines_say_the_same() -> None:
    planned = decide("hosts", FakeTools({"mpiexec": HYDRA}), ppn=2)
    document = planned.to_dict()
    assert document["schema"] == "ezpz/launch/2"
    assert (document["launcher"], document["ranks"], document["ppn"]) == ("hydra", 8, 2)
    assert document["nodes"] == ["n000", "n001", "n002", "n003"]
    assert document["line"] == planned.line
    *lines, last = planned.to_lines()
    assert "\n".join(lines) == (
        "nodes     n[000-003] (4)\n"
        "ranks     8, 2 a node\n"
        "site      default: \n"
        "launcher  hydra: /usr/bin/mpiexec --version says HYDRA"
    )
    assert last == f"command   {planned.line}"
    assert planned.line.startswith("hosts=$(mktemp) && printf '%s\\n' n000-hsn0 n001-hsn0 n002-hsn0 n003-hsn0 > ")


def test_options_of_the_site_come_before_those_of_the_user() -> None:
    facts = Facts(Site("s", options={"pals": ("--envall",)}, cpu_bind={"pals": {"2": "depth --depth=8"}}))
    planned = decide("pbs", FakeTools({"mpiexec": PALS}), ppn=2, options=("--no-vni", "--label"), facts=facts)
    line = f"mpiexec -n 8 --ppn 2 --hostfile {HOSTFILE} --envall --no-vni --label --cpu-bind=depth --depth=8 app -x"
    assert bare(planned) == tuple(line.split())


@pytest.mark.parametrize(
    ("scheduler", "tools", "words"),
    [
        ("pbs", FakeTools({"mpiexec": PALS}), ("--cpu-bind=cores",)),
        ("slurm", SRUN, ("--cpu-bind=cores",)),
        ("hosts", FakeTools({"mpiexec": HYDRA}), ("-bind-to", "cores")),
        ("hosts", FakeTools({"mpiexec": OPEN_MPI}), ("--bind-to", "cores")),
    ],
)
@pytest.mark.parametrize("given", ["cores", "--cpu-bind=cores", "--cpu-bind cores", "-bind-to cores", " cores "])
def test_a_binding_is_said_in_the_words_of_the_launcher(
    scheduler: str, tools: FakeTools, words: tuple[str, ...], given: str
) -> None:
    site = Site("s", cpu_bind={each: {"default": "none"} for each in ("pals", "srun", "hydra", "openmpi")})
    planned = decide(scheduler, tools, job_id="7", environ=IN_JOB, cpu_bind=given, facts=Facts(site))
    assert " ".join(words) in " ".join(bare(planned))
    assert "none" not in bare(planned)


@pytest.mark.parametrize("option", ["-bind-to", "--bind-to", "--cpu_bind=none"])
def test_a_binding_of_ones_own_keeps_that_of_the_site_away(option: str) -> None:
    facts = Facts(Site("s", cpu_bind={"hydra": {"default": "core"}}))
    planned = decide("hosts", FakeTools({"mpiexec": HYDRA}), options=(option, "none"), facts=facts)
    assert "core" not in bare(planned)


@pytest.mark.parametrize("mpiexec", [PALS, HYDRA, OPEN_MPI])
def test_a_binding_brings_further_words_along(mpiexec: str) -> None:
    planned = decide("pbs", FakeTools({"mpiexec": mpiexec}), cpu_bind="depth --depth=8")
    line = " ".join(bare(planned))
    assert "bind=depth --depth=8" in line or "bind-to depth --depth=8" in line
    nothing = decide("pbs", FakeTools({"mpiexec": mpiexec}), cpu_bind="")
    assert "bind" not in " ".join(bare(nothing))


def test_an_open_quote_in_a_binding_is_an_error_of_the_user() -> None:
    with pytest.raises(UsageError, match='--cpu-bind, or CPU_BIND "list:1\'": No closing quotation'):
        decide("pbs", FakeTools({"mpiexec": PALS}), cpu_bind="list:1'")


def test_a_launcher_can_be_chosen() -> None:
    both = FakeTools({"srun": "", "mpiexec": HYDRA})
    planned = make_plan(
        LaunchRequest(("app",), launcher="hydra"), Allocation("slurm", "7", nodes(2)), both, environ=IN_JOB
    )
    assert planned.launcher == "hydra"
    with pytest.raises(UsageError, match="--launcher 'jsrun': there is no such launcher") as caught:
        make_plan(LaunchRequest(("app",), launcher="jsrun"), Allocation("slurm", "7", nodes(2)), both, environ=IN_JOB)
    assert caught.value.hint == "choose one of: srun, local, pals, hydra, openmpi"
    with pytest.raises(LauncherMissing, match="openmpi: /usr/bin/mpiexec --version says 'HYDRA"):
        make_plan(LaunchRequest(("app",), launcher="openmpi"), Allocation("slurm", "7", nodes(2)), both, environ=IN_JOB)


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_a_job_of_this_host_alone_needs_no_launcher(scheduler: str) -> None:
    """As in a container, in which there is no srun. But an mpiexec that nobody knows is not passed over in silence."""
    planned = decide(scheduler, FakeTools(), count=1, local=1, nproc=2)
    assert (planned.launcher, planned.reason) == ("local", "this host is the only node, and no launcher is needed")
    assert decide(scheduler, FakeTools({"mpiexec": HYDRA}), count=1, local=1).launcher == "hydra"
    strange = FakeTools({"mpiexec": "What?"})
    with pytest.raises(LauncherMissing, match="local: there is mpiexec, and --launcher does not say local"):
        decide(scheduler, strange, count=1, local=1)
    alone = Allocation(scheduler, "7", nodes(1, local=1))
    assert make_plan(LaunchRequest(("app",), launcher="local"), alone, strange, environ={}).launcher == "local"


def test_a_lone_colon_is_the_commands_and_no_launcher_sees_it() -> None:
    planned = decide("hosts", FakeTools({"mpiexec": HYDRA}), command=("app", "a b", ":", "c"))
    argv = planned.invocation.argv
    assert ":" not in argv
    assert argv[-1] == "ezpz"
    assert "set -- app 'a b' : c; " in argv[-2]


def test_the_line_that_is_shown_labels_if_the_run_does() -> None:
    planned = decide("slurm", SRUN, job_id="7", environ=IN_JOB).with_labels()
    assert planned.invocation.argv[:2] == ("srun", "--label")
    assert planned.line.startswith("srun --label ")
    assert decide("localhost", FakeTools(), count=1, local=1).with_labels().invocation.argv == ("app", "-x")


def test_accelerators_are_slurms_to_give_or_ours() -> None:
    srun = decide("slurm", SRUN, job_id="7", environ=IN_JOB, ppn=2, gpus_per_rank=2)
    assert "--gpus-per-task=2" in srun.invocation.argv
    assert "CUDA_VISIBLE_DEVICES" not in " ".join(srun.invocation.argv)
    pals = decide("pbs", FakeTools({"mpiexec": PALS}), ppn=2, gpus_per_rank=2)
    assert "CUDA_VISIBLE_DEVICES=$((LOCAL_RANK*2)),$((LOCAL_RANK*2+1))" in " ".join(pals.invocation.argv)
    local = decide("localhost", FakeTools(), count=1, local=1, nproc=2, gpus_per_rank=2)
    assert [own["CUDA_VISIBLE_DEVICES"] for own in local.invocation.rank_environments] == ["0,1", "2,3"]


def test_what_accelerators_need_besides_comes_with_them() -> None:
    facts = Facts(Site("s", visible_devices="ZE_AFFINITY_MASK", device_variables={"ZE_FLAT_DEVICE_HIERARCHY": "FLAT"}))
    pals = FakeTools({"mpiexec": PALS})
    line = " ".join(decide("pbs", pals, gpus_per_rank=1, facts=facts).invocation.argv)
    assert "export ZE_FLAT_DEVICE_HIERARCHY=FLAT; " in line
    assert "ZE_AFFINITY_MASK=$((LOCAL_RANK*1))" in line
    assert "ZE_" not in " ".join(decide("pbs", pals, facts=facts).invocation.argv)
    (own,) = decide(
        "localhost", FakeTools(), count=1, local=1, gpus_per_rank=1, facts=facts
    ).invocation.rank_environments
    assert (own["ZE_FLAT_DEVICE_HIERARCHY"], own["ZE_AFFINITY_MASK"]) == ("FLAT", "0")


def test_open_mpi_is_told_each_variable_but_those_of_this_host() -> None:
    environ = {"PYTHONPATH": "/x", "HF_TOKEN": "secret-value", "HOSTNAME": "n", "SSH_TTY": "t", "BASH_FUNC_x%%": "()"}
    argv = decide("hosts", FakeTools({"mpiexec": OPEN_MPI}), environ=environ).invocation.argv
    at = argv.index("-x")
    assert argv[at : at + 5] == ("-x", "HF_TOKEN", "-x", "PYTHONPATH", "sh")


def test_where_ranks_meet_is_told_to_all() -> None:
    facts = Facts(rendezvous=Rendezvous("n000-hsn0", 23456))
    planned = decide("hosts", FakeTools({"mpiexec": HYDRA}), facts=facts)
    assert "export MASTER_ADDR=n000-hsn0; export MASTER_PORT=23456" in " ".join(planned.invocation.argv)
    assert planned.to_dict()["environment"] == {"MASTER_ADDR": "n000-hsn0", "MASTER_PORT": "23456"}
    local = decide("localhost", FakeTools(), count=1, local=1, facts=facts)
    assert local.invocation.rank_environments[0]["MASTER_PORT"] == "23456"


def test_python_is_the_environments() -> None:
    active = Facts(
        environment=RankEnvironment("/lus/env", "VIRTUAL_ENV"), exists=lambda path: path == "/lus/env/bin/python3"
    )
    planned = decide("hosts", FakeTools({"mpiexec": HYDRA}), command=("python3", "-m", "x"), facts=active)
    assert bare(planned)[-3:] == ("/lus/env/bin/python3", "-m", "x")
    assert "export VIRTUAL_ENV=/lus/env PATH=/lus/env/bin:" in " ".join(planned.invocation.argv)
    copy = Facts(environment=RankEnvironment("/tmp/env", original="/lus/env"), exists=lambda _: False)
    planned = decide("hosts", FakeTools({"mpiexec": HYDRA}), command=("/lus/env/bin/tool",), facts=copy)
    assert bare(planned)[-1] == "/tmp/env/bin/tool"
    assert ". /tmp/env/env.sh" in " ".join(planned.invocation.argv)


def test_ranks_of_this_host_are_wrapped_only_in_a_copy() -> None:
    facts = Facts(environment=RankEnvironment("/tmp/env"))
    planned = decide("localhost", FakeTools(), count=1, local=1, command=("python",), facts=facts)
    assert bare(planned) == ("/tmp/env/bin/python",)
    with pytest.raises(UsageError, match="--foo is no option of ours"):
        decide("localhost", FakeTools(), count=1, local=1, options=("--foo",))
    assert "ignored" in decide("localhost", FakeTools(), count=1, local=1, cpu_bind="core").warnings[0]


def test_spares_are_named() -> None:
    planned = decide("hosts", FakeTools({"mpiexec": HYDRA}), nhosts=NodeCount(2, 3))
    assert [node.name for node in planned.spares] == ["n003"]
    assert planned.to_dict()["spares"] == ["n003"]
    assert "n[000-002] (3), spare: n003" in planned.to_lines()[0]


def test_mpirun_stands_in_for_mpiexec() -> None:
    assert decide("hosts", FakeTools({"mpirun": OPEN_MPI})).invocation.argv[0] == "mpirun"
    assert decide("hosts", FakeTools({"mpirun": OPEN_MPI, "mpiexec": HYDRA})).invocation.argv[0] == "mpiexec"


def test_no_secret_is_shown() -> None:
    environ = {"HF_TOKEN": "hf_0123456789"}
    planned = decide(
        "hosts", FakeTools({"mpiexec": HYDRA}), environ=environ, command=("app", "--auth", "hf_0123456789")
    )
    assert "hf_0123456789" in planned.invocation.argv
    assert "hf_0123456789" not in json.dumps(planned.to_dict())
    assert planned.line.endswith('app --auth "${HF_TOKEN}"')
