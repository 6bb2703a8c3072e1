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
from ezpz.launch.plan.environment import find_home
from ezpz.launch.plan.plan import Facts, LaunchPlan, LaunchRequest, plan
from ezpz.launch.plan.rendezvous import rendezvous
from ezpz.launch.plan.topology import NodeCount, PerNode
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
    sight: accelerators.AcceleratorProbe = accelerators.REAL
    chance: random.Random = field(default_factory=random.Random)
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
    world: LaunchDependencies
    hsn: str = addresses.AUTO

    def plan(self) -> LaunchPlan:
        """The plan for all the nodes. Raises an EzpzError for whatever does not fit."""
        return self._plan(self.request, self.allocation, self.environ)

    def replan(self, allocation: Allocation) -> LaunchPlan:
        """The same command for these nodes and no spares: what was said of numbers of nodes is about the job.

        A MASTER_ADDR of the environment was about the job's first node.
        """
        nodes = _placed(allocation.nodes, self.allocation, job_system_of(self.allocation, self.environ))
        allocation = replace(allocation, nodes=nodes)
        wish = self.request.wish
        count = len(nodes)
        nhosts = NodeCount(min(wish.nhosts.least, count), count) if wish.nhosts else None
        request = replace(self.request, wish=replace(wish, nhosts=nhosts, spares=0))
        moved = nodes[0] != self.allocation.nodes[0]
        return self._plan(request, allocation, {**self.environ, "MASTER_ADDR": ""} if moved else self.environ)

    def _plan(self, request: LaunchRequest, allocation: Allocation, where: Mapping[str, str]) -> LaunchPlan:
        meeting = rendezvous(allocation.nodes, where, self.world.chance, hsn=self.hsn)
        facts = replace(self.facts, rendezvous=meeting)
        return plan(request, allocation, self.world.tools, environ=self.environ, facts=facts)


def look(
    request: LaunchRequest,
    question: PlacementOptions,
    environ: Mapping[str, str],
    world: LaunchDependencies | None = None,
) -> LaunchContext:
    """Look at what there is. Raises an EzpzError when there are no such nodes, or no such site."""
    world = world or LaunchDependencies()
    home = find_home(environ, question.env, world.exists, original=question.original)
    found = find_nodes(question, environ, home, world)
    allocation = found.allocation
    names = tuple(dict.fromkeys((world.hostname(), *(node.given for node in allocation.nodes[:1]))))
    chosen = site.choose(names, environ, wanted=question.site)
    facts = Facts(
        chosen,
        _per_node(request.wish, chosen, allocation, environ, world),
        home=home,
        left_out=found.left_out,
        evidence=(f"site {chosen.name}: {chosen.why}", *found.evidence),
        exists=world.exists,
    )
    return LaunchContext(_with_binding(request, environ), allocation, environ, facts, world, question.hsn)


def decide(
    request: LaunchRequest,
    question: PlacementOptions,
    environ: Mapping[str, str],
    world: LaunchDependencies | None = None,
) -> LaunchPlan:
    """Look at what there is, and decide. Raises an EzpzError for whatever does not fit."""
    return look(request, question, environ, world).plan()


def find_nodes(
    question: PlacementOptions, environ: Mapping[str, str], home: RankEnvironment | None, world: LaunchDependencies
) -> usable_nodes.UsableNodes:
    """The nodes that may run ranks. Raises NodesOutside when the user names some that are not the job's."""
    allocation = detect(
        hosts=question.hosts, hostfile=question.hostfile, hsn=question.hsn, environ=environ, system=world.system
    )
    if is_named(allocation):
        allocation = _of_job(allocation, question, environ, world)
    failed = question.failed
    if failed is None:
        failed = _failed(home, allocation, environ, world) if home else ()
    return usable_nodes.choose(allocation, exclude=question.exclude, failed=failed, place=home.prefix if home else "")


def _failed(
    home: RankEnvironment, allocation: Allocation, environ: Mapping[str, str], world: LaunchDependencies
) -> tuple[str, ...]:
    """The nodes that the last yeet to this place did not reach, wherever it has left its list."""
    if allocation.local is not None or not home.is_copy:
        return usable_nodes.read_failed(home.prefix)
    return usable_nodes.ask_failed(home.prefix, allocation.nodes, world.system.run, transport_of_job(environ))


def _of_job(
    allocation: Allocation, question: PlacementOptions, environ: Mapping[str, str], world: LaunchDependencies
) -> Allocation:
    """The nodes that the user names, as the job that we are in has them; as they are where there is no job."""
    steps = [step for step in installed_steps([]) if step.in_job]
    try:
        job = detect(hsn=addresses.OFF, environ=environ, system=world.system, steps=steps)
    except SchedulerError:
        return allocation
    named = "--hosts" if question.hosts is not None else f"the hostfile {question.hostfile or environ.get('HOSTFILE')}"
    nodes = usable_nodes.inside(allocation.nodes, job, named)
    return replace(allocation, nodes=_placed(nodes, job, job_system_of(job, environ)))


def _placed(nodes: tuple[Node, ...], job: Allocation, system: JobSystem | None) -> tuple[Node, ...]:
    """The nodes in the order in which ranks fill them: srun has one of its own, the others take ours."""
    return usable_nodes.in_order(nodes, job.nodes) if system is not None and system.keeps_order else nodes


def _per_node(
    wish: RankRequest, chosen: site.Site, allocation: Allocation, environ: Mapping[str, str], world: LaunchDependencies
) -> PerNode:
    """How many ranks a node takes; not looked for when the user's numbers say it all."""
    if wish.gpus_per_rank is None and (wish.ppn is not None or wish.nproc is not None):
        return PerNode()
    system = job_system_of(allocation, environ)
    return accelerators.per_node((chosen.name, chosen.accelerators), allocation, system, environ, world.sight)


def _with_binding(request: LaunchRequest, environ: Mapping[str, str]) -> LaunchRequest:
    """The request with CPU_BIND in place of --cpu-bind, as scripts on many machines set it."""
    return request if request.cpu_bind is not None else replace(request, cpu_bind=environ.get("CPU_BIND") or None)
