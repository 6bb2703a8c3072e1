"""Ranks that this host starts itself, without another program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ezpz.launch.launchers.base import Availability, Invocation, Launcher
from ezpz.runtime.process import to_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.launch.launchers.base import LaunchSpec, Tools
    from ezpz.runtime.process import Running


class LocalLauncher(Launcher):
    """Starts the ranks on this host and sets their variables."""

    name = "local"
    is_local = True

    def __init__(self, order: int, *, in_job: bool = False) -> None:
        """Set the order.

        Args:
            order: Its place among the launchers.
            in_job: Also for a job of a scheduler that has this host alone and no other launcher.
        """
        self.order = order
        self.in_job = in_job

    def check_availability(self, spec: LaunchSpec, tools: Tools, /) -> Availability:
        if spec.system and not self.in_job:
            return Availability(is_available=False, why=f"this is a {spec.system.name.upper()} job")
        if any(not node.is_local for node in spec.allocation.nodes):
            return Availability(is_available=False, why="not all nodes are this host")
        if not self.in_job:
            return Availability(is_available=True, why="this host is the only node, and no scheduler rules it")
        found = next(filter(tools.path, ("srun", "mpiexec", "mpirun")), "")
        if found and not spec.chosen:  # an MPI program would be many programs of one rank each
            return Availability(is_available=False, why=f"there is {found}, and --launcher does not say local")
        return Availability(is_available=True, why="this host is the only node, and no launcher is needed")

    def invocation(self, spec: LaunchSpec) -> Invocation:
        size = str(spec.ranks)
        common = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "NODE_RANK": "0"}
        return Invocation(
            spec.command,
            rank_environments=tuple(
                {"RANK": str(rank), "LOCAL_RANK": str(rank), **common} for rank in range(spec.ranks)
            ),
        )

    def forward_signal(self, running: Running, number: int, _job: LaunchSpec) -> None:
        """Send a signal to a rank and to every process that it started."""
        to_group(running, number)

    def exit_status(self, status: int, _signals: Sequence[int]) -> int:
        """Return the status of the rank, unchanged."""
        return status


CANDIDATES = (LocalLauncher(20), LocalLauncher(1000, in_job=True))
