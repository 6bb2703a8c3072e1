"""What the user asked for beside the plan: how to watch the run, and what to do about bad nodes. Pure."""

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
    """How attempts are watched: see `ezpz launch --help`.

    noise: regular expressions of lines that are not shown; failures: those of the site that tell why a run failed
    labels: have the launcher tell which rank says what
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
    """What the user asked for beside the plan.

    restarts: at most so many; check: what every node must have, None for no checks
    """

    monitor: MonitorOptions = field(default_factory=MonitorOptions)
    max_restarts: int = 0
    check: CheckRequest | None = None
    log_dir: str | None = None

    @property
    def is_plain(self) -> bool:
        """Nothing was asked for that needs us between the command and the terminal."""
        usual = MonitorOptions(grace=self.monitor.grace, progress=self.monitor.progress)
        return self.monitor == usual and not self.max_restarts and self.check is None and self.log_dir is None


def make_restart_policy(supervision: SupervisionOptions, planned: LaunchPlan) -> RestartPolicy:
    """How many nodes an attempt may have: as many as the first plan uses, with --nhosts MIN:MAX no fewer than MIN."""
    maximum = planned.topology.nodes
    nhosts = planned.request.rank_request.nhosts
    return RestartPolicy(min(nhosts.minimum, maximum) if nhosts else maximum, maximum, supervision.max_restarts)


def is_node_count_requested(planned: LaunchPlan) -> bool:
    """Whether the user said how many nodes run ranks, by number or by what is left of them."""
    rank_request = planned.request.rank_request
    return rank_request.nhosts is not None or rank_request.spares > 0 or planned.topology.spares > 0
