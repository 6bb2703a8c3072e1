"""The whole discovery: the order, the evidence, deduplication and the addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ezpz.cluster.detect_nodes import detect_nodes
from ezpz.cluster.schedulers.base import DetectionContext, NodeDetector, NodesFound
from ezpz.errors import BadHostName, HostfileError, SchedulerError, UsageError
from tests.unit.cluster.fakes import STEPS, World, recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.cluster.allocation import Allocation

AUX = "/var/spool/pbs/aux"


def find(
    world: World,
    environ: Mapping[str, str] | None = None,
    *,
    hosts: str | None = None,
    hostfile: str | None = None,
    hsn: str = "auto",
) -> Allocation:
    return detect_nodes(
        hosts=hosts, hostfile=hostfile, hsn=hsn, environ=environ or {}, system=world.system(), steps=STEPS
    )


def everything() -> tuple[World, dict[str, str]]:
    """A world in which every step would find something, a different node each."""
    files = {"/opt": "opt", "/pbs": "pbs", "/env": "env", f"{AUX}/1.server": "spool\nme"}
    world = World("me", files).says("qstat", "2.s a b c d e f g h R 0 qstat/0+me/0\n").says("squeue", "4 squeue\n")
    environ = {"PBS_NODEFILE": "/pbs", "HOSTFILE": "/env", "PBS_JOBID": "1.server", "USER": "a"}
    return world, {**environ, "SLURM_JOB_NODELIST": "slurm", "SLURM_JOB_ID": "3"}


def test_the_order() -> None:
    world, environ = everything()
    assert find(world, environ, hosts="cli", hostfile="/opt").nodes[0].name == "cli"
    order = []
    order.append(find(world, environ, hostfile="/opt"))
    for variable in ("", "PBS_NODEFILE", "HOSTFILE", "PBS_JOBID", "USER", "SLURM_JOB_NODELIST"):
        environ.pop(variable, None)
        order.append(find(world, environ))
    world.programs.clear()
    order.append(find(world, environ))
    assert [allocation.nodes[0].name for allocation in order] == [
        *("opt", "pbs", "env", "spool", "qstat", "slurm", "squeue", "me")
    ]
    assert [allocation.scheduler for allocation in order] == [
        *("hostfile", "pbs", "hostfile", "pbs", "pbs", "slurm", "slurm", "localhost")
    ]
    assert [allocation.job_id for allocation in order] == [None, "1.server", None, "1.server", "2", "3", "4", None]


def test_evidence_has_a_line_for_each_step_tried_the_deciding_one_last() -> None:
    allocation = find(World("login1"), {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "3", "USER": "a"})
    assert allocation.evidence == (
        "--hosts: not given",
        "--hostfile: not given",
        "PBS_NODEFILE: not set",
        "HOSTFILE: not set",
        "PBS spool: PBS_JOBID is not set",
        "qstat: not on PATH",
        (
            "Slurm environment: 2 nodes of job 3, SLURM_JOB_NODELIST, set by salloc, sbatch or srun; "
            "all dialled by the given name (there is no <node>-hsn0)"
        ),
    )
    assert allocation.warnings == ()
    assert allocation.local is None


def test_this_host_alone_has_one_warning_that_says_what_was_noticed() -> None:
    world = World("login1").says("qstat", recorded("qstat-polaris"))
    allocation = find(world, {"USER": "alice", "PBS_NODEFILE": "/gone"})
    assert [node.name for node in allocation.nodes] == ["login1"]
    assert allocation.local == allocation.nodes[0]
    (warning,) = allocation.warnings
    assert "login1" in warning
    assert "/gone" in warning
    assert "337374 on 4 nodes" in warning


@pytest.mark.parametrize("me", ["x4114c1s6b0n0", "x4114c1s6b0n0-hsn0", "x4114c1s6b0n0.hsn.cm.aurora.alcf.anl.gov"])
def test_this_host_is_known_under_any_name_and_keeps_its_given_one(me: str) -> None:
    world = World(
        me, {"/n": recorded("nodefile-aurora")}, names=frozenset({"x4114c1s6b0n0-hsn0", "x4114c1s7b0n0-hsn0"})
    )
    allocation = find(world, {"PBS_NODEFILE": "/n"})
    assert [node.is_local for node in allocation.nodes] == [False, True, False]
    fqdn = "x4114c1s{}b0n0.hostmgmt2.cm.aurora.alcf.anl.gov"
    assert [node.address for node in allocation.nodes] == ["x4114c1s7b0n0-hsn0", fqdn.format(6), fqdn.format(5)]
    assert [node.given for node in allocation.nodes] == [fqdn.format(n) for n in (7, 6, 5)]
    assert [node.name for node in allocation.nodes] == ["x4114c1s7b0n0", "x4114c1s6b0n0", "x4114c1s5b0n0"]


def test_nodes_are_deduplicated_by_short_name_in_order() -> None:
    allocation = find(World("login1"), hosts="n2,n1,n2-hsn0,n1.cluster,N2.cluster,n3")
    assert [node.given for node in allocation.nodes] == ["n2", "n1", "n3"]


def test_this_host_counts_once_under_two_names() -> None:
    allocation = find(World("n1"), hosts="n1,localhost,n2")
    assert [node.name for node in allocation.nodes] == ["n1", "n2"]


def test_node1_is_not_node11() -> None:
    allocation = find(World("node11"), hosts="node1,node11")
    assert [node.is_local for node in allocation.nodes] == [False, True]


def test_a_missing_suffix_is_one_warning() -> None:
    allocation = find(World("login1", names=frozenset({"n2-hsn1"})), hosts="n[1-3]", hsn="-hsn1")
    assert [node.address for node in allocation.nodes] == ["n1", "n2-hsn1", "n3"]
    assert allocation.warnings == (
        "--hsn -hsn1: 2 of 3 nodes dialled by their given name, n[1,3] (there is no <node>-hsn1)",
    )


def test_bad_input_is_refused() -> None:
    with pytest.raises(UsageError, match="--hosts"):
        find(World(), hosts="n[1-")
    with pytest.raises(BadHostName, match="--hosts"):
        find(World(), hosts="-oProxyCommand=id")
    with pytest.raises(UsageError, match="--hsn"):
        find(World(), hsn="fast")
    with pytest.raises(HostfileError, match="/none"):
        find(World(), hostfile="/none")
    with pytest.raises(HostfileError, match="/none"):
        find(World(), {"HOSTFILE": "/none"})
    with pytest.raises(BadHostName, match=r"/bad:2: the host name 'a;b'"):
        find(World(files={"/bad": "ok\na;b\n"}), hostfile="/bad")


def test_a_third_partys_step_is_no_less_and_its_names_are_checked() -> None:
    def lsf(context: DetectionContext) -> NodesFound:
        return NodesFound("lsf", "9", tuple(context.environ["LSB_HOSTS"].split(",")), "LSB_HOSTS")

    steps = (*STEPS, NodeDetector(65, "LSF", lsf))
    world = World("login1")
    allocation = detect_nodes(environ={"LSB_HOSTS": "n1,n2"}, system=world.system(), steps=steps)
    assert (allocation.scheduler, len(allocation.nodes)) == ("lsf", 2)
    with pytest.raises(BadHostName, match="LSF"):
        detect_nodes(environ={"LSB_HOSTS": "n1,-x"}, system=world.system(), steps=steps)


def test_no_scheduler_installed_is_an_error() -> None:
    with pytest.raises(SchedulerError, match="no step found"):
        detect_nodes(environ={}, system=World().system(), steps=())


def test_4096_nodes() -> None:
    world = World("x0001c0s0b0n0", {"/n": "".join(f"x{n:04}c0s0b0n0.site\n" * 104 for n in range(4096))})
    assert len(find(world, {"PBS_NODEFILE": "/n"}).nodes) == 4096
