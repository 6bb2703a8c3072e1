"""Pure: how many ranks on how many nodes, from what was asked for, what there is, and what fits on a node."""

from __future__ import annotations

from dataclasses import dataclass

from ezpz.errors import NotEnoughNodes, UsageError


@dataclass(frozen=True, slots=True)
class NodeCount:
    """--nhosts: how many nodes run ranks, as many as there are up to `most`. What is left of the nodes are spares."""

    minimum: int
    maximum: int

    def __str__(self) -> str:
        return str(self.minimum) if self.minimum == self.maximum else f"{self.minimum}:{self.maximum}"


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
class NodeCapacity:
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


def compute_topology(request: RankRequest, available: int, capacity: NodeCapacity = NodeCapacity()) -> Topology:
    """How many ranks, on how many of the `available` nodes, and how many of them a node.

    With --nproc alone every node gets as many as every other. Raises UsageError for numbers that contradict each other,
    with the sum, and NotEnoughNodes.
    """
    _check_minimums(request)
    hosts = _node_count(request, available)
    ppn = request.ppn
    evidence: tuple[str, ...] = ()
    if ppn is None and request.nproc is None:
        ppn, why = _infer_ppn(request, capacity)
        evidence = (f"--ppn {ppn}: {why}",)
    topology = _fill_nodes(request, hosts, ppn)
    _check_gpus(request, topology.ppn, capacity)
    spares = available - topology.nodes
    return Topology(topology.nodes, topology.ranks, topology.ppn, spares, (*evidence, *topology.evidence))


def _check_minimums(request: RankRequest) -> None:
    """What the command line cannot say, but a program can."""
    minimum, maximum = (request.nhosts.minimum, request.nhosts.maximum) if request.nhosts else (1, 1)
    several = {
        "nproc": request.nproc,
        "ppn": request.ppn,
        "gpus_per_rank": request.gpus_per_rank,
        "nhosts": minimum,
    }
    numbers = [(name, number, 1) for name, number in several.items()]
    for name, number, lowest in (
        *numbers,
        ("the most of nhosts", maximum, minimum),
        ("spares", request.spares, 0),
    ):
        if number is not None and number < lowest:
            raise UsageError(f"{name} is {number}, and must be at least {lowest}")


def _node_count(request: RankRequest, available: int) -> int:
    """How many nodes run ranks, as far as their number was asked for."""
    if request.nhosts is not None and request.spares:
        raise UsageError(
            "--nhosts and --spares exclude each other", hint="what --nhosts leaves are the spares; leave out --spares"
        )
    asked = f"--nhosts {request.nhosts}" if request.nhosts is not None else f"--spares {request.spares}"
    needed = request.nhosts.minimum if request.nhosts is not None else request.spares + 1
    if needed > available:
        raise NotEnoughNodes(
            f"{asked} needs {pluralize(needed, 'node')}, and there {'is' if available == 1 else 'are'} {available}",
            hint="ask for fewer, or for a larger job",
        )
    return (
        available - request.spares
        if request.nhosts is None
        else _largest_fitting(request, min(request.nhosts.maximum, available))
    )


def _largest_fitting(request: RankRequest, maximum: int) -> int:
    """Of MIN:MAX, the highest number of nodes that a fixed number of ranks fits on."""
    assert request.nhosts is not None
    if request.nproc is None:
        return maximum
    each = reversed(range(request.nhosts.minimum, maximum + 1))
    if request.ppn is not None:
        return next((hosts for hosts in each if hosts * request.ppn == request.nproc), maximum)
    return next((hosts for hosts in each if request.nproc % hosts == 0), maximum)


def _fill_nodes(request: RankRequest, hosts: int, ppn: int | None) -> Topology:
    ranks = request.nproc
    if ranks is None:
        assert ppn is not None
        return Topology(hosts, hosts * ppn, ppn, evidence=(f"-n {hosts * ppn}: {pluralize(hosts, 'node')} x {ppn}",))
    if ppn is None:
        ppn = _even_ppn(request, ranks, hosts)
        used = -(-ranks // ppn)
        return Topology(used, ranks, ppn, evidence=(f"--ppn {ppn}: {ranks} ranks on {pluralize(used, 'node')}",))
    if request.nhosts is not None and ranks != hosts * ppn:
        raise UsageError(
            f"{ranks} ranks != {hosts} hosts x {ppn} ranks a host = {hosts * ppn}",
            hint=f"leave out one of -n {ranks}, --nhosts {request.nhosts} and --ppn {ppn}",
        )
    if ranks > hosts * ppn:
        raise UsageError(
            f"-n {ranks} does not fit with --ppn {ppn}: {pluralize(hosts, 'node')} x {ppn} = {hosts * ppn} < {ranks}",
            hint=f"raise --ppn to {-(-ranks // hosts)}, or leave it out",
        )
    return Topology(-(-ranks // ppn), ranks, ppn)


def _even_ppn(request: RankRequest, ranks: int, hosts: int) -> int:
    """How many ranks a node when all get as many; fewer ranks than nodes are one a node."""
    if ranks < hosts and request.nhosts is not None:
        raise UsageError(f"{ranks} ranks < {hosts} hosts: some would have none", hint=f"--nhosts {ranks}")
    if ranks > hosts and ranks % hosts:
        low = ranks // hosts
        raise UsageError(
            f"-n {ranks} cannot be spread evenly: "
            f"{hosts} nodes x {low} = {hosts * low}, {hosts} nodes x {low + 1} = {hosts * (low + 1)}",
            hint=f"add --ppn {low + 1} to fill the nodes one after another",
        )
    return max(1, ranks // hosts)


def _infer_ppn(request: RankRequest, capacity: NodeCapacity) -> tuple[int, str]:
    gpus = request.gpus_per_rank
    if gpus is None or not capacity.accelerators:
        return capacity.ranks, capacity.why
    if gpus > capacity.accelerators:
        raise UsageError(
            f"--gpus-per-rank {gpus}: a node has {capacity.accelerators} ({capacity.why})", hint="ask for fewer"
        )
    return capacity.accelerators // gpus, f"{capacity.accelerators} / {gpus} a rank ({capacity.why})"


def _check_gpus(request: RankRequest, ppn: int, capacity: NodeCapacity) -> None:
    gpus, there = request.gpus_per_rank, capacity.accelerators
    if gpus is not None and there and ppn * gpus > there:
        raise UsageError(
            f"{ppn} ranks a node x {gpus} accelerators a rank = {ppn * gpus} > {there} ({capacity.why})",
            hint=f"--ppn {there // gpus}" if gpus <= there else "ask for fewer a rank",
        )


def pluralize(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
