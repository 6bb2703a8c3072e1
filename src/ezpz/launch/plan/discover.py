"""Look at all that a plan depends on - nodes, site, accelerators, environment, a free port - and make it."""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ezpz.cluster import addresses
from ezpz.cluster.detect import detect, installed_steps, job_system_of
from ezpz.cluster.schedulers.base import REAL, System
from ezpz.cluster.schedulers.hostfile import is_named
from ezpz.errors import SchedulerError
from ezpz.launch.launchers.base import PathTools, Tools
from ezpz.launch.plan import accelerators, usable_nodes
from ezpz.launch.plan.environment import find_environment
from ezpz.launch.plan.plan import Facts, LaunchPlan, LaunchRequest, make_plan
from ezpz.launch.plan.rendezvous import choose_rendezvous
from ezpz.launch.plan.topology import NodeCapacity, NodeCount
from ezpz.launch.sites import site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.cluster.schedulers.base import JobSystem
    from ezpz.launch.plan.environment import RankEnvironment
    from ezpz.launch.plan.topology import RankRequest


@dataclass(frozen=True, slots=True)
class PlacementOptions:
    """What the user said about where to run; None and () where nothing was said.

    env: the place of a copy on the nodes; original: what it was made from
    failed: nodes that a yeet just now did not reach, None to read the list that the last one left
    """

    hosts: str | None = None
    hostfile: str | None = None
    hsn: str = addresses.AUTO
    exclude: tuple[str, ...] = ()
    env: str | None = None
    original: str = ""
    failed: tuple[str, ...] | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class LaunchDependencies:
    """The ports through which the world is seen; the defaults are the real ones."""

    tools: Tools = field(default_factory=PathTools)
    system: System = REAL
    probe: accelerators.AcceleratorProbe = accelerators.REAL_PROBE
    rng: random.Random = field(default_factory=random.Random)
    exists: Callable[[str], bool] = os.path.exists
    hostname: Callable[[], str] = socket.gethostname


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What was seen once, for any number of plans: the nodes that may run ranks, and the facts about them.

    hsn: as in the question, for the name of whatever node is the first one
    """

    request: LaunchRequest
    allocation: Allocation
    environ: Mapping[str, str]
    facts: Facts
    dependencies: LaunchDependencies
    hsn: str = addresses.AUTO

    def plan(self) -> LaunchPlan:
        """The plan for all the nodes. Raises an EzpzError for whatever does not fit."""
        return self._plan(self.request, self.allocation, self.environ)

    def replan(self, allocation: Allocation) -> LaunchPlan:
        """The same command for these nodes and no spares: what was said of numbers of nodes is about the job.

        A MASTER_ADDR of the environment was about the job's first node.
        """
        nodes = _order_nodes(allocation.nodes, self.allocation, job_system_of(self.allocation, self.environ))
        allocation = replace(allocation, nodes=nodes)
        rank_request = self.request.rank_request
        count = len(nodes)
        nhosts = NodeCount(min(rank_request.nhosts.minimum, count), count) if rank_request.nhosts else None
        request = replace(self.request, rank_request=replace(rank_request, nhosts=nhosts, spares=0))
        moved = nodes[0] != self.allocation.nodes[0]
        return self._plan(request, allocation, {**self.environ, "MASTER_ADDR": ""} if moved else self.environ)

    def _plan(self, request: LaunchRequest, allocation: Allocation, where: Mapping[str, str]) -> LaunchPlan:
        meeting = choose_rendezvous(allocation.nodes, where, self.dependencies.rng, hsn=self.hsn)
        facts = replace(self.facts, rendezvous=meeting)
        return make_plan(request, allocation, self.dependencies.tools, environ=self.environ, facts=facts)


def discover(
    request: LaunchRequest,
    placement: PlacementOptions,
    environ: Mapping[str, str],
    dependencies: LaunchDependencies | None = None,
) -> LaunchContext:
    """Look at what there is. Raises an EzpzError when there are no such nodes, or no such site."""
    dependencies = dependencies or LaunchDependencies()
    environment = find_environment(environ, placement.env, dependencies.exists, original=placement.original)
    found = find_nodes(placement, environ, environment, dependencies)
    allocation = found.allocation
    names = tuple(dict.fromkeys((dependencies.hostname(), *(node.given for node in allocation.nodes[:1]))))
    chosen = site.choose_site(names, environ, wanted=placement.site)
    facts = Facts(
        chosen,
        _node_capacity(request.rank_request, chosen, allocation, environ, dependencies),
        environment=environment,
        left_out=found.left_out,
        evidence=(f"site {chosen.name}: {chosen.why}", *found.evidence),
        exists=dependencies.exists,
    )
    return LaunchContext(_apply_cpu_bind(request, environ), allocation, environ, facts, dependencies, placement.hsn)


def make_launch_plan(
    request: LaunchRequest,
    placement: PlacementOptions,
    environ: Mapping[str, str],
    dependencies: LaunchDependencies | None = None,
) -> LaunchPlan:
    """Look at what there is, and decide. Raises an EzpzError for whatever does not fit."""
    return discover(request, placement, environ, dependencies).plan()


def find_nodes(
    placement: PlacementOptions,
    environ: Mapping[str, str],
    environment: RankEnvironment | None,
    dependencies: LaunchDependencies,
) -> usable_nodes.UsableNodes:
    """The nodes that may run ranks. Raises NodesOutside when the user names some that are not the job's."""
    allocation = detect(
        hosts=placement.hosts,
        hostfile=placement.hostfile,
        hsn=placement.hsn,
        environ=environ,
        system=dependencies.system,
    )
    if is_named(allocation):
        allocation = _nodes_of_job(allocation, placement, environ, dependencies)
    failed = placement.failed
    if failed is None:
        failed = _failed_nodes(environment, allocation, environ, dependencies) if environment else ()
    return usable_nodes.choose_nodes(
        allocation, exclude=placement.exclude, failed=failed, place=environment.prefix if environment else ""
    )


