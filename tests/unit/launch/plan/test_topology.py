"""launch/topology.py: numbers that fit, and sums for those that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.errors import NotEnoughNodes, UsageError
from ezpz.launch.plan.topology import NodeCapacity, NodeCount, RankRequest, Topology, compute_topology

GPUS = NodeCapacity(4, 4, "site x has 4 accelerators a node")


@pytest.mark.parametrize(
    ("count", "nproc", "ppn", "spreads"),
    [
        (4, None, None, (4, 4, 1)),
        (4, None, 12, (4, 48, 12)),
        (4, 8, None, (4, 8, 2)),
        (4, 2, None, (2, 2, 1)),
        (4, 10, 3, (4, 10, 3)),
        (4, 3, 3, (1, 3, 3)),
        (1, 7, None, (1, 7, 7)),
    ],
)
def test_spread(count: int, nproc: int | None, ppn: int | None, spreads: tuple[int, int, int]) -> None:
    found = compute_topology(RankRequest(nproc, ppn), count)
    assert (found.nodes, found.ranks, found.ppn) == spreads


def test_what_is_left_out_is_inferred_with_its_reason() -> None:
    found = compute_topology(RankRequest(), 2, GPUS)
    assert (found.ranks, found.ppn) == (8, 4)
    assert found.evidence == ("--ppn 4: site x has 4 accelerators a node", "-n 8: 2 nodes x 4")
    assert compute_topology(RankRequest(gpus_per_rank=2), 2, GPUS).ppn == 2


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (RankRequest(12, 4, NodeCount(2, 2)), "12 ranks != 2 hosts x 4 ranks a host = 8"),
        (RankRequest(10, 2), "-n 10 does not fit with --ppn 2: 4 nodes x 2 = 8 < 10"),
        (RankRequest(10), "4 nodes x 2 = 8, 4 nodes x 3 = 12"),
        (RankRequest(2, nhosts=NodeCount(3, 3)), "2 ranks < 3 hosts"),
        (RankRequest(ppn=3, gpus_per_rank=2), "3 ranks a node x 2 accelerators a rank = 6 > 4"),
        (RankRequest(gpus_per_rank=5), "--gpus-per-rank 5: a node has 4"),
    ],
)
def test_numbers_that_do_not_fit_are_shown_as_a_sum(numbers: RankRequest, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        compute_topology(numbers, 4, GPUS)
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("numbers", [RankRequest(nhosts=NodeCount(5, 6)), RankRequest(spares=4)])
def test_more_nodes_than_there_are(numbers: RankRequest) -> None:
    with pytest.raises(NotEnoughNodes, match="needs 5 nodes, and there are 4"):
        compute_topology(numbers, 4)


def test_spares_are_all_behind_the_nodes_that_run() -> None:
    assert compute_topology(RankRequest(nhosts=NodeCount(2, 2)), 3) == Topology(
        2, 2, 1, 1, compute_topology(RankRequest(), 2).evidence
    )
    assert compute_topology(RankRequest(spares=1), 4).nodes == 3
    assert compute_topology(RankRequest(2, spares=1), 4).spares == 2


@pytest.mark.parametrize(
    ("numbers", "nodes"),
    [
        (RankRequest(nhosts=NodeCount(2, 3)), 3),
        (RankRequest(nhosts=NodeCount(2, 9)), 4),
        (RankRequest(6, nhosts=NodeCount(2, 4)), 3),
        (RankRequest(4, 2, NodeCount(2, 4)), 2),
    ],
)
def test_a_range_takes_as_many_nodes_as_there_are_and_the_ranks_fit_on(numbers: RankRequest, nodes: int) -> None:
    assert compute_topology(numbers, 4).nodes == nodes


def test_there_is_one_way_to_ask_for_spares() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        compute_topology(RankRequest(nhosts=NodeCount(2, 2), spares=1), 4)


@pytest.mark.parametrize(
    "numbers",
    [
        RankRequest(0),
        RankRequest(ppn=-1),
        RankRequest(gpus_per_rank=0),
        RankRequest(spares=-1),
        RankRequest(nhosts=NodeCount(0, 2)),
        RankRequest(nhosts=NodeCount(3, 2)),
    ],
)
def test_numbers_that_cannot_be(numbers: RankRequest) -> None:
    with pytest.raises(UsageError, match="must be at least"):
        compute_topology(numbers, 4)


counts = st.integers(1, 5000)
maybe = st.none() | counts
few = st.integers(1, 128)


@st.composite
def rank_requests(draw: st.DrawFn) -> RankRequest:
    """Any numbers, many of which contradict each other."""
    minimum = draw(st.none() | st.integers(1, 64))
    nhosts = None if minimum is None else NodeCount(minimum, minimum + draw(st.integers(0, 8)))
    return RankRequest(
        draw(maybe), draw(st.none() | few), nhosts, draw(st.integers(0, 4)), draw(st.none() | st.integers(1, 16))
    )


@given(numbers=rank_requests(), count=counts, capacity=st.builds(NodeCapacity, few, st.integers(0, 16)))
def test_what_is_spread_always_fits(numbers: RankRequest, count: int, capacity: NodeCapacity) -> None:
    try:
        found = compute_topology(numbers, count, capacity)
    except (UsageError, NotEnoughNodes):
        return
    assert numbers.nproc in (None, found.ranks)
    assert numbers.ppn in (None, found.ppn)
    assert found.nodes + found.spares == count
    assert all(1 <= found.ranks_on(node) <= found.ppn for node in range(found.nodes))
    assert sum(found.ranks_on(node) for node in range(found.nodes)) == found.ranks
    if numbers.nhosts is not None:
        assert found.nodes <= numbers.nhosts.maximum
        assert numbers.nhosts.minimum <= found.nodes
    if numbers.gpus_per_rank and capacity.accelerators:
        assert found.ppn * numbers.gpus_per_rank <= capacity.accelerators


@given(count=counts, ppn=few)
def test_numbers_that_agree_are_taken_in_any_combination(count: int, ppn: int) -> None:
    nhosts = NodeCount(count, count)
    full = (count, count * ppn, ppn)
    for numbers in (
        RankRequest(count * ppn, ppn, nhosts),
        RankRequest(count * ppn, None, nhosts),
        RankRequest(None, ppn, nhosts),
    ):
        found = compute_topology(numbers, count)
        assert (found.nodes, found.ranks, found.ppn) == full


@given(
    nproc=st.integers(1, 40),
    ppn=st.none() | st.integers(1, 8),
    minimum=st.integers(1, 8),
    more=st.integers(0, 4),
    count=st.integers(1, 10),
)
def test_numbers_are_refused_only_if_nothing_fits(
    nproc: int, ppn: int | None, minimum: int, more: int, count: int
) -> None:
    """Against all there is to try. Without ppn, every node gets as many ranks as every other."""
    tried = range(minimum, min(minimum + more, count) + 1)
    fits = [hosts for hosts in tried if (nproc == hosts * ppn if ppn else nproc % hosts == 0)]
    numbers = RankRequest(nproc, ppn, NodeCount(minimum, minimum + more))
    if fits:
        assert compute_topology(numbers, count).nodes == max(fits)
    else:
        with pytest.raises((UsageError, NotEnoughNodes)):
            compute_topology(numbers, count)
