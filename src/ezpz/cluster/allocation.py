"""The nodes of a job, as the rest of ezpz knows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the allocation.

    Attributes:
        name: canonical short name, unique in the allocation ("x4114c1s7b0n0")
        address: what is dialed; a high-speed-network name where there is one ("x4114c1s7b0n0-hsn0")
        given: the name exactly as the scheduler or hostfile wrote it
        is_local: this process runs on it
    """

    name: str
    address: str
    given: str
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class Allocation:
    """The nodes of the job, in the scheduler's order, each once, and how they were found.

    Attributes:
        scheduler: "pbs", "slurm", "hosts", "hostfile" or "localhost"
        job_id: the identifier of the scheduler's job, or None
        nodes: the nodes
        evidence: one line for each detector that was tried, the deciding one last
        warnings: lines that the user should see even without -v
    """

    scheduler: str
    job_id: str | None
    nodes: tuple[Node, ...]
    evidence: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def local(self) -> Node | None:
        """The node that this process runs on, or None if it is not part of the allocation (a login node)."""
        return next((node for node in self.nodes if node.is_local), None)
