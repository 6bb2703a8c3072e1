"""Request + Allocation + the facts about this host -> LaunchPlan: decided here, shown by --dry-run, done in run.py."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ezpz.cluster.detect import job_system_of
from ezpz.cluster.hostnames import fold
from ezpz.errors import LauncherMissing, UsageError
from ezpz.launch.launchers.base import (
    LAUNCHERS,
    Invocation,
    Job,
    Launcher,
    RankNames,
    Tools,
    Verdict,
    binding,
    installed,
)
from ezpz.launch.launchers.output_labels import Label, with_labels
from ezpz.launch.plan import rank_wrapper
from ezpz.launch.plan.rendezvous import Rendezvous
from ezpz.launch.plan.secrets import mask_environment, mask_words, pasteable
from ezpz.launch.plan.topology import PerNode, RankRequest, Topology, spread
from ezpz.launch.sites.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.launch.plan.environment import RankEnvironment

SCHEMA = "ezpz/launch/2"
OURSELVES = RankNames("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
"""How ranks that this host starts itself know who they are: they were told by the very names."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What the user asked for; None where nothing was said.

    options: words for the launcher itself, in order
    launcher: its name; any that can
    """

    command: tuple[str, ...]
    wish: RankRequest = field(default_factory=RankRequest)
    cpu_bind: str | None = None
    options: tuple[str, ...] = ()
    launcher: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a plan depends on besides the request and the nodes: looked up once, in `look.py`.

    home: the environment that the command runs in, None for whatever the shell of a rank finds
    left_out: one line for each reason for which nodes of the job get no ranks
    exists: whether a path exists on this host
    """

    site: Site = field(default_factory=Site)
    per_node: PerNode = field(default_factory=PerNode)
    rendezvous: Rendezvous = field(default_factory=Rendezvous)
    home: RankEnvironment | None = None
    left_out: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    exists: Callable[[str], bool] = os.path.exists


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What will be run: how many ranks where, by which launcher and why, as which command line.

    job: what the launcher was given; its command is the wrapped one
    variables: what every rank gets, beside what tells it who it is
    spares: the nodes that are left; with --max-restarts, they take the place of those that fail
    evidence: one line for each number that was inferred and each launcher that was passed over
    """

    started_by: Launcher
    reason: str
    evidence: tuple[str, ...]
    invocation: Invocation
    job: Job
    request: LaunchRequest
    topology: Topology
    facts: Facts = field(repr=False)
    variables: Mapping[str, str] = field(default_factory=dict)
    spares: tuple[Node, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def launcher(self) -> str:
        """The name of the launcher."""
        return self.started_by.name

    @property
    def label(self) -> Label | None:
        """How the launcher can tell which rank says what; None if it cannot, or does already."""
        return self.started_by.label_for(self.job.options)

    @property
    def site(self) -> Site:
        """What is special about this machine; its noise and failures are for whoever reads the output."""
        return self.facts.site

    @property
    def line(self) -> str:
        """A line for a shell that does what this plan does, its hostfile included, without secrets."""
        return pasteable(self.invocation, self.job.environ)

    def labelled(self) -> LaunchPlan:
        """The same run, the launcher asked to tell which rank says what."""
        argv = with_labels(self.label, self.invocation.argv)
        return replace(self, invocation=replace(self.invocation, argv=argv))

    def to_dict(self) -> dict[str, Any]:
        """The plan as a JSON document, without secrets."""
        allocation = self.job.allocation
        return {
            "schema": SCHEMA,
            "launcher": self.launcher,
            "reason": self.reason,
            "command": list(mask_words(self.request.command, self.job.environ)),
            "argv": list(mask_words(self.invocation.argv, self.job.environ)),
            "line": self.line,
            "hostfile": self.invocation.hostfile.splitlines(),
            "ranks": self.topology.ranks,
            "ppn": self.topology.ppn,
            "gpus_per_rank": self.job.gpus_per_rank,
            "cpu_bind": self.job.cpu_bind,
            "nodes": [node.name for node in allocation.nodes],
            "spares": [node.name for node in self.spares],
            "site": self.site.name,
            "environment": mask_environment(self.variables),
            "home": self.facts.home.prefix if self.facts.home else None,
            "scheduler": allocation.scheduler,
            "job_id": allocation.job_id,
            "evidence": [*allocation.evidence, *self.evidence],
            "warnings": [*allocation.warnings, *self.warnings],
        }

    def to_lines(self) -> tuple[str, ...]:
        """The plan for people; the last line can be pasted into a shell."""
        nodes = self.job.allocation.nodes
        spares = f", spare: {fold(node.name for node in self.spares)}" if self.spares else ""
        home = self.facts.home
        return (
            f"nodes     {fold(node.name for node in nodes)} ({len(nodes)}){spares}",
            f"ranks     {self.topology.ranks}, {self.topology.ppn} a node",
            f"site      {self.site.name}: {self.site.why or self.site.description}",
            *((f"python    {home.prefix}{' on every node' if home.is_copy else ''}",) if home else ()),
            f"launcher  {self.launcher}: {self.reason}",
            f"command   {self.line}",
        )


def plan(
    request: LaunchRequest,
    allocation: Allocation,
    tools: Tools,
    *,
    environ: Mapping[str, str],
    facts: Facts | None = None,
    launchers: Sequence[Launcher] | None = None,
) -> LaunchPlan:
    """Decide how to start the command.

    launchers: in place of those that are installed
    Raises UsageError for numbers that do not fit and an unknown launcher, NotEnoughNodes and LauncherMissing.
    """
    facts = facts or Facts()
    if request.command[0].startswith("-"):
        raise UsageError(
            f"the command {request.command[0]!r} looks like an option", hint="give its path: ./-name, or /dir/-name"
        )
    topology = spread(request.wish, len(allocation.nodes), facts.per_node)
    used = replace(allocation, nodes=allocation.nodes[: topology.nodes])
    spares = allocation.nodes[topology.nodes : topology.nodes + topology.spares]
    numbers = (topology.ranks, topology.ppn)
    gpus, chosen = request.wish.gpus_per_rank, request.launcher is not None
    system = job_system_of(used, environ)
    bare = Job(request.command, used, *numbers, environ, gpus_per_rank=gpus, chosen=chosen, system=system)
    launcher, verdict, passed = _first_able(launchers, bare, tools, request.launcher)
    variables = {"MASTER_ADDR": facts.rendezvous.address, "MASTER_PORT": str(facts.rendezvous.port)}
    job, warnings = _complete(replace(bare, program=verdict.program), launcher, request, facts, topology, variables)
    invocation = launcher.invocation(job)
    if launcher.ranks is None:
        invocation = replace(
            invocation, ranks=tuple(_own_variables(own, variables, request, facts) for own in invocation.ranks)
        )
    return LaunchPlan(
        launcher,
        verdict.why,
        (*facts.evidence, *facts.per_node.evidence, *topology.evidence, *facts.rendezvous.evidence, *passed),
        invocation,
        job,
        request,
        topology,
        facts,
        variables,
        spares,
        (*facts.left_out, *warnings),
    )


def _named(launchers: Sequence[Launcher], name: str | None) -> Sequence[Launcher]:
    wanted = [launcher for launcher in launchers if name in (None, launcher.name)]
    if not wanted and name in LAUNCHERS.names():
        LAUNCHERS.load(str(name))  # raises: it is declared, and was not among those that can be loaded
    if not wanted:
        names = dict.fromkeys(launcher.name for launcher in launchers)
        raise UsageError(f"--launcher '{name}': there is no such launcher", hint=f"choose one of: {', '.join(names)}")
    return wanted


def _first_able(
    launchers: Sequence[Launcher] | None, job: Job, tools: Tools, wanted: str | None
) -> tuple[Launcher, Verdict, tuple[str, ...]]:
    """The first launcher that can, of those that are `wanted`, its verdict, and why those before it cannot."""
    passed: list[str] = []
    for launcher in _named(installed(passed) if launchers is None else launchers, wanted):
        verdict = launcher.judge(job, tools)
        if verdict.able:
            return launcher, verdict, tuple(passed)
        passed.append(f"{launcher.name}: {verdict.why}")
    raise LauncherMissing(
        f"nothing here can start ranks on {fold(node.name for node in job.allocation.nodes)}: {'; '.join(passed)}",
        hint="leave out --launcher" if wanted else "load the module that has srun or mpiexec, or install MPICH",
    )


def _complete(
    job: Job,
    launcher: Launcher,
    request: LaunchRequest,
    facts: Facts,
    topology: Topology,
    variables: Mapping[str, str],
) -> tuple[Job, tuple[str, ...]]:
    """The job as this launcher is given it: its command wrapped, the options of site and user; and warnings."""
    command = facts.home.resolved(request.command, facts.exists) if facts.home else request.command
    names = launcher.ranks
    if names is None:
        return _here(job, command, request, facts, topology)
    gpus = request.wish.gpus_per_rank if not names.has_devices else None
    devices = (facts.site.visible_devices, gpus) if gpus else None
    variables = {**variables, **(facts.site.with_devices if gpus else {})}
    wrapped = rank_wrapper.wrap(command, names, topology, variables, home=facts.home, devices=devices)
    options = (*facts.site.options.get(launcher.name, ()), *request.options)
    if request.cpu_bind is not None:
        bind = binding(request.cpu_bind, "--cpu-bind, or CPU_BIND")
    else:
        bind = "" if _binds(request.options) else facts.site.binding(launcher.name, topology.ppn)
    return replace(job, command=wrapped, options=options, cpu_bind=bind), ()


def _here(
    job: Job, command: tuple[str, ...], request: LaunchRequest, facts: Facts, topology: Topology
) -> tuple[Job, tuple[str, ...]]:
    """The job for ranks that this host starts itself; only a copy of an environment needs the wrapper then."""
    if request.options:
        raise UsageError(
            f"{request.options[0]} is no option of ours, and no launcher is needed that could take it",
            hint="see `ezpz launch --help`; write -- before COMMAND only",
        )
    if facts.home is not None and facts.home.is_copy:
        command = rank_wrapper.wrap(command, OURSELVES, topology, {}, home=facts.home)
    ignored = ("--cpu-bind is ignored: no launcher is needed that could bind",) if request.cpu_bind else ()
    return replace(job, command=command), ignored


def _own_variables(
    own: Mapping[str, str], shared: Mapping[str, str], request: LaunchRequest, facts: Facts
) -> Mapping[str, str]:
    """What a rank gets that this host starts itself."""
    gpus = request.wish.gpus_per_rank
    first = int(own.get("LOCAL_RANK", "0")) * (gpus or 0)
    if not gpus:
        return {**own, **shared}
    devices = ",".join(map(str, range(first, first + gpus)))
    return {**own, **shared, **facts.site.with_devices, facts.site.visible_devices: devices}


def _binds(options: Sequence[str]) -> bool:
    """Whether the user's own words for the launcher bind ranks already."""
    return any(re.match(r"--?(cpu[-_])?bind", word) for word in options)
