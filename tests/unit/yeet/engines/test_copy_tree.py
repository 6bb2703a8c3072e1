"""Who copies from whom: `pick_source` by its contract, and the Tree in simulated fan-outs of thousands of nodes."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezpz.yeet.engines.copy_tree import MAX_FAILURES, MAX_PER_SOURCE, CopyTree, pick_source

ORIGIN = "origin"
LOADS = st.dictionaries(st.integers(0, 30), st.integers(0, 10), max_size=12)


class TestPickSource:
    """A least-loaded source under the cap, ties broken by the given rng."""

    @given(LOADS, st.integers(1, 10), st.integers())
    def test_it_is_a_least_loaded_one_under_the_cap(self, loads: dict[int, int], cap: int, seed: int) -> None:
        before = dict(loads)
        picked = pick_source(loads, cap, rng=random.Random(seed))
        assert loads == before
        least = min(loads.values(), default=cap)
        if least >= cap:
            assert picked is None
        else:
            assert picked is not None
            assert loads[picked] == least

    @pytest.mark.parametrize("loads", [{}, {"a": 8, "b": 8}, {"a": 9}])
    def test_none_when_there_is_none_or_all_are_full(self, loads: dict[str, int]) -> None:
        assert pick_source(loads, 8, rng=random.Random(1)) is None

    def test_the_cap_is_exclusive(self) -> None:
        assert pick_source({"a": 7}, 8) == "a"
        assert pick_source({"a": 8, "b": 7}, 8) == "b"

    def test_one_seed_gives_one_sequence_and_another_seed_another(self) -> None:
        loads = dict.fromkeys(range(100), 0)

        def picks(seed: int) -> list[int | None]:
            rng = random.Random(seed)
            return [pick_source(loads, 1, rng=rng) for _ in range(20)]

        first = picks(5)
        assert first == picks(5)
        assert first != picks(6)
        assert len(set(first)) > 10

    def test_every_one_of_the_idle_is_picked_at_times(self) -> None:
        rng = random.Random(3)
        picked = Counter(pick_source({"a": 0, "b": 1, "c": 0, "d": 0}, 8, rng=rng) for _ in range(300))
        assert set(picked) == {"a", "c", "d"}
        assert min(picked.values()) > 50

    def test_the_global_rng_is_never_touched(self) -> None:
        random.seed(1)
        state = random.getstate()
        picked = {pick_source(dict.fromkeys("abcdefgh", 0), 8) for _ in range(200)}
        assert random.getstate() == state
        assert len(picked) > 1
        random.seed(1)
        repeated = {pick_source(dict.fromkeys(range(10**6), 0), 8) for _ in range(2)}
        random.seed(1)
        assert repeated != {pick_source(dict.fromkeys(range(10**6), 0), 8) for _ in range(2)}


@dataclass
class Run:
    """What a simulated fan-out did: who was served by whom and when, and who gave up after how many attempts."""

    served: dict[str, str] = field(default_factory=dict)
    given_up: dict[str, int] = field(default_factory=dict)
    copies: list[tuple[str, str, bool]] = field(default_factory=list)
    most_active: Counter[str] = field(default_factory=Counter)
    rounds: float = 0.0


class Simulation:
    """Copies that take a second or so each, and fail where a test wants them to.

    dead: nodes that no copy reaches; rotten: sources all of whose copies fail; flaky: the share of copies that fail
    closed: no node can log in to another, only the origin can log in to all
    """

    def __init__(
        self, nodes: int, *, seed: int = 1, retries: int = 2, cap: int = MAX_PER_SOURCE,
        dead: frozenset[str] = frozenset(), rotten: frozenset[str] = frozenset(), flaky: float = 0.0,
        closed: bool = False,
    ) -> None:  # fmt: skip
        self.nodes = tuple(f"n{number}" for number in range(nodes))
        self.world = random.Random(seed)
        self.tree: CopyTree[str] = CopyTree(
            ORIGIN, self.nodes, retries=retries, rng=random.Random(seed), max_per_source=cap
        )
        self.dead, self.rotten, self.flaky, self.closed = dead, rotten, flaky, closed
        self.active: Counter[str] = Counter()
        self.run = Run()

    def play(self) -> Run:
        now, number = 0.0, 0
        under_way: list[tuple[float, int, str, str]] = []
        while True:
            while (pair := self.tree.next()) is not None:
                node, source = pair
                self._check(node, source)
                number += 1
                heapq.heappush(under_way, (now + self.world.uniform(0.8, 1.2), number, node, source))
            if not under_way:
                self.run.rounds = now
                return self.run
            now, _, node, source = heapq.heappop(under_way)
            self._end(node, source)

    def _check(self, node: str, source: str) -> None:
        assert node not in self.run.served
        assert node not in self.run.given_up
        assert source == ORIGIN or source in self.run.served
        self.active[source] += 1
        assert len(self.run.copies) < 50 * (len(self.nodes) + 1), "it never ends"
        self.run.most_active[source] = max(self.run.most_active[source], self.active[source])

    def _end(self, node: str, source: str) -> None:
        self.active[source] -= 1
        if self.closed and source != ORIGIN:
            self.run.copies.append((node, source, False))
            if not self.tree.unreachable(node, source):
                self.run.given_up[node] = self.tree.attempts[node]
            return
        bad_node = node in self.dead
        bad = bad_node or source in self.rotten or self.world.random() < self.flaky
        self.run.copies.append((node, source, not bad))
        if not bad:
            self.run.served[node] = source
            self.tree.done(node, source)
        elif not self.tree.failed(node, source, blame_source=not bad_node):
            self.run.given_up[node] = self.tree.attempts[node]


class TestTree:
    """Every node that has the data becomes a source at once."""

    def test_four_thousand_nodes_without_trouble(self) -> None:
        run = Simulation(4096).play()
        assert len(run.served) == 4096
        assert max(run.most_active.values()) <= MAX_PER_SOURCE
        assert run.rounds < 12  # a doubling tree: log2(4096) rounds at most, fewer with eight copies a source
        assert len(set(run.served.values())) > 400

    def test_four_thousand_nodes_with_every_kind_of_trouble(self) -> None:
        rng = random.Random(8)
        names = [f"n{number}" for number in range(4096)]
        dead, rotten = frozenset(rng.sample(names, 100)), frozenset(rng.sample(names, 200))
        run = Simulation(4096, seed=3, retries=3, dead=dead, rotten=rotten, flaky=0.02).play()
        assert len(run.served) + len(run.given_up) == 4096
        assert dead <= set(run.given_up)
        assert {attempts for node, attempts in run.given_up.items() if node in dead} == {4}
        assert len(set(run.given_up) - dead) < 40

    @settings(max_examples=min(60, settings().max_examples))
    @given(
        st.integers(1, 60), st.integers(0, 4), st.integers(1, 9), st.integers(), st.floats(0, 0.9),
        st.sets(st.integers(0, 59), max_size=20), st.sets(st.integers(0, 59), max_size=20),
    )  # fmt: skip
    def test_every_node_is_served_or_gives_up_after_its_budget(
        self, nodes: int, retries: int, cap: int, seed: int, flaky: float, dead: set[int], rotten: set[int]
    ) -> None:
        simulation = Simulation(
            nodes, seed=seed, retries=retries, cap=cap, flaky=flaky,
            dead=frozenset(f"n{number}" for number in dead), rotten=frozenset(f"n{number}" for number in rotten),
        )  # fmt: skip
        run = simulation.play()
        assert set(run.served) | set(run.given_up) == set(simulation.nodes)
        assert not set(run.served) & set(run.given_up)
        assert set(run.given_up.values()) <= {retries + 1}
        assert all(count <= cap for count in run.most_active.values())
        attempts = Counter(node for node, _, _ in run.copies)
        assert all(count <= retries + 1 for count in attempts.values())
        assert not any(simulation.active.values())

    def test_one_seed_gives_one_run(self) -> None:
        trouble = {"dead": frozenset({"n3"}), "rotten": frozenset({"n5", "n9"}), "flaky": 0.1}
        first, again, other = (Simulation(300, seed=seed, **trouble).play().copies for seed in (4, 4, 5))  # type: ignore[arg-type]
        assert first == again
        assert first != other

    def test_a_source_that_failed_twice_in_a_row_is_not_used_again(self) -> None:
        tree: CopyTree[str] = CopyTree(ORIGIN, tuple("abcdefgh"), retries=9, rng=random.Random(1), max_per_source=1)
        first = tree.next()
        assert first is not None
        tree.done(*first)  # two sources now
        bad = first[0]
        failures, after = 0, []
        for _ in range(40):
            under_way = [pair for pair in (tree.next(), tree.next()) if pair is not None]
            for node, source in under_way:
                if failures >= MAX_FAILURES:
                    after.append(source)
                if source == bad:
                    failures += 1
                    tree.failed(node, source, blame_source=True)
                else:
                    tree.failed(node, source, blame_source=False)
        assert failures == MAX_FAILURES
        assert after
        assert bad not in after

    def test_a_success_in_between_forgives(self) -> None:
        tree: CopyTree[str] = CopyTree(ORIGIN, ("a", "b", "c", "d"), retries=9, rng=random.Random(1), max_per_source=1)
        pair = tree.next()
        assert pair is not None
        tree.done(*pair)
        for succeeds in (False, True, False):
            first, second = tree.next(), tree.next()
            for node, source in (first or ("", ""), second or ("", "")):
                if source and succeeds:
                    tree.done(node, source)
                elif source:
                    tree.failed(node, source, blame_source=True)
        assert {ORIGIN, pair[0]} <= set(tree.active)

    @pytest.mark.parametrize("nodes", [1, 2, 40, 500])
    def test_nodes_that_cannot_log_in_to_each_other_are_served_by_the_origin(self, nodes: int) -> None:
        run = Simulation(nodes, closed=True, retries=0).play()
        assert set(run.served.values()) == {ORIGIN}
        assert len(run.served) == nodes
        assert run.most_active[ORIGIN] <= MAX_PER_SOURCE

    @pytest.mark.parametrize("seed", range(8))
    def test_when_they_cannot_and_the_origin_fails_at_times_it_still_ends(self, seed: int) -> None:
        run = Simulation(30, seed=seed, closed=True, flaky=0.4, retries=2).play()
        assert len(run.served) + len(run.given_up) == 30
        assert max(run.given_up.values(), default=0) <= 3

    def test_the_last_source_is_kept_whatever_it_does(self) -> None:
        run = Simulation(20, retries=3, rotten=frozenset({ORIGIN})).play()
        assert len(run.given_up) == 20
        assert len(run.copies) == 80

    def test_a_retry_prefers_another_source(self) -> None:
        for seed in range(30):
            tree: CopyTree[str] = CopyTree(ORIGIN, ("a", "b", "c"), retries=5, rng=random.Random(seed))
            pair = tree.next()
            assert pair is not None
            tree.done(*pair)
            node, source = tree.next() or ("", "")
            assert tree.failed(node, source, blame_source=True)
            again = {pair[0]: pair[1] for pair in (tree.next(), tree.next()) if pair is not None}
            assert again[node] != source

    def test_a_retry_takes_the_same_source_if_there_is_no_other(self) -> None:
        tree: CopyTree[str] = CopyTree(ORIGIN, ("a",), retries=2, rng=random.Random(1))
        for _ in range(3):
            assert tree.next() == ("a", ORIGIN)
            retried = tree.failed("a", ORIGIN, blame_source=True)
        assert not retried
        assert tree.next() is None
        assert tree.attempts == {"a": 3}

    def test_it_is_not_tried_again_when_that_is_hopeless(self) -> None:
        tree: CopyTree[str] = CopyTree(ORIGIN, ("a",), retries=2, rng=random.Random(1))
        assert tree.next() == ("a", ORIGIN)
        assert not tree.failed("a", ORIGIN, blame_source=False, again=False)
        assert tree.next() is None

    def test_a_failure_of_the_node_is_not_held_against_its_source(self) -> None:
        tree: CopyTree[str] = CopyTree(ORIGIN, ("a", "b", "c"), retries=5, rng=random.Random(1))
        first = tree.next()
        assert first is not None
        tree.done(*first)
        for _ in range(4):
            pair = tree.next()
            assert pair is not None
            tree.failed(*pair, blame_source=False)
        assert set(tree.active) == {ORIGIN, first[0]}

    def test_a_node_that_has_it_already_is_a_source_and_is_never_served(self) -> None:
        simulation = Simulation(10, cap=1)
        simulation.tree.has("n4")
        simulation.run.served["n4"] = "itself"
        run = simulation.play()
        assert len(run.served) == 10
        assert all(node != "n4" for node, _, _ in run.copies)
        assert any(source == "n4" for _, source, _ in run.copies)

    def test_nothing_to_do(self) -> None:
        assert CopyTree(ORIGIN, (), retries=2, rng=random.Random(1)).next() is None

    def test_a_full_source_makes_the_others_wait(self) -> None:
        tree: CopyTree[str] = CopyTree(ORIGIN, tuple("abc"), retries=2, rng=random.Random(1), max_per_source=2)
        pairs = [tree.next(), tree.next()]
        assert tree.next() is None
        assert pairs[0] is not None
        tree.done(*pairs[0])
        assert tree.next() is not None
