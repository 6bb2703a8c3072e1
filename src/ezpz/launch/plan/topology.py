"""Pure: how many ranks on how many nodes, from what was asked for, what there is, and what fits on a node."""

from __future__ import annotations

from dataclasses import dataclass

from ezpz.errors import NotEnoughNodes, UsageError


@dataclass(frozen=True, slots=True)
class NodeCount:
    """--nhosts: how many nodes run ranks, as many as there are up to `most`. What is left of the nodes are spares."""

    least: int
    most: int

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}:{self.most}"


@dataclass(frozen=True, slots=True)
class RankRequest:
    """The numbers that the user gave; None where nothing was said.

    spares: how many nodes to keep idle, in case one that runs fails; not together with `nhosts`
    """

    nproc: int | None = None
    ppn: int | None = None
    nhosts: NodeCount | None = None
    spares: int = 0
    gpus_per_rank: int | None = None


@dataclass(frozen=True, slots=True)
class PerNode:
    """How many ranks a node takes when nobody says, and why.

    accelerators: 0 when there are none, or nobody knows
    evidence: one line for each place that was looked at before
    """

    ranks: int = 1
    accelerators: int = 0
    why: str = "one rank a node"
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """The numbers of a run: the first `nodes` nodes are filled one after another with `ppn` ranks, the rest are spares.

    evidence: one line for each number that nobody gave
    """

    nodes: int
    ranks: int
    ppn: int
    spares: int = 0
    evidence: tuple[str, ...] = ()

    def ranks_on(self, node: int) -> int:
        """How many ranks the node of this number gets: `ppn`, and the last one what is left."""
        return min(self.ppn, self.ranks - node * self.ppn)


def spread(wish: RankRequest, available: int, per_node: PerNode = PerNode()) -> Topology:
    """How many ranks, on how many of the `available` nodes, and how many of them a node.

    With --nproc alone every node gets as many as every other. Raises UsageError for numbers that contradict each other,
    with the sum, and NotEnoughNodes.
    """
    _check_sane(wish)
    hosts = _hosts(wish, available)
    ppn = wish.ppn
    evidence: tuple[str, ...] = ()
    if ppn is None and wish.nproc is None:
        ppn, why = _inferred(wish, per_node)
        evidence = (f"--ppn {ppn}: {why}",)
    topology = _filled(wish, hosts, ppn)
    _check_gpus(wish, topology.ppn, per_node)
    spares = available - topology.nodes
    return Topology(topology.nodes, topology.ranks, topology.ppn, spares, (*evidence, *topology.evidence))


def _check_sane(wish: RankRequest) -> None:
    """What the command line cannot say, but a program can."""
    least, most = (wish.nhosts.least, wish.nhosts.most) if wish.nhosts else (1, 1)
    several = {"nproc": wish.nproc, "ppn": wish.ppn, "gpus_per_rank": wish.gpus_per_rank, "nhosts": least}
    numbers = [(name, number, 1) for name, number in several.items()]
    for name, number, lowest in (*numbers, ("the most of nhosts", most, least), ("spares", wish.spares, 0)):
        if number is not None and number < lowest:
            raise UsageError(f"{name} is {number}, and must be at least {lowest}")


def _hosts(wish: RankRequest, available: int) -> int:
    """How many nodes run ranks, as far as their number was asked for."""
    if wish.nhosts is not None and wish.spares:
        raise UsageError(
            "--nhosts and --spares exclude each other", hint="what --nhosts leaves are the spares; leave out --spares"
        )
    asked = f"--nhosts {wish.nhosts}" if wish.nhosts is not None else f"--spares {wish.spares}"
    needed = wish.nhosts.least if wish.nhosts is not None else wish.spares + 1
    if needed > available:
        raise NotEnoughNodes(
            f"{asked} needs {_count(needed, 'node')}, and there {'is' if available == 1 else 'are'} {available}",
            hint="ask for fewer, or for a larger job",
        )
    return available - wish.spares if wish.nhosts is None else _fitting(wish, min(wish.nhosts.most, available))


def _fitting(wish: RankRequest, most: int) -> int:
    """Of MIN:MAX, the highest number of nodes that a fixed number of ranks fits on."""
    assert wish.nhosts is not None
    if wish.nproc is None:
        return most
    each = reversed(range(wish.nhosts.least, most + 1))
    if wish.ppn is not None:
        return next((hosts for hosts in each if hosts * wish.ppn == wish.nproc), most)
    return next((hosts for hosts in each if wish.nproc % hosts == 0), most)


def _filled(wish: RankRequest, hosts: int, ppn: int | None) -> Topology:
    ranks = wish.nproc
    if ranks is None:
        assert ppn is not None
        return Topology(hosts, hosts * ppn, ppn, evidence=(f"-n {hosts * ppn}: {_count(hosts, 'node')} x {ppn}",))
    if ppn is None:
        ppn = _even(wish, ranks, hosts)
        used = -(-ranks // ppn)
        return Topology(used, ranks, ppn, evidence=(f"--ppn {ppn}: {ranks} ranks on {_count(used, 'node')}",))
    if wish.nhosts is not None and ranks != hosts * ppn:
        raise UsageError(
            f"{ranks} ranks != {hosts} hosts x {ppn} ranks a host = {hosts * ppn}",
            hint=f"leave out one of -n {ranks}, --nhosts {wish.nhosts} and --ppn {ppn}",
        )
    if ranks > hosts * ppn:
        raise UsageError(
            f"-n {ranks} does not fit with --ppn {ppn}: {_count(hosts, 'node')} x {ppn} = {hosts * ppn} < {ranks}",
            hint=f"raise --ppn to {-(-ranks // hosts)}, or leave it out",
        )
    return Topology(-(-ranks // ppn), ranks, ppn)


def _even(wish: RankRequest, ranks: int, hosts: int) -> int:
    """How many ranks a node when all get as many; fewer ranks than nodes are one a node."""
    if ranks < hosts and wish.nhosts is not None:
        raise UsageError(f"{ranks} ranks < {hosts} hosts: some would have none", hint=f"--nhosts {ranks}")
    if ranks > hosts and ranks % hosts:
        low = ranks // hosts
        raise UsageError(
            f"-n {ranks} cannot be spread evenly: "
            f"{hosts} nodes x {low} = {hosts * low}, {hosts} nodes x {low + 1} = {hosts * (low + 1)}",
            hint=f"add --ppn {low + 1} to fill the nodes one after another",
        )
    return max(1, ranks // hosts)


def _inferred(wish: RankRequest, per_node: PerNode) -> tuple[int, str]:
    gpus = wish.gpus_per_rank
    if gpus is None or not per_node.accelerators:
        return per_node.ranks, per_node.why
    if gpus > per_node.accelerators:
        raise UsageError(
            f"--gpus-per-rank {gpus}: a node has {per_node.accelerators} ({per_node.why})", hint="ask for fewer"
        )
    return per_node.accelerators // gpus, f"{per_node.accelerators} / {gpus} a rank ({per_node.why})"


def _check_gpus(wish: RankRequest, ppn: int, per_node: PerNode) -> None:
    gpus, there = wish.gpus_per_rank, per_node.accelerators
    if gpus is not None and there and ppn * gpus > there:
        raise UsageError(
            f"{ppn} ranks a node x {gpus} accelerators a rank = {ppn * gpus} > {there} ({per_node.why})",
            hint=f"--ppn {there // gpus}" if gpus <= there else "ask for fewer a rank",
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