def _failed_nodes(
    environment: RankEnvironment, allocation: Allocation, environ: Mapping[str, str], dependencies: LaunchDependencies
) -> tuple[str, ...]:
    """The nodes that the last yeet to this place did not reach, wherever it has left its list."""
    if allocation.local is not None or not environment.is_copy:
        return usable_nodes.read_failed_nodes(environment.prefix)
    return usable_nodes.query_failed_nodes(
        environment.prefix, allocation.nodes, dependencies.system.run, srun="SLURM_JOB_ID" in environ
    )


def _nodes_of_job(
    allocation: Allocation, placement: PlacementOptions, environ: Mapping[str, str], dependencies: LaunchDependencies
) -> Allocation:
    """The nodes that the user names, as the job that we are in has them; as they are where there is no job."""
    steps = [step for step in installed_steps([]) if step.in_job]
    try:
        job = detect(hsn=addresses.OFF, environ=environ, system=dependencies.system, steps=steps)
    except SchedulerError:
        return allocation
    named = (
        "--hosts" if placement.hosts is not None else f"the hostfile {placement.hostfile or environ.get('HOSTFILE')}"
    )
    nodes = usable_nodes.rename_to_job(allocation.nodes, job, named)
    return replace(allocation, nodes=_order_nodes(nodes, job, job_system_of(job, environ)))


def _order_nodes(nodes: tuple[Node, ...], job: Allocation, system: JobSystem | None) -> tuple[Node, ...]:
    """The nodes in the order in which ranks fill them: srun has one of its own, the others take ours."""
    return usable_nodes.sort_like_job(nodes, job.nodes) if system is not None and system.keeps_order else nodes


def _node_capacity(
    rank_request: RankRequest,
    chosen: site.Site,
    allocation: Allocation,
    environ: Mapping[str, str],
    dependencies: LaunchDependencies,
) -> NodeCapacity:
    """How many ranks a node takes; not looked for when the user's numbers say it all."""
    if rank_request.gpus_per_rank is None and (rank_request.ppn is not None or rank_request.nproc is not None):
        return NodeCapacity()
    system = job_system_of(allocation, environ)
    return accelerators.capacity((chosen.name, chosen.accelerators), allocation, system, environ, dependencies.probe)


def _apply_cpu_bind(request: LaunchRequest, environ: Mapping[str, str]) -> LaunchRequest:
    """The request with CPU_BIND in place of --cpu-bind, as scripts on many machines set it."""
    return request if request.cpu_bind is not None else replace(request, cpu_bind=environ.get("CPU_BIND") or None)
