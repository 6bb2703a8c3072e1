"""launch/look.py: which of the nodes, in which order, and what is planned again after a failure. Ports are fakes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ezpz.cluster.schedulers.base import System
from ezpz.launch.plan.accelerators import AcceleratorProbe
from ezpz.launch.plan.discover import LaunchContext, LaunchDependencies, PlacementOptions, discover
from ezpz.launch.plan.plan import LaunchPlan, LaunchRequest
from tests.unit.launch.plan.test_make_plan import HYDRA, FakeTools
from tests.unit.launch.test_golden import missing

if TYPE_CHECKING:
    from collections.abc import Mapping

SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "N[1-4]"}
PBS = {"PBS_JOBID": "7.server", "PBS_NODEFILE": "/nodefile"}


def outlook(environ: Mapping[str, str], *, local: str = "n9", hosts: str | None = None) -> LaunchContext:
    """What is seen from a host, in a job of four."""
    system = System(
        run=missing,
        hostname=lambda: local,
        local_names=lambda: frozenset((local, "localhost")),
        resolve=lambda _: (),
        read=lambda _: b"n1.site\nn2.site\nn3.site\nn4.site\n",
    )
    tools = FakeTools({"srun": ""} if "SLURM_JOB_ID" in environ else {"mpiexec": HYDRA})
    dependencies = LaunchDependencies(
        tools,
        system,
        AcceleratorProbe(lambda: "", lambda: (), lambda: 1),
        random.Random(0),
        lambda _: False,
        lambda: local,
    )
    everything = {"HOME": "/nonexistent", "MASTER_PORT": "29500", **environ}
    return discover(LaunchRequest(("app",)), PlacementOptions(hosts, hsn="off"), everything, dependencies)


def shown(plan: LaunchPlan) -> tuple[str, list[str]]:
    """Where ranks meet, and the nodes in the order of the ranks."""
    return plan.variables["MASTER_ADDR"], [node.name for node in plan.spec.allocation.nodes]


def test_srun_fills_nodes_in_the_order_of_the_job_whatever_the_user_says() -> None:
    planned = outlook(SLURM, hosts="n3,n1").plan()
    assert shown(planned) == ("n1", ["n1", "n3"])
    assert planned.invocation.argv[planned.invocation.argv.index("-w") + 1] == "N[1,3]"


def test_other_launchers_take_the_order_of_the_user_and_the_names_of_the_job() -> None:
    planned = outlook(PBS, hosts="n3,localhost", local="n1").plan()
    assert planned.invocation.hostfile == "n3.site\nn1.site\n"
    assert shown(planned) == ("n3", ["n3", "n1"])


@pytest.mark.parametrize(("environ", "order"), [(SLURM, ["n2", "n3", "n4"]), (PBS, ["n4", "n2", "n3"])])
def test_after_a_failure_ranks_meet_on_the_first_node_again(environ: Mapping[str, str], order: list[str]) -> None:
    """A spare takes the place of the first node; only srun has its own mind about places."""
    seen = outlook({**environ, "MASTER_ADDR": "10.0.0.1"})
    assert shown(seen.plan())[0] == "10.0.0.1"
    nodes = seen.allocation.nodes
    address, names = shown(seen.replan(replace(seen.allocation, nodes=(nodes[3], nodes[1], nodes[2]))))
    assert names == order
    assert address.lower().partition(".")[0] == order[0]
    assert shown(seen.replan(replace(seen.allocation, nodes=nodes[:3])))[0] == "10.0.0.1"
