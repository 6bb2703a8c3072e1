"""What the user asked for beside the command: how to watch it, and what to do about bad nodes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ezpz.errors import UsageError
from ezpz.launch.restarts import Policy
from ezpz.launch.run import GRACE

if TYPE_CHECKING:
    from ezpz.cluster.model import Allocation
    from ezpz.launch.checks import Wanted

PROGRESS = r"step[=:]"


@dataclass(frozen=True, slots=True)
class Watching:
    """How attempts are watched: see `ezpz launch --help`.

    noise: regular expressions of lines that are not shown; culprits, victims: signs of the site, as for `Witness`
    labels: have the launcher tell which rank says what
    """

    idle: float | None = None
    grace: float = GRACE
    pty: bool = False
    labels: bool = False
    noise: tuple[str, ...] = ()
    progress: str = PROGRESS
    culprits: tuple[str, ...] = ()
    victims: tuple[str, ...] = ()
    end_when_lost: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for beside the plan.

    fewest, most: nodes of an attempt, None where nothing was said; spares: nodes kept back; restarts: at most so many
    check: what every node must have, None for no checks
    """

    watching: Watching = field(default_factory=Watching)
    fewest: int | None = None
    most: int | None = None
    spares: int = 0
    restarts: int = 0
    check: Wanted | None = None
    log_dir: str | None = None

    @property
    def is_plain(self) -> bool:
        """Nothing was asked for that needs us between the command and the terminal."""
        usual = Watching(grace=self.watching.grace, progress=self.watching.progress)
        return self.watching == usual and not self.restarts and self.check is None and self.log_dir is None


def first_nodes(wish: Wish, allocation: Allocation) -> Allocation:
    """The nodes of the first attempt, as far as their number was asked for. Raises UsageError if there are too few."""
    total = len(allocation.nodes)
    most = total - wish.spares if wish.most is None else wish.most
    fewest = wish.fewest or most
    if fewest < 1 or fewest > total:
        asked = f"--nhosts {wish.fewest or wish.most}" if wish.most is not None else f"--spares {wish.spares}"
        raise UsageError(f"{asked} does not fit: the job has {total} nodes", hint="ask for fewer, or a larger job")
    return replace(allocation, nodes=allocation.nodes[: min(most, total)])


def bounds(wish: Wish, total: int, first: int, needed: int) -> Policy:
    """How many of `total` nodes an attempt may have: `first` were asked for, and the plan needs `needed` of those."""
    asked = wish.most is not None or wish.spares > 0
    most = first if asked else needed
    return Policy(min(wish.fewest or most, total), most, wish.restarts)
