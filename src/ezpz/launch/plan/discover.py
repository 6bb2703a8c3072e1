"""Discovery of everything that a plan depends on: nodes, site, accelerators, environment, and a free port."""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ezpz.cluster import addresses
from ezpz.cluster.detect_nodes import detect_nodes, installed_steps, job_system_of
from ezpz.cluster.schedulers.base import REAL, System
from ezpz.cluster.schedulers.hostfile import is_named
from ezpz.errors import SchedulerError
from ezpz.launch.launchers.base import PathTools, Tools
from ezpz.launch.plan import accelerators, usable_nodes
from ezpz.launch.plan.environment import find_environment
from ezpz.launch.plan.make_plan import make_plan
from ezpz.launch.plan.plan import Facts, LaunchPlan, LaunchRequest
from ezpz.launch.plan.rendezvous import choose_rendezvous
from ezpz.launch.plan.topology import NodeCapacity, NodeCount
from ezpz.launch.sites import site
from ezpz.remote.transports import transport_of_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.cluster.schedulers.base import JobSystem
    from ezpz.launch.plan.environment import RankEnvironment
    from ezpz.launch.plan.topology import RankRequest


@dataclass(frozen=True, slots=True)
class PlacementOptions:
    """What the user requested about where to run; None and () for what was not requested.

    Attributes:
        env: The path of a copy on the nodes.
        original: The source of the copy.
        failed: The nodes that a recent `ezpz yeet` did not reach; None to read its list.
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
    """The ports to this host and to the scheduler. The defaults are the real ones."""

    tools: Tools = field(default_factory=PathTools)
    system: System = REAL
    probe: accelerators.AcceleratorProbe = accelerators.REAL_PROBE
    rng: random.Random = field(default_factory=random.Random)
    exists: Callable[[str], bool] = os.path.exists
    hostname: Callable[[], str] = socket.gethostname


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """The facts for any number of plans, discovered once.

    Attributes:
        allocation: The nodes that may run ranks.
        hsn: The high-speed network, for the address of the first node of a plan.
    """

    request: LaunchRequest
    allocation: Allocation
    environ: Mapping[str, str]
    facts: Facts
    dependencies: LaunchDependencies
    hsn: str = addresses.AUTO

    def plan(self) -> LaunchPlan:
        """Return the plan for all nodes. Raise an EzpzError if the request does not fit."""
        return self._plan(self.request, self.allocation, self.environ)

    def replan(self, allocation: Allocation) -> LaunchPlan:
        """Return a plan of the same command for these nodes, without spares.

        The requested numbers of nodes are about the whole job. A MASTER_ADDR of the environment is about its first
        node, and is ignored if that node is not used.
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
    """Discover what a plan depends on. Raise an EzpzError if the nodes or the site do not exist."""
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
    """Discover and plan. Raise an EzpzError if the request does not fit."""
    return discover(request, placement, environ, dependencies).plan()


def find_nodes(
    placement: PlacementOptions,
    environ: Mapping[str, str],
    environment: RankEnvironment | None,
    dependencies: LaunchDependencies,
) -> usable_nodes.UsableNodes:
    """Return the nodes that may run ranks. Raise NodesOutside if the user names some outside of the job."""
    allocation = detect_nodes(
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
    """Return the nodes that the last `ezpz yeet` to this environment did not reach."""
    if allocation.local is not None or not environment.is_copy:
        return usable_nodes.read_failed_nodes(environment.prefix)
    return usable_nodes.query_failed_nodes(
        environment.prefix, allocation.nodes, dependencies.system.run, transport_of_job(environ)
    )


def _nodes_of_job(
    allocation: Allocation, placement: PlacementOptions, environ: Mapping[str, str], dependencies: LaunchDependencies
) -> Allocation:
    """Return the nodes that the user names with the names of the current job, unchanged outside of a job."""
    steps = [step for step in installed_steps([]) if step.in_job]
    try:
        job = detect_nodes(hsn=addresses.OFF, environ=environ, system=dependencies.system, steps=steps)
    except SchedulerError:
        return allocation
    named = (
        "--hosts" if placement.hosts is not None else f"the hostfile {placement.hostfile or environ.get('HOSTFILE')}"
    )
    nodes = usable_nodes.rename_to_job(allocation.nodes, job, named)
    return replace(allocation, nodes=_order_nodes(nodes, job, job_system_of(job, environ)))


def _order_nodes(nodes: tuple[Node, ...], job: Allocation, system: JobSystem | None) -> tuple[Node, ...]:
    """Return the nodes in the order in which ranks fill them. srun has an order of its own."""
    return usable_nodes.sort_like_job(nodes, job.nodes) if system is not None and system.keeps_order else nodes


def _node_capacity(
    rank_request: RankRequest,
    chosen: site.Site,
    allocation: Allocation,
    environ: Mapping[str, str],
    dependencies: LaunchDependencies,
) -> NodeCapacity:
    """Return the default number of ranks per node. It is not determined if the user's numbers are sufficient."""
    if rank_request.gpus_per_rank is None and (rank_request.ppn is not None or rank_request.nproc is not None):
        return NodeCapacity()
    system = job_system_of(allocation, environ)
    return accelerators.find_capacity(
        (chosen.name, chosen.accelerators), allocation, system, environ, dependencies.probe
    )


def _apply_cpu_bind(request: LaunchRequest, environ: Mapping[str, str]) -> LaunchRequest:
    """Return the request with the variable CPU_BIND, which scripts on many machines set, as --cpu-bind."""
    return request if request.cpu_bind is not None else replace(request, cpu_bind=environ.get("CPU_BIND") or None)
