"""Look at all that a plan depends on - nodes, site, accelerators, environment, a free port - and make it."""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ezpz.cluster import network
from ezpz.cluster.detect import detect, installed_steps
from ezpz.cluster.hostnames import expand, fold
from ezpz.cluster.steps import REAL, System
from ezpz.errors import SchedulerError
from ezpz.launch import accelerators, roster, site
from ezpz.launch.home import find_home
from ezpz.launch.launchers import Tools, scheduler_of
from ezpz.launch.plan import Facts, LaunchPlan, LaunchRequest, plan
from ezpz.launch.rendezvous import rendezvous
from ezpz.launch.run import PathTools
from ezpz.launch.topology import NodeCount, PerNode, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.cluster.model import Allocation, Node
    from ezpz.launch.home import Home
    from ezpz.launch.topology import Wish


@dataclass(frozen=True, slots=True)
class Question:
    """What the user said about where to run; None and () where nothing was said.

    env: the place of a copy on the nodes; original: what it was made from
    failed: nodes that a yeet just now did not reach, None to read the list that the last one left
    """

    hosts: str | None = None
    hostfile: str | None = None
    hsn: str = network.AUTO
    exclude: tuple[str, ...] = ()
    env: str | None = None
    original: str = ""
    failed: tuple[str, ...] | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """The ports through which the world is seen; the defaults are the real ones."""

    tools: Tools = field(default_factory=PathTools)
    system: System = REAL
    sight: accelerators.Sight = accelerators.REAL
    chance: random.Random = field(default_factory=random.Random)
    exists: Callable[[str], bool] = os.path.exists
    hostname: Callable[[], str] = socket.gethostname


@dataclass(frozen=True, slots=True)
class Outlook:
    """What was seen once, for any number of plans: the nodes that may run ranks, and the facts about them.

    hsn: as in the question, for the name of whatever node is the first one
    """

    request: LaunchRequest
    allocation: Allocation
    environ: Mapping[str, str]
    facts: Facts
    world: World
    hsn: str = network.AUTO

    def plan(self) -> LaunchPlan:
        """The plan for all the nodes. Raises an EzpzError for whatever does not fit."""
        return self._plan(self.request, self.allocation)

    def replan(self, allocation: Allocation) -> LaunchPlan:
        """The same command for these nodes and no spares: what was said of numbers of nodes is about the job."""
        wish = self.request.wish
        count = len(allocation.nodes)
        nhosts = NodeCount(min(wish.nhosts.least, count), count) if wish.nhosts else None
        return self._plan(replace(self.request, wish=replace(wish, nhosts=nhosts, spares=0)), allocation)

    def _plan(self, request: LaunchRequest, allocation: Allocation) -> LaunchPlan:
        if scheduler_of(allocation, self.environ) == "slurm":
            used = spread(request.wish, len(allocation.nodes), self.facts.per_node).nodes
            allocation = replace(allocation, nodes=_as_slurm_does(allocation.nodes, used))
        meeting = rendezvous(allocation.nodes, self.environ, self.world.chance, hsn=self.hsn)
        facts = replace(self.facts, rendezvous=meeting)
        return plan(request, allocation, self.world.tools, environ=self.environ, facts=facts)


def _as_slurm_does(nodes: tuple[Node, ...], used: int) -> tuple[Node, ...]:
    """The nodes with the `used` ones by name: srun gives the first rank to the first by name, in whatever order it is
    told them. So MASTER_ADDR is where rank 0 is, also with --hosts n3,n1 or when a spare takes the place of n1.
    """
    by_name = {node.name: node for node in nodes[:used]}
    return (*(by_name[name] for name in expand(fold(by_name))), *nodes[used:])


def look(request: LaunchRequest, question: Question, environ: Mapping[str, str], world: World | None = None) -> Outlook:
    """Look at what there is. Raises an EzpzError when there are no such nodes, or no such site."""
    world = world or World()
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
    return Outlook(_with_binding(request, environ), allocation, environ, facts, world, question.hsn)


def decide(
    request: LaunchRequest, question: Question, environ: Mapping[str, str], world: World | None = None
) -> LaunchPlan:
    """Look at what there is, and decide. Raises an EzpzError for whatever does not fit."""
    return look(request, question, environ, world).plan()


def find_nodes(question: Question, environ: Mapping[str, str], home: Home | None, world: World) -> roster.Roster:
    """The nodes that may run ranks. Raises NodesOutside when the user names some that are not the job's."""
    allocation = detect(
        hosts=question.hosts, hostfile=question.hostfile, hsn=question.hsn, environ=environ, system=world.system
    )
    if allocation.scheduler in ("hosts", "hostfile"):
        _check_inside(allocation, question, environ, world)
    failed = question.failed
    if failed is None:
        failed = roster.read_failed(home.prefix) if home else ()
    return roster.choose(allocation, exclude=question.exclude, failed=failed, place=home.prefix if home else "")


def _check_inside(allocation: Allocation, question: Question, environ: Mapping[str, str], world: World) -> None:
    steps = [step for step in installed_steps([]) if step.label in roster.JOB_STEPS]
    try:
        job = detect(hsn=network.OFF, environ=environ, system=world.system, steps=steps)
    except SchedulerError:
        return  # there is no job, so nothing is outside of it
    named = "--hosts" if question.hosts is not None else f"the hostfile {question.hostfile or environ.get('HOSTFILE')}"
    roster.check_inside(allocation.nodes, job, named)


def _per_node(
    wish: Wish, chosen: site.Site, allocation: Allocation, environ: Mapping[str, str], world: World
) -> PerNode:
    """How many ranks a node takes; not looked for when the user's numbers say it all."""
    if wish.gpus_per_rank is None and (wish.ppn is not None or wish.nproc is not None):
        return PerNode()
    scheduler = scheduler_of(allocation, environ)
    return accelerators.per_node((chosen.name, chosen.accelerators), allocation, scheduler, environ, world.sight)


def _with_binding(request: LaunchRequest, environ: Mapping[str, str]) -> LaunchRequest:
    """The request with CPU_BIND in place of --cpu-bind, as scripts on many machines set it."""
    return request if request.cpu_bind is not None else replace(request, cpu_bind=environ.get("CPU_BIND") or None)
