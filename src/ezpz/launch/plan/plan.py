"""Launch plan: made from a request, an allocation, and facts; shown by --dry-run; run by `execute`. Pure."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ezpz.cluster.detect_nodes import job_system_of
from ezpz.cluster.hostnames import fold
from ezpz.errors import LauncherMissing, UsageError
from ezpz.launch.launchers.base import (
    LAUNCHERS,
    Availability,
    Invocation,
    Launcher,
    LaunchSpec,
    RankVariables,
    Tools,
    installed_launchers,
    parse_binding,
)
from ezpz.launch.launchers.output_labels import LabelFormat, add_label_options
from ezpz.launch.plan import rank_wrapper
from ezpz.launch.plan.rendezvous import Rendezvous
from ezpz.launch.plan.secrets import mask_environment, mask_words, shell_line
from ezpz.launch.plan.topology import NodeCapacity, RankRequest, Topology, compute_topology
from ezpz.launch.sites.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.launch.plan.environment import RankEnvironment

SCHEMA = "ezpz/launch/2"
LOCAL_VARIABLES = RankVariables("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
"""The variables of ranks that this host starts itself."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What the user requested; None for what was not requested.

    Attributes:
        options: Words for the launcher itself, in order.
        launcher: The name of the launcher; None for the first that is available.
    """

    command: tuple[str, ...]
    rank_request: RankRequest = field(default_factory=RankRequest)
    cpu_bind: str | None = None
    options: tuple[str, ...] = ()
    launcher: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a plan depends on in addition to the request and the nodes; see `discover`.

    Attributes:
        environment: The environment that the command runs in, None for that of the rank's shell.
        left_out: One line for each reason to leave out nodes of the job.
        exists: Whether a path exists on this host.
    """

    site: Site = field(default_factory=Site)
    capacity: NodeCapacity = field(default_factory=NodeCapacity)
    rendezvous: Rendezvous = field(default_factory=Rendezvous)
    environment: RankEnvironment | None = None
    left_out: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    exists: Callable[[str], bool] = os.path.exists


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """How many ranks run where, started by which launcher and why, with which command line.

    Attributes:
        reason: Why this launcher is used.
        evidence: One line for each inferred number and each launcher that is not available.
        spec: The argument of the launcher. Its command is the wrapped one.
        variables: The variables of every rank, without those that identify the rank.
        spares: The remaining nodes. With --max-restarts, they replace nodes that fail.
    """

    started_by: Launcher
    reason: str
    evidence: tuple[str, ...]
    invocation: Invocation
    spec: LaunchSpec
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
    def label(self) -> LabelFormat | None:
        """How the launcher can label output with the rank; None if it cannot, or already does."""
        return self.started_by.label_for(self.spec.options)

    @property
    def site(self) -> Site:
        """The site. Its noise and failure patterns are for the code that reads the output."""
        return self.facts.site

    @property
    def line(self) -> str:
        """A line for a shell that does the same as this plan, including its hostfile, without secrets."""
        return shell_line(self.invocation, self.spec.environ)

    def with_labels(self) -> LaunchPlan:
        """Return the same plan with labels in the output."""
        argv = add_label_options(self.label, self.invocation.argv)
        return replace(self, invocation=replace(self.invocation, argv=argv))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as a JSON document without secrets."""
        allocation = self.spec.allocation
        return {
            "schema": SCHEMA,
            "launcher": self.launcher,
            "reason": self.reason,
            "command": list(mask_words(self.request.command, self.spec.environ)),
            "argv": list(mask_words(self.invocation.argv, self.spec.environ)),
            "line": self.line,
            "hostfile": self.invocation.hostfile.splitlines(),
            "ranks": self.topology.ranks,
            "ppn": self.topology.ppn,
            "gpus_per_rank": self.spec.gpus_per_rank,
            "cpu_bind": self.spec.cpu_bind,
            "nodes": [node.name for node in allocation.nodes],
            "spares": [node.name for node in self.spares],
            "site": self.site.name,
            "environment": mask_environment(self.variables),
            "home": self.facts.environment.prefix if self.facts.environment else None,
            "scheduler": allocation.scheduler,
            "job_id": allocation.job_id,
            "evidence": [*allocation.evidence, *self.evidence],
            "warnings": [*allocation.warnings, *self.warnings],
        }

    def to_lines(self) -> tuple[str, ...]:
        """Return the plan as lines of text. The last one can be pasted into a shell."""
        nodes = self.spec.allocation.nodes
        spares = f", spare: {fold(node.name for node in self.spares)}" if self.spares else ""
        environment = self.facts.environment
        return (
            f"nodes     {fold(node.name for node in nodes)} ({len(nodes)}){spares}",
            f"ranks     {self.topology.ranks}, {self.topology.ppn} a node",
            f"site      {self.site.name}: {self.site.why or self.site.description}",
            *(_python_lines(environment) if environment else ()),
            f"launcher  {self.launcher}: {self.reason}",
            f"command   {self.line}",
        )


def _python_lines(environment: RankEnvironment) -> tuple[str]:
    return (f"python    {environment.prefix}{' on every node' if environment.is_copy else ''}",)


def make_plan(
    request: LaunchRequest,
    allocation: Allocation,
    tools: Tools,
    *,
    environ: Mapping[str, str],
    facts: Facts | None = None,
    launchers: Sequence[Launcher] | None = None,
) -> LaunchPlan:
    """Decide how to start the command.

    Args:
        request: What the user requested.
        allocation: The nodes that may run ranks.
        tools: The programs on PATH.
        environ: The environment of the launcher.
        facts: What else the plan depends on.
        launchers: The launchers in place of the installed ones.

    Raises:
        UsageError: The numbers do not fit, or the launcher is unknown.
        NotEnoughNodes: More nodes are requested than available.
        LauncherMissing: No launcher is available.
    """
    facts = facts or Facts()
    if request.command[0].startswith("-"):
        raise UsageError(
            f"the command {request.command[0]!r} looks like an option", hint="give its path: ./-name, or /dir/-name"
        )
    topology = compute_topology(request.rank_request, len(allocation.nodes), facts.capacity)
    used = replace(allocation, nodes=allocation.nodes[: topology.nodes])
    spares = allocation.nodes[topology.nodes : topology.nodes + topology.spares]
    numbers = (topology.ranks, topology.ppn)
    gpus, chosen = request.rank_request.gpus_per_rank, request.launcher is not None
    system = job_system_of(used, environ)
    bare = LaunchSpec(request.command, used, *numbers, environ, gpus_per_rank=gpus, chosen=chosen, system=system)
    launcher, availability, rejected = _select_launcher(launchers, bare, tools, request.launcher)
    variables = {"MASTER_ADDR": facts.rendezvous.address, "MASTER_PORT": str(facts.rendezvous.port)}
    spec, warnings = _complete_spec(
        replace(bare, program=availability.program), launcher, request, facts, topology, variables
    )
    invocation = launcher.invocation(spec)
    if launcher.rank_variables is None:
        own = (_local_rank_variables(each, variables, request, facts) for each in invocation.rank_environments)
        invocation = replace(invocation, rank_environments=tuple(own))
    return LaunchPlan(
        launcher,
        availability.why,
        (*facts.evidence, *facts.capacity.evidence, *topology.evidence, *facts.rendezvous.evidence, *rejected),
        invocation,
        spec,
        request,
        topology,
        facts,
        variables,
        spares,
        (*facts.left_out, *warnings),
    )


def _launchers_named(launchers: Sequence[Launcher], name: str | None) -> Sequence[Launcher]:
    wanted = [launcher for launcher in launchers if name in (None, launcher.name)]
    if not wanted and name in LAUNCHERS.names():
        LAUNCHERS.load(str(name))  # raises PluginError: it is declared and cannot be loaded
    if not wanted:
        names = dict.fromkeys(launcher.name for launcher in launchers)
        raise UsageError(f"--launcher '{name}': there is no such launcher", hint=f"choose one of: {', '.join(names)}")
    return wanted


def _select_launcher(
    launchers: Sequence[Launcher] | None, spec: LaunchSpec, tools: Tools, wanted: str | None
) -> tuple[Launcher, Availability, tuple[str, ...]]:
    """Return the first available launcher, why it is available, and why those before it are not."""
    rejected: list[str] = []
    for launcher in _launchers_named(installed_launchers(rejected) if launchers is None else launchers, wanted):
        availability = launcher.check_availability(spec, tools)
        if availability.is_available:
            return launcher, availability, tuple(rejected)
        rejected.append(f"{launcher.name}: {availability.why}")
    raise LauncherMissing(
        f"nothing here can start ranks on {fold(node.name for node in spec.allocation.nodes)}: {'; '.join(rejected)}",
        hint="leave out --launcher" if wanted else "load the module that has srun or mpiexec, or install MPICH",
    )


def _complete_spec(
    spec: LaunchSpec,
    launcher: Launcher,
    request: LaunchRequest,
    facts: Facts,
    topology: Topology,
    variables: Mapping[str, str],
) -> tuple[LaunchSpec, tuple[str, ...]]:
    """Return the argument for this launcher, with the wrapped command and all options, and warnings."""
    command = facts.environment.resolve_command(request.command, facts.exists) if facts.environment else request.command
    names = launcher.rank_variables
    if names is None:
        return _complete_local_spec(spec, command, request, facts, topology)
    gpus = request.rank_request.gpus_per_rank if not names.assigns_devices else None
    devices = (facts.site.visible_devices, gpus) if gpus else None
    variables = {**variables, **(facts.site.device_variables if gpus else {})}
    wrapped = rank_wrapper.wrap_command(
        command, names, topology, variables, environment=facts.environment, devices=devices
    )
    options = (*facts.site.options.get(launcher.name, ()), *request.options)
    if request.cpu_bind is not None:
        bind = parse_binding(request.cpu_bind, "--cpu-bind, or CPU_BIND")
    else:
        bind = "" if _binds_ranks(request.options) else facts.site.binding(launcher.name, topology.ppn)
    return replace(spec, command=wrapped, options=options, cpu_bind=bind), ()


def _complete_local_spec(
    spec: LaunchSpec, command: tuple[str, ...], request: LaunchRequest, facts: Facts, topology: Topology
) -> tuple[LaunchSpec, tuple[str, ...]]:
    """Return the argument for ranks that this host starts itself. Only a copy of an environment needs the wrapper."""
    if request.options:
        raise UsageError(
            f"{request.options[0]} is no option of ours, and no launcher is needed that could take it",
            hint="see `ezpz launch --help`; write -- before COMMAND only",
        )
    if facts.environment is not None and facts.environment.is_copy:
        command = rank_wrapper.wrap_command(command, LOCAL_VARIABLES, topology, {}, environment=facts.environment)
    ignored = ("--cpu-bind is ignored: no launcher is needed that could bind",) if request.cpu_bind else ()
    return replace(spec, command=command), ignored


def _local_rank_variables(
    own: Mapping[str, str], shared: Mapping[str, str], request: LaunchRequest, facts: Facts
) -> Mapping[str, str]:
    """Return the variables of a rank that this host starts itself."""
    gpus = request.rank_request.gpus_per_rank
    first = int(own.get("LOCAL_RANK", "0")) * (gpus or 0)
    if not gpus:
        return {**own, **shared}
    devices = ",".join(map(str, range(first, first + gpus)))
    return {**own, **shared, **facts.site.device_variables, facts.site.visible_devices: devices}


def _binds_ranks(options: Sequence[str]) -> bool:
    """Return whether the user's own options for the launcher already bind ranks."""
    return any(re.match(r"--?(cpu[-_])?bind", word) for word in options)
