"""No launcher: this host starts the ranks itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ezpz.launch.launchers.base import Availability, Invocation, Launcher
from ezpz.runtime.process import to_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.launch.launchers.base import LaunchSpec, Tools
    from ezpz.runtime.process import Running


class Local(Launcher):
    """No launcher: this host starts the ranks itself, and tells each which it is."""

    name = "local"
    is_local = True

    def __init__(self, order: int, *, in_job: bool = False) -> None:
        """in_job: also where a scheduler rules, for a job of this host alone that nothing else can start ranks of."""
        self.order = order
        self.in_job = in_job

    def check_availability(self, spec: LaunchSpec, tools: Tools, /) -> Availability:
        if spec.system and not self.in_job:
            return Availability(is_available=False, why=f"this is a {spec.system.name.upper()} job")
        if any(not node.is_local for node in spec.allocation.nodes):
            return Availability(is_available=False, why="not all nodes are this host")
        if not self.in_job:
            return Availability(is_available=True, why="this host is the only node, and no scheduler rules it")
        there = next(filter(tools.path, ("srun", "mpiexec", "mpirun")), "")
        if there and not spec.chosen:  # else an MPI program would be so many programs of one rank
            return Availability(is_available=False, why=f"there is {there}, and --launcher does not say local")
        return Availability(is_available=True, why="this host is the only node, and no launcher is needed")

    def invocation(self, spec: LaunchSpec) -> Invocation:
        size = str(spec.ranks)
        shared = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "NODE_RANK": "0"}
        return Invocation(
            spec.command,
            ranks=tuple({"RANK": str(rank), "LOCAL_RANK": str(rank), **shared} for rank in range(spec.ranks)),
        )

    def forward_signal(self, running: Running, number: int, _job: LaunchSpec) -> None:
        """Send a signal to a rank and all that it has started."""
        to_group(running, number)

    def exit_status(self, status: int, _signals: Sequence[int]) -> int:
        """Return the status of the rank itself, whatever it was asked."""
        return status


CANDIDATES = (Local(20), Local(1000, in_job=True))
