"""The simulator of bench/: its fluid flows as arithmetic says, and streams to many nodes end in time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from bench import scale, simulate
from bench.fluid import ROOT, Clock, Fluid, World
from bench.simulate import DIAL, TICK, Simulation
from ezpz.yeet.engines.stream.topology import depth
from ezpz.yeet.engines.stream.tree_scheduler import SILENCE, TreeScheduler

if TYPE_CHECKING:
    from ezpz.yeet.engines.stream.node_state import Release, Serve

GB = 1e9


class Flow:
    """A fluid of 8 GB at 1 GB/s without latency; remembers when each node was full."""

    def __init__(self, nodes: int = 4, land: float = 9 * GB) -> None:
        self.clock = Clock()
        self.full: dict[int, float] = {}
        world = World(nodes=nodes, hop=0.0, chunk=0, land=land)
        self.fluid = Fluid(world, self.clock, lambda node: self.full.setdefault(node, round(self.clock.now, 6)))

    def run(self) -> dict[int, float]:
        while self.clock.step():
            pass
        return self.full


class TestFluid:
    """A host's uplink is shared equally, and nobody gets what its parent has not."""

    def test_a_chain_takes_one_copy(self) -> None:
        flow = Flow()
        for parent, child in ((ROOT, 0), (0, 1), (1, 2)):
            flow.fluid.link(parent, child)
        assert flow.run() == {0: 8.0, 1: 8.0, 2: 8.0}

    def test_two_children_take_two(self) -> None:
        flow = Flow()
        for parent, child in ((ROOT, 0), (ROOT, 1), (0, 2)):
            flow.fluid.link(parent, child)
        assert flow.run() == {0: 16.0, 1: 16.0, 2: 16.0}

    def test_who_comes_later_gets_its_share_and_all_of_it_at_the_end(self) -> None:
        flow = Flow()
        flow.fluid.link(ROOT, 0)
        flow.clock.after(4, flow.fluid.link, ROOT, 1)
        assert flow.run() == {0: 12.0, 1: 16.0}

    def test_who_is_adopted_catches_up_from_where_it_was(self) -> None:
        flow = Flow()
        flow.fluid.link(ROOT, 0)
        flow.fluid.link(0, 1)
        flow.clock.after(2, flow.fluid.unlink, 1)
        flow.clock.after(5, flow.fluid.link, 0, 1)
        assert flow.run() == {0: 8.0, 1: 11.0}

    def test_who_is_adopted_by_one_that_is_behind_waits_for_it(self) -> None:
        flow = Flow()
        flow.fluid.link(ROOT, 0)
        flow.clock.after(4, flow.fluid.unlink, 0)
        flow.clock.after(4, flow.fluid.link, ROOT, 1)
        flow.clock.after(4, flow.fluid.link, 1, 0)
        assert flow.run() == {1: 12.0, 0: 12.0}

    def test_nothing_flows_through_the_dead_and_nothing_is_spent_on_them(self) -> None:
        flow = Flow()
        for parent, child in ((ROOT, 0), (ROOT, 1), (0, 2)):
            flow.fluid.link(parent, child)
        flow.clock.after(4, flow.fluid.die, 0)
        assert flow.run() == {1: 10.0}
        assert flow.fluid.position(2) == pytest.approx(2 * GB)

    def test_a_disk_may_be_slower_than_the_network(self) -> None:
        flow = Flow(land=GB / 4)
        flow.fluid.link(ROOT, 0)
        assert flow.run() == {0: 32.0}

    def test_the_last_byte_has_its_latency(self) -> None:
        clock = Clock()
        full: dict[int, float] = {}
        world = World(nodes=2, hop=0.5, chunk=int(0.1 * GB))
        fluid = Fluid(world, clock, lambda node: full.setdefault(node, round(clock.now, 6)))
        fluid.link(ROOT, 0)
        fluid.link(0, 1)
        while clock.step():
            pass
        assert full == {0: 8.6, 1: 9.2}


