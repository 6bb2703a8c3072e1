"""Number of ranks and nodes of a run, from the request, the allocation, and the capacity of a node. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ezpz.errors import NotEnoughNodes, UsageError


@dataclass(frozen=True, slots=True)
class NodeCount:
    """The number of nodes of --nhosts: as many as available, up to `maximum`. The remaining nodes are spares."""

    minimum: int
    maximum: int

    def __str__(self) -> str:
        return str(self.minimum) if self.minimum == self.maximum else f"{self.minimum}:{self.maximum}"


@dataclass(frozen=True, slots=True)
class RankRequest:
    """The numbers that the user set; None for those that are not set.

    Attributes:
        spares: How many nodes to keep idle to replace failed ones; excludes `nhosts`.
    """

    nproc: int | None = None
    ppn: int | None = None
    nhosts: NodeCount | None = None
    spares: int = 0
    gpus_per_rank: int | None = None


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """How many ranks run on a node by default, and why.

    Attributes:
        accelerators: The number per node, 0 if there are none or it is unknown.
        evidence: One line for each source of information that had no answer.
    """

    ranks: int = 1
    accelerators: int = 0
    why: str = "one rank a node"
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """The numbers of a run: the first `nodes` nodes are filled one after another with `ppn` ranks each.

    Attributes:
        spares: The number of remaining nodes.
        evidence: One line for each number that the user did not set.
    """

    nodes: int
    ranks: int
    ppn: int
    spares: int = 0
    evidence: tuple[str, ...] = ()

    def ranks_on(self, node: int) -> int:
        """Return the number of ranks on the node with this index: `ppn`, or fewer on the last one."""
        return min(self.ppn, self.ranks - node * self.ppn)


def compute_topology(request: RankRequest, available: int, capacity: NodeCapacity = NodeCapacity()) -> Topology:
    """Return how many ranks run, on how many of the `available` nodes. With --nproc alone, each node has as many.

    Raises:
        UsageError: The numbers contradict each other.
        NotEnoughNodes: More nodes are requested than available.
    """
    _check_minimums(request)
    hosts = _node_count(request, available)
    if request.nproc is None:
        topology = _fill_nodes(request, hosts, capacity)
    else:
        topology = _place_ranks(request, request.nproc, hosts)
    _check_gpus(request, topology.ppn, capacity)
    return replace(topology, spares=available - topology.nodes)


def _check_minimums(request: RankRequest) -> None:
    """Raise UsageError for numbers that are too small. The command line checks them itself, the Python API does not."""
    minimum, maximum = (request.nhosts.minimum, request.nhosts.maximum) if request.nhosts else (1, 1)
    for name, number, lowest in (
        ("nproc", request.nproc, 1),
        ("ppn", request.ppn, 1),
        ("gpus_per_rank", request.gpus_per_rank, 1),
        ("nhosts", minimum, 1),
        ("the most of nhosts", maximum, minimum),
        ("spares", request.spares, 0),
    ):
        if number is not None and number < lowest:
            raise UsageError(f"{name} is {number}, and must be at least {lowest}")


def _node_count(request: RankRequest, available: int) -> int:
    """Return how many nodes can run ranks: the maximum of --nhosts, or all but the spares."""
    nhosts = request.nhosts
    if nhosts is not None and request.spares:
        raise UsageError(
            "--nhosts and --spares exclude each other", hint="what --nhosts leaves are the spares; leave out --spares"
        )
    asked = f"--nhosts {nhosts}" if nhosts is not None else f"--spares {request.spares}"
    needed = nhosts.minimum if nhosts is not None else request.spares + 1
    if needed > available:
        raise NotEnoughNodes(
            f"{asked} needs {_with_noun(needed, 'node')}, and there {'is' if available == 1 else 'are'} {available}",
            hint="ask for fewer, or for a larger job",
        )
    if nhosts is None:
        return available - request.spares
    return _largest_fitting(request, nhosts.minimum, min(nhosts.maximum, available))


def _largest_fitting(request: RankRequest, minimum: int, maximum: int) -> int:
    """Return the largest number of nodes between the limits that a fixed number of ranks fits on."""
    if request.nproc is None:
        return maximum
    counts = reversed(range(minimum, maximum + 1))
    if request.ppn is not None:
        return next((hosts for hosts in counts if hosts * request.ppn == request.nproc), maximum)
    return next((hosts for hosts in counts if request.nproc % hosts == 0), maximum)


def _fill_nodes(request: RankRequest, hosts: int, capacity: NodeCapacity) -> Topology:
    """Return a topology of full nodes."""
    evidence: tuple[str, ...] = ()
    ppn = request.ppn
    if ppn is None:
        ppn, why = _infer_ppn(request, capacity)
        evidence = (f"--ppn {ppn}: {why}",)
    ranks = hosts * ppn
    return Topology(hosts, ranks, ppn, evidence=(*evidence, f"-n {ranks}: {_with_noun(hosts, 'node')} x {ppn}"))


def _place_ranks(request: RankRequest, ranks: int, hosts: int) -> Topology:
    """Return a topology for a fixed number of ranks. Raise UsageError if they do not fit."""
    ppn = request.ppn
    if ppn is None:
        ppn = _even_ppn(request, ranks, hosts)
        used = -(-ranks // ppn)
        return Topology(used, ranks, ppn, evidence=(f"--ppn {ppn}: {ranks} ranks on {_with_noun(used, 'node')}",))
    if request.nhosts is not None and ranks != hosts * ppn:
        raise UsageError(
            f"{ranks} ranks != {hosts} hosts x {ppn} ranks a host = {hosts * ppn}",
            hint=f"leave out one of -n {ranks}, --nhosts {request.nhosts} and --ppn {ppn}",
        )
    if ranks > hosts * ppn:
        raise UsageError(
            f"-n {ranks} does not fit with --ppn {ppn}: {_with_noun(hosts, 'node')} x {ppn} = {hosts * ppn} < {ranks}",
            hint=f"raise --ppn to {-(-ranks // hosts)}, or leave it out",
        )
    return Topology(-(-ranks // ppn), ranks, ppn)


def _even_ppn(request: RankRequest, ranks: int, hosts: int) -> int:
    """Return the number of ranks per node if all have as many. Fewer ranks than nodes are one per node."""
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
    gpus, available = request.gpus_per_rank, capacity.accelerators
    if gpus is not None and available and ppn * gpus > available:
        raise UsageError(
            f"{ppn} ranks a node x {gpus} accelerators a rank = {ppn * gpus} > {available} ({capacity.why})",
            hint=f"--ppn {available // gpus}" if gpus <= available else "ask for fewer a rank",
        )


def _with_noun(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
