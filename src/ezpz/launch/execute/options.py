"""What the user asked for beside the plan: how to watch the run, and what to do about bad nodes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.launch.execute.restart_policy import RestartPolicy
from ezpz.launch.execute.run import GRACE

if TYPE_CHECKING:
    from ezpz.launch.execute.node_checks import CheckRequest
    from ezpz.launch.plan.plan import LaunchPlan
    from ezpz.launch.sites.site import FailureLine

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
    failures: tuple[FailureLine, ...] = ()
    end_when_lost: bool = False


@dataclass(frozen=True, slots=True)
class SupervisionOptions:
    """What the user asked for beside the plan.

    restarts: at most so many; check: what every node must have, None for no checks
    """

    watching: MonitorOptions = field(default_factory=MonitorOptions)
    restarts: int = 0
    check: CheckRequest | None = None
    log_dir: str | None = None

    @property
    def is_plain(self) -> bool:
        """Nothing was asked for that needs us between the command and the terminal."""
        usual = MonitorOptions(grace=self.watching.grace, progress=self.watching.progress)
        return self.watching == usual and not self.restarts and self.check is None and self.log_dir is None


def bounds(care: SupervisionOptions, planned: LaunchPlan) -> RestartPolicy:
    """How many nodes an attempt may have: as many as the first plan uses, with --nhosts MIN:MAX no fewer than MIN."""
    most = planned.topology.nodes
    nhosts = planned.request.wish.nhosts
    return RestartPolicy(min(nhosts.least, most) if nhosts else most, most, care.restarts)


def asked_for(planned: LaunchPlan) -> bool:
    """Whether the user said how many nodes run ranks, by number or by what is left of them."""
    wish = planned.request.wish
    return wish.nhosts is not None or wish.spares > 0 or planned.topology.spares > 0