class TestSimulation:
    """Every live node is served, in the time that arithmetic gives."""

    @pytest.mark.parametrize("nodes", [1, 64, 512, 2048])
    def test_without_deaths_it_takes_what_arithmetic_says(self, nodes: int) -> None:
        world = World(nodes=nodes, dying=0)
        simulation = Simulation(world)
        outcome = simulation.play()
        width = simulation.shape.width
        passing = world.hop + width * world.chunk / world.rate
        expected = outcome.started + DIAL + width * world.size / world.rate + depth(nodes, width) * passing
        assert outcome.seconds == pytest.approx(expected, rel=0.02)
        assert outcome.depth == depth(nodes, width)
        assert (outcome.served, outcome.left_out, outcome.deaths, outcome.adoptions) == (nodes, 0, 0, 0)

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("nodes", [64, 512])
    def test_with_many_deaths_every_live_node_is_served(self, nodes: int, seed: int) -> None:
        outcome = Simulation(World(nodes=nodes, dying=0.1, seed=seed)).play()
        assert outcome.left_out == 0
        assert outcome.deaths > 0.05 * nodes
        assert outcome.served == nodes - outcome.deaths
        assert outcome.adoptions > 0
        assert outcome.parkings == 0  # all are as fast as their parents: who was cut off, or catches up, does not lag

    @pytest.mark.scale
    def test_four_thousand_of_which_some_die_within_a_minute(self) -> None:
        outcome = Simulation(World()).play()
        assert outcome.seconds <= 60
        assert (outcome.left_out, outcome.deaths) == (0, 41)

    @pytest.mark.parametrize(("nodes", "hung"), [(64, 1), (64, 3), (512, 10)])
    def test_a_disk_that_hangs_before_its_first_chunk_has_landed_costs_only_its_node(
        self, nodes: int, hung: int
    ) -> None:
        usual = Simulation(World(nodes=nodes, dying=0)).play()
        outcome = Simulation(World(nodes=nodes, dying=0, hung=hung / nodes)).play()
        assert (outcome.served, outcome.left_out, outcome.given_up) == (nodes - hung, 0, hung)
        assert outcome.parkings == 0
        assert outcome.seconds < usual.seconds + 2 * (SILENCE + TICK)

    def test_a_death_in_a_chain_costs_a_connection_and_no_second_copy(self) -> None:
        world = World(nodes=64, dying=0.016, stall=0.0)
        outcome = Simulation(world).play()
        assert (outcome.deaths, outcome.served) == (1, 63)
        assert outcome.seconds < 8.3 + 64 * 0.0031 + 3 * DIAL

    def test_one_seed_gives_one_outcome(self) -> None:
        first, again, other = (Simulation(World(nodes=300, dying=0.05, seed=seed)).play() for seed in (4, 4, 5))
        assert first == again
        assert first != other


class TestCommand:
    """What is printed, and the exit code."""

    def test_it_tells_how_it_went(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert simulate.main(["--nodes", "64", "--dying", "0", "--bound", "9"]) == 0
        said = capsys.readouterr().out
        assert "64 nodes served, 0 live nodes not served" in said
        assert "0 deaths, 0 adoptions, 0 parked, depth 64" in said

    def test_longer_than_the_bound_is_a_failure(self) -> None:
        assert simulate.main(["--nodes", "64", "--bound", "7"]) == 1

    def test_a_live_node_that_was_not_served_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Careless(TreeScheduler[int]):
            def start(self) -> list[Serve[int] | Release[int]]:  # type: ignore[override]
                return []

        monkeypatch.setattr(simulate, "TreeScheduler", Careless)
        assert simulate.main(["--nodes", "8", "--dying", "0", "--size", "1e6"]) == 1


class TestPicture:
    """An SVG that is well made."""

    def test_it_is_xml_and_names_its_sources(self) -> None:
        rng = random.Random(1)
        measured = tuple((count, 9.0, 9 + rng.random()) for count in scale.COUNTS)
        drawn = scale.picture(World(), measured)
        words = " ".join(ElementTree.fromstring(drawn).itertext())
        assert all(word in words for word in ("saforem2/ezpz", "bench.simulate", "751 s", "8,192", "S/B = 8 s"))
        assert "nan" not in drawn

    def test_nothing_is_drawn_outside_of_it(self) -> None:
        drawn = scale.picture(World(), tuple((count, 9.0, 40.0) for count in scale.COUNTS))
        for circle in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}circle"):
            assert scale.LEFT <= float(circle.attrib["cx"]) <= scale.RIGHT
            assert scale.TOP <= float(circle.attrib["cy"]) <= scale.BOTTOM
