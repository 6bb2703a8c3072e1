"""Which nodes of an allocation may run ranks: without those that were excluded, and those that a yeet did not reach."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ezpz.cluster.hostnames import expand, fold, short
from ezpz.errors import NodesOutside, NotEnoughNodes
from ezpz.launch.home import FAILED_NODES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ezpz.cluster.model import Allocation, Node

JOB_STEPS = ("PBS_NODEFILE", "PBS spool", "Slurm environment")
"""The steps of discovery that read what the job itself says, and start nothing."""


@dataclass(frozen=True, slots=True)
class Roster:
    """The nodes that may run ranks, in order, and one line for each reason for which others may not.

    left_out: what the user should see; evidence: what only -v tells
    """

    allocation: Allocation
    left_out: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


def choose(
    allocation: Allocation, *, exclude: Iterable[str] = (), failed: Iterable[str] = (), place: str = ""
) -> Roster:
    """The allocation without the nodes of the `exclude` nodesets and without the `failed` ones of the yeet to `place`.

    Raises NotEnoughNodes when nobody is left.
    """
    unwanted = {short(name) for nodeset in exclude for name in expand(nodeset, "--exclude")}
    broken = {short(name) for name in failed}
    known = {node.name for node in allocation.nodes}
    left = tuple(node for node in allocation.nodes if node.name not in unwanted | broken)
    left_out, evidence = [], []
    missing = [node.name for node in allocation.nodes if node.name in broken - unwanted]
    if missing:
        left_out.append(f"left out {fold(missing)}: the yeet to {place} failed there")
    if unwanted & known:
        evidence.append(f"--exclude: left out {fold(unwanted & known)}")
    if unwanted - known:
        evidence.append(f"--exclude: {fold(unwanted - known)} is none of the nodes")
    if not left:
        raise NotEnoughNodes(
            f"no node is left of {fold(known)}: {'; '.join((*left_out, *evidence))}",
            hint="run `ezpz yeet` again" if missing else "leave out fewer",
        )
    return Roster(replace(allocation, nodes=left), tuple(left_out), tuple(evidence))


def read_failed(prefix: str) -> tuple[str, ...]:
    """The nodes that the last yeet to `prefix` did not reach, as its list on this host says; () without one."""
    try:
        with open(os.path.join(prefix, FAILED_NODES), encoding="utf-8", errors="replace") as file:
            return tuple(name for line in file if (name := line.strip()))
    except OSError:
        return ()


def check_inside(chosen: tuple[Node, ...], job: Allocation, where: str) -> None:
    """Raise NodesOutside unless all chosen nodes are the job's. This host may be called differently in both."""
    mine = {node.name for node in job.nodes}
    here = job.local is not None
    outside = [node.name for node in chosen if node.name not in mine and not (node.is_local and here)]
    if outside:
        of = f"job {job.job_id}" if job.job_id else "the job"
        raise NodesOutside(
            f"{where} names {fold(outside)}, which {'is' if len(outside) == 1 else 'are'} not among the "
            f"{len(job.nodes)} nodes of {of}: {fold(mine)}",
            hint="name nodes of the job; to leave the job alone, unset PBS_NODEFILE or SLURM_JOB_ID",
        )
