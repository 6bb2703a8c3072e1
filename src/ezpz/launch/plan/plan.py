"""The launch plan, and the request and facts that it is made from: data, shown by --dry-run, run by `execute`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ezpz.cluster.hostnames import fold
from ezpz.launch.launchers.output_labels import LabelFormat, add_label_options
from ezpz.launch.plan.rendezvous import Rendezvous
from ezpz.launch.plan.secrets import mask_environment, mask_words, shell_line
from ezpz.launch.plan.topology import NodeCapacity, RankRequest, Topology
from ezpz.launch.sites.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.cluster.allocation import Node
    from ezpz.launch.launchers.base import Invocation, Launcher, LaunchSpec
    from ezpz.launch.plan.environment import RankEnvironment

SCHEMA = "ezpz/launch/2"


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
