"""Decide how a command is started: how many ranks, by which launcher, with which variables and options. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ezpz.cluster.detect_nodes import job_system_of
from ezpz.cluster.hostnames import fold
from ezpz.errors import LauncherMissing, UsageError
from ezpz.launch.launchers.base import (
    LAUNCHERS,
    Availability,
    Launcher,
    LaunchSpec,
    RankVariables,
    Tools,
    installed_launchers,
    parse_binding,
)
from ezpz.launch.plan import rank_wrapper
from ezpz.launch.plan.plan import Facts, LaunchPlan, LaunchRequest
from ezpz.launch.plan.topology import Topology, compute_topology

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ezpz.cluster.allocation import Allocation

LOCAL_VARIABLES = RankVariables("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
"""The variables of ranks that this host starts itself."""


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
