"""Nodes of an allocation that may run ranks: not excluded, and not missed by the last `ezpz yeet`."""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ezpz.agent.common.layout import FAILED_NODES
from ezpz.agent.common.receipt import open_in_own
from ezpz.cluster.hostnames import expand, fold, short
from ezpz.errors import NodesOutside, NotEnoughNodes, TimedOut, ToolMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.cluster.schedulers.base import Run
    from ezpz.remote.transports import Transport

MAX_QUERIED = 3  # nodes
QUERY_TIMEOUT = 10.0  # seconds for each
MAX_LIST_BYTES = 1 << 20
_LIST_MARK = "EZPZ-FAILED "


@dataclass(frozen=True, slots=True)
class UsableNodes:
    """The nodes that may run ranks, in order, and one line for each reason to leave out others.

    Attributes:
        left_out: The lines for the user.
        evidence: The lines for -v.
    """

    allocation: Allocation
    left_out: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


def choose_nodes(
    allocation: Allocation, *, exclude: Iterable[str] = (), failed: Iterable[str] = (), place: str = ""
) -> UsableNodes:
    """Return the allocation without the nodes of the `exclude` nodesets and those that failed.

    Args:
        allocation: The nodes.
        exclude: Nodesets.
        failed: The nodes that the last `ezpz yeet` to `place` did not reach.
        place: The destination, for the message.

    Raises:
        NotEnoughNodes: No node is left.
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
            hint="run `ezpz yeet` again" if missing else "exclude fewer",
        )
    return UsableNodes(replace(allocation, nodes=left), tuple(left_out), tuple(evidence))


def read_failed_nodes(prefix: str) -> tuple[str, ...]:
    """Return the nodes that the last `ezpz yeet` to `prefix` did not reach, from its list on this host.

    The list counts only if it and its directory belong to this user and are not links.
    """
    try:
        with open(open_in_own(os.fsencode(prefix), FAILED_NODES), "rb") as file:
            text = file.read(MAX_LIST_BYTES).decode(errors="replace")
    except OSError:
        return ()
    return tuple(name for line in text.splitlines() if (name := line.strip()))


def query_failed_nodes(prefix: str, nodes: Sequence[Node], run: Run, transport: Transport) -> tuple[str, ...]:
    """Return the nodes that the last `ezpz yeet` to `prefix` did not reach, from its list on one of the nodes.

    An `ezpz yeet` from outside of its nodes writes the list on the first node that it reaches. The newest list of the
    first few nodes counts, because a node that was not reached can have an older one.
    """
    place, path = shlex.quote(prefix), shlex.quote(os.path.join(prefix, os.fsdecode(FAILED_NODES)))
    script = (
        f"[ -h {place} ]||[ -h {path} ]||{{ [ -O {place} ]&&[ -O {path} ]&&[ -f {path} ]&&"
        f"echo {_LIST_MARK}$(stat -c %Y {path})&&head -c {MAX_LIST_BYTES} {path}; }}"
    )
    found: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    for node in nodes[:MAX_QUERIED]:
        with contextlib.suppress(ToolMissing, TimedOut):
            found.append(_parse_list(run(transport.argv(node, script), timeout=QUERY_TIMEOUT).out))
    return max(found)[1]


def _parse_list(output: str) -> tuple[int, tuple[str, ...]]:
    """Return the time of a list and the names in it. Output of login scripts can precede it."""
    when, _, names = output.partition(_LIST_MARK)[2].partition("\n")
    return (int(when), tuple(names.split())) if when.isdigit() else (0, ())


def rename_to_job(chosen: tuple[Node, ...], job: Allocation, where: str) -> tuple[Node, ...]:
    """Return the chosen nodes with the names that the scheduler has for them. This host can have another name there.

    Raises:
        NodesOutside: A node does not belong to the job.
    """
    mine = {node.name: node for node in job.nodes}
    found = [(node, mine.get(node.name) or (job.local if node.is_local else None)) for node in chosen]
    outside = [node.name for node, member in found if member is None]
    if outside:
        of = f"job {job.job_id}" if job.job_id else "the job"
        raise NodesOutside(
            f"{where} names {fold(outside)}, which {'is' if len(outside) == 1 else 'are'} not among the "
            f"{len(job.nodes)} nodes of {of}: {fold(mine)}",
            hint="name nodes of the job, or run it outside of the job",
        )
    return tuple(
        member if member.is_local else replace(member, address=node.address)
        for node, member in found
        if member is not None
    )


def sort_like_job(nodes: Sequence[Node], job: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes in the order of the job. srun has no other order, and rank 0 is on the first node."""
    place = {node.name: number for number, node in enumerate(job)}
    return tuple(sorted(nodes, key=lambda node: place.get(node.name, len(place))))
