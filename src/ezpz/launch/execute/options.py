"""Options of a supervised launch: how to monitor the run, and what to do about failed nodes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.launch.execute.restart_policy import RestartPolicy
from ezpz.launch.execute.run import GRACE

if TYPE_CHECKING:
    from ezpz.launch.execute.node_checks import CheckRequest
    from ezpz.launch.plan.plan import LaunchPlan
    from ezpz.launch.sites.site import FailureRule

PROGRESS = r"step[=:]"


@dataclass(frozen=True, slots=True)
class MonitorOptions:
    """How attempts are monitored: see `ezpz launch --help`.

    Attributes:
        idle: Seconds of silence after which the run is ended, None for never.
        labels: Whether the launcher labels output with the rank.
        noise: Regular expressions of lines to hide.
        progress: The regular expression of a progress marker.
        failures: The failure patterns of the site.
        end_when_lost: Whether to end a run that has lost a node.
    """

    idle: float | None = None
    grace: float = GRACE
    pty: bool = False
    labels: bool = False
    noise: tuple[str, ...] = ()
    progress: str = PROGRESS
    failures: tuple[FailureRule, ...] = ()
    end_when_lost: bool = False


@dataclass(frozen=True, slots=True)
class SupervisionOptions:
    """What the user requested in addition to the plan.

    Attributes:
        check: What every node must have, None for no checks.
    """

    monitor: MonitorOptions = field(default_factory=MonitorOptions)
    max_restarts: int = 0
    check: CheckRequest | None = None
    log_dir: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing was requested that has to read the output of the command."""
        usual = MonitorOptions(grace=self.monitor.grace, progress=self.monitor.progress)
        return self.monitor == usual and not self.max_restarts and self.check is None and self.log_dir is None


def make_restart_policy(supervision: SupervisionOptions, planned: LaunchPlan) -> RestartPolicy:
    """Return how many nodes an attempt may have: as many as the first plan, or down to MIN of --nhosts MIN:MAX."""
    maximum = planned.topology.nodes
    nhosts = planned.request.rank_request.nhosts
    return RestartPolicy(min(nhosts.minimum, maximum) if nhosts else maximum, maximum, supervision.max_restarts)


def is_node_count_requested(planned: LaunchPlan) -> bool:
    """Return whether the user set the number of nodes that run ranks, with --nhosts or with --spares."""
    rank_request = planned.request.rank_request
    return rank_request.nhosts is not None or rank_request.spares > 0 or planned.topology.spares > 0
