"""Which nodes of an allocation may run ranks: without those that were excluded, and those that a yeet did not reach."""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ezpz.agent.health_check import read_own
from ezpz.cluster.hostnames import expand, fold, short
from ezpz.errors import NodesOutside, NotEnoughNodes, TimedOut, ToolMissing
from ezpz.launch.plan.environment import FAILED_NODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.cluster.schedulers.base import Run
    from ezpz.remote.transports import Transport

ASKED = 3  # nodes
PATIENCE = 10.0  # seconds for one of them
LIST_LIMIT = 1 << 20  # bytes
_LIST = "EZPZ-FAILED "


@dataclass(frozen=True, slots=True)
class UsableNodes:
    """The nodes that may run ranks, in order, and one line for each reason for which others may not.

    left_out: what the user should see; evidence: what only -v tells
    """

    allocation: Allocation
    left_out: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


def choose(
    allocation: Allocation, *, exclude: Iterable[str] = (), failed: Iterable[str] = (), place: str = ""
) -> UsableNodes:
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
            hint="run `ezpz yeet` again" if missing else "exclude fewer",
        )
    return UsableNodes(replace(allocation, nodes=left), tuple(left_out), tuple(evidence))


def read_failed(prefix: str) -> tuple[str, ...]:
    """Return the nodes that the last yeet to `prefix` did not reach, as its list on this host says; () without one.

    A list counts if it and the directory that it lies in are this user's, and no links.
    """
    try:
        text = read_own(prefix, FAILED_NODES, LIST_LIMIT).decode(errors="replace")
    except OSError:
        return ()
    return tuple(name for line in text.splitlines() if (name := line.strip()))


def ask_failed(prefix: str, nodes: Sequence[Node], run: Run, transport: Transport) -> tuple[str, ...]:
    """The same, of a yeet that came from outside of its nodes: it leaves its list on the first node that it reached.

    Of the first few nodes, the newest list counts: one that the last yeet did not reach may have an older one.
    """
    place, path = shlex.quote(prefix), shlex.quote(os.path.join(prefix, FAILED_NODES))
    script = (
        f"[ -h {place} ]||[ -h {path} ]||{{ [ -O {place} ]&&[ -O {path} ]&&[ -f {path} ]&&"
        f"echo {_LIST}$(stat -c %Y {path})&&head -c {LIST_LIMIT} {path}; }}"
    )
    found: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    for node in nodes[:ASKED]:
        with contextlib.suppress(ToolMissing, TimedOut):
            found.append(_list_in(run(transport.argv(node, script), timeout=PATIENCE).out))
    return max(found)[1]


def _list_in(said: str) -> tuple[int, tuple[str, ...]]:
    """How old a list is, and the names in it; login scripts may have said something before."""
    when, _, names = said.partition(_LIST)[2].partition("\n")
    return (int(when), tuple(names.split())) if when.isdigit() else (0, ())


def inside(chosen: tuple[Node, ...], job: Allocation, where: str) -> tuple[Node, ...]:
    """The chosen nodes under the names that the scheduler has for them. Raises NodesOutside unless all are the job's.

    This host may be called differently in both.
    """
    mine = {node.name: node for node in job.nodes}
    found = [(node, mine.get(node.name) or (job.local if node.is_local else None)) for node in chosen]
    outside = [node.name for node, there in found if there is None]
    if outside:
        of = f"job {job.job_id}" if job.job_id else "the job"
        raise NodesOutside(
            f"{where} names {fold(outside)}, which {'is' if len(outside) == 1 else 'are'} not among the "
            f"{len(job.nodes)} nodes of {of}: {fold(mine)}",
            hint="name nodes of the job, or run it outside of the job",
        )
    return tuple(
        there if there.is_local else replace(there, address=node.address) for node, there in found if there is not None
    )


def in_order(nodes: Sequence[Node], job: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes in the order of the job, which is the only one that srun knows: rank 0 is on the first of them."""
    place = {node.name: number for number, node in enumerate(job)}
    return tuple(sorted(nodes, key=lambda node: place.get(node.name, len(place))))
