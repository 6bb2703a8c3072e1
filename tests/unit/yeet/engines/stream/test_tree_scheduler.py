"""The course of a stream: what it wants done for each event, and runs in which anything goes wrong in any order."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezpz.yeet.engines.copy_tree import MAX_PER_SOURCE
from ezpz.yeet.engines.stream.node_state import WINDOW, Action, GiveUp, NodePhase, RandomSet, Release, Serve
from ezpz.yeet.engines.stream.tree_scheduler import (
    AGAIN,
    ATTEMPTS,
    HUNG,
    LAG,
    LAGGING,
    SILENCE,
    SPARE,
    UNPUBLISHED,
    TreeScheduler,
)

ROOT = "root"
MB = 1_000_000


def course(nodes: str, width: int = 1, wire: float = 0.0, seed: int = 1) -> TreeScheduler[str]:
    """A course that has started; each letter is a node."""
    made = TreeScheduler(ROOT, tuple(nodes), width, random.Random(seed), wire=wire)
    made.start()
    return made


def at(run: TreeScheduler[str], **positions: int) -> None:
    """Every node reports its position in chunks of one byte."""
    for node, position in positions.items():
        assert run.moved(node, position, position, 0.0) == []


class TestStart:
    """The tree that was planned."""

    def test_a_chain(self) -> None:
        run: TreeScheduler[str] = TreeScheduler(ROOT, tuple("abc"), 1, random.Random(1))
        assert run.start() == [Serve(ROOT, "a"), Serve("a", "b"), Serve("b", "c")]
        assert [run.depth_of(node) for node in "abc"] == [1, 2, 3]
        assert run.depth == 3

    def test_two_children_each(self) -> None:
        run: TreeScheduler[str] = TreeScheduler(ROOT, tuple("abcdef"), 2, random.Random(1))
        pairs = [(action.parent, action.child) for action in run.start() if isinstance(action, Serve)]
        assert pairs == [(ROOT, "a"), (ROOT, "b"), ("a", "c"), ("a", "d"), ("b", "e"), ("b", "f")]

    def test_a_node_that_is_lost_before_has_no_place_in_it(self) -> None:
        run: TreeScheduler[str] = TreeScheduler(ROOT, tuple("abc"), 1, random.Random(1))
        assert run.gone("b", "it died") == []
        assert run.start() == [Serve(ROOT, "a"), Serve("a", "c")]

    def test_no_nodes(self) -> None:
        run: TreeScheduler[str] = TreeScheduler(ROOT, (), 2, random.Random(1))
        assert run.start() == []
        assert run.is_over
        assert run.depth == 0


class TestEnd:
    """It is over when every node has ended, well or badly."""

    def test_well_and_badly(self) -> None:
        run = course("abc")
        for node in "ab":
            run.whole(node)
        assert not run.is_over
        run.done("a")
        run.done("b")
        assert not run.is_over
        run.gone("c", "it died")
        assert run.is_over
        assert run.members["c"].why == "it died"

    def test_what_is_heard_of_a_node_that_failed_changes_nothing(self) -> None:
        run = course("ab")
        run.gone("a", "it died")
        events = [
            run.moved("a", 9, 9, 1.0), run.whole("a"), run.done("a"), run.gone("a", "again"), run.cut("a", ROOT, 1.0),
            run.refused("a", ROOT, "no"), run.damaged("a", (1,)),
        ]  # fmt: skip
        assert not any(events)
        assert run.members["a"].state is NodePhase.FAILED

    def test_what_is_heard_of_a_serving_that_has_ended_changes_nothing(self) -> None:
        run = course("abc")
        run.gone("b", "it died")
        assert run.members["c"].parent == "a"
        assert run.cut("c", "b", 1.0) == []
        assert run.refused("c", "b", "no") == []
        assert run.members["c"].cuts == 0


class TestDeath:
    """Those that a dead node served go on from where they are."""

    def test_in_a_chain_its_child_goes_to_its_parent(self) -> None:
        run = course("abcd")
        at(run, a=40, b=30, c=20, d=10)
        assert run.gone("b", "it died") == [Release("a", "b"), Serve("a", "c")]
        assert run.members["c"].position == 20
        assert run.members["d"].parent == "c"
        assert run.adoptions == 1

    def test_the_first_one_s_child_goes_to_the_root(self) -> None:
        run = course("abc")
        at(run, a=40, b=30, c=20)
        assert run.gone("a", "it died") == [Release(ROOT, "a"), Serve(ROOT, "b")]

    def test_in_a_tree_one_child_takes_its_place_and_an_idle_leaf_serves_the_other(self) -> None:
        run = course("abcdefghijklmn", 2)  # a serves c and d, c serves g and h
        at(run, **dict.fromkeys("abcdefghijklmn", 5))
        first, second, third = run.gone("c", "it died")
        assert (first, second) == (Release("a", "c"), Serve("a", "g"))
        assert isinstance(third, Serve)
        assert third.child == "h"
        assert third.parent in "gijklmn"

    def test_a_death_that_the_child_hears_of_first_ends_the_same_way(self) -> None:
        run = course("abcd")
        at(run, a=40, b=30, c=20, d=10)
        assert run.cut("c", "b", 1.0) == [Release("b", "c"), Serve("a", "c")]
        assert run.gone("b", "it died") == [Release("a", "b")]

    def test_one_that_has_all_of_it_leaves_its_children_to_others(self) -> None:
        run = course("ab", 1)
        run.done("a")
        assert run.gone("a", "it died") == [Serve(ROOT, "b")]

    def test_nobody_is_served_by_one_that_is_behind(self) -> None:
        for seed in range(20):
            run = course("abcd", 2, seed=seed)  # a serves c and d
            at(run, a=50, b=10, c=40, d=40)
            parents = {action.parent for action in run.gone("a", "it died") if isinstance(action, Serve)}
            assert parents <= {ROOT, "c", "d"}

    def test_but_by_one_whose_report_is_merely_old(self) -> None:
        sizes = {"a": 150, "b": 120, "c": 140, "d": 140, "e": 100, "f": 20}
        for seed in range(20):
            run = course("abcdef", 2, wire=100 * MB, seed=seed)  # a serves c and d, b serves e and f
            for node, size in sizes.items():
                run.moved(node, size, size * MB, 0.0)
            released, served = run.cut("d", "a", 0.1)
            assert released == Release("a", "d")
            assert served in (Serve("c", "d"), Serve("e", "d"))


class TestAway:
    """A node that is lost may come back, with nothing."""

    def test_it_is_served_from_the_beginning(self) -> None:
        run = course("abc")
        at(run, a=40, b=30, c=20)
        assert run.away("b", "it was lost") == [Release("a", "b"), Serve("a", "c")]
        assert not run.is_over
        (served,) = run.joined("b")
        assert isinstance(served, Serve)
        assert (served.child, run.members["b"].position) == ("b", 0)
        assert run.joined("b") == []

    def test_or_is_given_up(self) -> None:
        run = course("a")
        run.away("a", "it was lost")
        assert run.gone("a", "it died") == []
        assert run.is_over
        assert run.joined("a") == []


class TestInterruption:
    """A node that lost its connection, or could not be reached, is served by another, a few times."""

    def test_not_by_the_same_one(self) -> None:
        for seed in range(20):
            run = course("abcd", 2, seed=seed)
            at(run, a=9, b=9, c=5, d=5)
            assert run.cut("c", "a", 1.0)[0] == Release("a", "c")
            assert run.members["c"].parent in (ROOT, "b", "d")

    def test_by_the_same_one_if_it_is_the_root(self) -> None:
        run = course("a")
        assert run.cut("a", ROOT, 1.0) == [Release(ROOT, "a"), Serve(ROOT, "a")]

    def test_when_it_loses_it_too_often_it_is_given_up_and_released(self) -> None:
        run = course("a")
        for _ in range(ATTEMPTS - 1):
            run.cut("a", ROOT, 1.0)
        assert run.cut("a", ROOT, 1.0) == [Release(ROOT, "a"), GiveUp("a", "it lost its connection 4 times")]
        assert run.is_over

    def test_one_that_the_root_cannot_reach_is_given_up(self) -> None:
        run = course("ab")
        assert run.refused("a", ROOT, "no route") == [GiveUp("a", "no route"), Serve(ROOT, "b")]

    def test_the_root_is_the_last_to_try(self) -> None:
        run = course("abcdef", 2)
        at(run, **dict.fromkeys("abcdef", 5))
        tried = []
        while run.members["f"].state is NodePhase.SERVED:
            parent = run.members["f"].parent
            assert parent is not None
            tried.append(parent)
            run.refused("f", parent, "no")
        assert len(set(tried)) == ATTEMPTS
        assert tried[-1] == ROOT

    def test_when_no_node_reaches_another_the_root_serves_all_but_not_more_than_it_can_at_once(self) -> None:
        nodes = tuple(range(300))
        run: TreeScheduler[object] = TreeScheduler(ROOT, nodes, 2, random.Random(1))
        servings = [action for action in run.start() if isinstance(action, Serve)]
        while servings:
            serving = servings.pop()
            assert len(run.members[ROOT].children) <= MAX_PER_SOURCE
            if run.members[serving.child].parent != serving.parent:
                continue
            if serving.parent == ROOT:
                actions = run.done(serving.child)
            else:
                actions = run.refused(serving.child, serving.parent, "closed")
            servings += [action for action in actions if isinstance(action, Serve)]
        assert {run.members[node].state for node in nodes} == {NodePhase.DONE}


class TestDamage:
    """Chunks that landed wrong come again, from somebody who has all of it."""

    def test_only_these_chunks_from_one_that_is_whole(self) -> None:
        run = course("ab")
        run.whole("a")
        assert run.damaged("b", (3, 5)) == [Serve("a", "b", (3, 5))]
        assert run.whole("b") == []
        assert run.members["b"].damaged == ()

    def test_from_the_root_while_nobody_else_is_whole(self) -> None:
        run = course("abc")
        at(run, a=9, b=9, c=9)
        assert run.damaged("b", (3,)) == [Serve(ROOT, "b", (3,))]
        assert run.members["c"].parent == "b"

    def test_a_repair_that_is_interrupted_is_still_of_these_chunks(self) -> None:
        run = course("ab")
        run.whole("a")
        run.damaged("b", (3, 5))
        assert run.cut("b", "a", 1.0)[1] == Serve("a", "b", (3, 5))

    def test_one_that_is_being_repaired_serves_nobody_new(self) -> None:
        run = course("abc")
        at(run, a=9, b=9, c=5)
        run.damaged("a", (1,))
        assert run.gone("b", "it died")[-1] == Serve(ROOT, "c")

    def test_too_often(self) -> None:
        run = course("a")
        for _ in range(ATTEMPTS - 1):
            assert run.damaged("a", (1,)) == [Serve(ROOT, "a", (1,))]
        assert run.damaged("a", (1,))[0] == GiveUp("a", "what landed was damaged 4 times")


class TestNoProgress:
    """A node that makes no progress, although its parent has something for it, costs only itself."""

    @staticmethod
    def reached(nodes: str, size: int = 50 * MB) -> TreeScheduler[str]:
        """A chain at second 0: each has been reached by its parent, and the root has so many bytes."""
        run = course(nodes)
        run.moved(ROOT, size, size, 0.0)
        for parent, child in zip((ROOT, *nodes), nodes, strict=False):
            run.reached(child, parent, 0.0)
        return run

    @staticmethod
    def landed(run: TreeScheduler[str], now: float, nodes: str, size: int = 50 * MB) -> None:
        for node in nodes:
            run.moved(node, size, size, now)

    def test_one_that_has_never_landed_anything_is_deferred_and_its_child_moves_to_its_parent(self) -> None:
        run = self.reached("abc")
        self.landed(run, 1.0, "ac")
        assert run.ticked(SILENCE) == []
        assert run.ticked(SILENCE + 1.1) == [Release("a", "b"), Release("b", "c"), Serve("a", "c")]
        assert run.members["b"].state is NodePhase.PARKED

    def test_nobody_waits_for_one_that_has_not_been_reached_yet(self) -> None:
        run = course("ab")
        run.moved(ROOT, 50 * MB, 50 * MB, 0.0)
        self.landed(run, 1.0, "a")
        assert run.ticked(HUNG + 9) == []

    def test_it_is_given_up_in_the_end_and_by_then_the_others_are_done(self) -> None:
        run = self.reached("abc")
        run.completed()
        self.landed(run, 1.0, "ac")
        run.ticked(5.0)
        run.done("c")
        assert run.done("a") == []
        assert run.members["b"].parent is not None  # somebody has all of it, and there is time for who was deferred
        run.reached("b", run.members["b"].parent, 6.0)
        assert run.ticked(6.0 + HUNG) == []
        assert run.ticked(7.0 + HUNG)[0] == GiveUp("b", f"it has made no progress for {HUNG + 1:.0f} s", hangs=True)
        assert run.is_over

    def test_broken_connections_do_not_prolong_that(self) -> None:
        run = self.reached("a")
        run.cut("a", ROOT, 12.0, "it took nothing for 10 s")
        run.reached("a", ROOT, 12.5)
        run.members["a"].slow = True
        assert run.ticked(HUNG + 1.0)[0] == GiveUp("a", f"it has made no progress for {HUNG + 1:.0f} s", hangs=True)

    @pytest.mark.parametrize("missing", [0, LAG // 2])
    def test_one_that_hangs_when_little_or_nothing_is_missing_is_given_up(self, missing: int) -> None:
        """In the last chunks, or while it reads back what has landed."""
        run = self.reached("a")
        run.completed()
        self.landed(run, 1.0, "a", 50 * MB - missing)
        assert run.ticked(HUNG) == []
        assert [action for action in run.ticked(HUNG + 2.0) if isinstance(action, GiveUp)] != []

    def test_one_that_reads_back_for_long_is_left_alone(self) -> None:
        run = self.reached("a")
        run.completed()
        for second in range(5 * int(HUNG)):
            run.advanced("a", float(second))
            assert run.ticked(float(second)) == []

    def test_one_that_hangs_while_it_publishes_is_given_up_and_serves_others_until_then(self) -> None:
        run = self.reached("ab")
        run.completed()
        self.landed(run, 1.0, "ab")
        run.whole("a")
        run.advanced("b", UNPUBLISHED - 1.0)
        assert run.ticked(UNPUBLISHED) == []
        assert run.ticked(UNPUBLISHED + 2.0)[0] == GiveUp(
            "a", f"it has made no progress for {UNPUBLISHED + 1:.0f} s", True
        )

    def test_a_source_that_pauses_is_not_the_fault_of_the_nodes(self) -> None:
        run = self.reached("ab")
        self.landed(run, 1.0, "ab")
        for second in range(2, 3 * int(HUNG)):
            run.moved(ROOT, 50 * MB, 50 * MB, float(second))
            assert run.ticked(float(second)) == []
        run.moved(ROOT, 90 * MB, 90 * MB, 3 * HUNG)  # it goes on, and nobody has had the time to report
        assert run.ticked(3 * HUNG) == []

    def test_a_parent_whose_children_fall_silent_one_after_the_other_is_not_asked_again(self) -> None:
        """What hangs is the disk that it reads from to serve them."""
        run = self.reached("abcdef")
        self.landed(run, 1.0, "a")
        self.landed(run, 1.0, "bcdef", 20 * MB)
        run.whole("a")
        released = []
        for now in map(float, range(2, 30)):
            for node in "bcdef":
                member = run.members[node]
                if member.parent is not None and math.isinf(member.due):
                    run.reached(node, member.parent, now)
                elif member.parent is not None and member.parent != "a":
                    run.moved(node, 20 * MB, 20 * MB, now)
            released += [each.child for each in run.ticked(now) if isinstance(each, Release) and each.parent == "a"]
        assert released == ["b", "c"]
        assert all(run.members[node].parent != "a" for node in "cdef")


class Reports:
    """Nodes that move at their own speeds and report four times a second, each at its own moment."""

    def __init__(self, nodes: str, wire: float = 100 * MB, width: int = 1) -> None:
        self.run = course(nodes, width, wire)
        self.nodes = nodes
        self.now = 0.0
        self.sizes = dict.fromkeys(nodes, 0.0)

    def go(self, seconds: float, **speeds: float) -> list[Action[str]]:
        """Let time pass; return what the course wanted meanwhile."""
        wanted: list[Action[str]] = []
        for step in range(round(seconds / 0.05)):
            self.now += 0.05
            for index, node in enumerate(self.nodes):
                self.sizes[node] += speeds[node] * 0.05
                if (step - index) % 5 == 0 and speeds[node]:
                    wanted += self.run.moved(node, int(self.sizes[node]), int(self.sizes[node]), self.now)
        return wanted


class TestLag:
    """A node that cannot keep up with its parent is left for the end, and holds up nobody else."""

    def test_it_is_released_and_its_child_goes_to_its_parent(self) -> None:
        reports = Reports("abc")
        wanted = reports.go(2 * WINDOW, a=50 * MB, b=10 * MB, c=10 * MB)
        assert wanted == [Release("a", "b"), Release("b", "c"), Serve("a", "c")]
        assert reports.run.members["b"].state is NodePhase.PARKED

    def test_it_is_served_at_the_end_and_then_never_parked_again(self) -> None:
        reports = Reports("abc")
        reports.go(2 * WINDOW, a=50 * MB, b=10 * MB, c=10 * MB)
        assert reports.run.whole("a") == [Serve("a", "b")]
        assert reports.go(3, a=0, b=1 * MB, c=50 * MB) == []
        assert reports.run.members["b"].parent == "a"
        reports.run.done("b")
        assert reports.run.members["b"].state is NodePhase.DONE

    def test_it_is_served_when_all_the_others_are_lost(self) -> None:
        reports = Reports("abc")
        reports.go(2 * WINDOW, a=50 * MB, b=10 * MB, c=10 * MB)
        reports.run.gone("c", "it died")
        assert reports.run.gone("a", "it died") == [Release(ROOT, "a"), Serve(ROOT, "b")]

    def test_one_that_is_slow_serves_nobody_new(self) -> None:
        reports = Reports("abc")
        reports.go(2 * WINDOW, a=50 * MB, b=10 * MB, c=10 * MB)
        reports.run.whole("a")
        assert reports.run.cut("c", "a", reports.now)[1] == Serve("a", "c")  # b, which is idle, is no choice

    @pytest.mark.parametrize("slower", [1.0, LAGGING * 0.6])
    def test_one_that_is_a_little_slower_is_left_alone(self, slower: float) -> None:
        assert Reports("ab").go(5, a=60 * MB, b=60 * MB / slower) == []

    def test_one_that_is_hardly_behind_is_left_alone(self) -> None:
        assert Reports("ab").go(5, a=LAG / 6, b=0.01 * LAG) == []

    def test_a_slow_source_is_not_the_fault_of_who_is_served(self) -> None:
        reports = Reports("a")
        size = 0
        for step in range(200):
            size = int((step + 1) * 0.05 * MB) + 2 * LAG  # what is on the way
            reports.run.moved(ROOT, size, size, step * 0.05)
            assert reports.run.moved("a", size - 2 * LAG, size - 2 * LAG, step * 0.05) == []

    def test_one_that_the_root_serves_is_compared_with_the_wire(self) -> None:
        reports = Reports("a")
        reports.run.moved(ROOT, 900 * MB, 900 * MB, 0.0)
        assert reports.go(2 * WINDOW, a=5 * MB) == [Release(ROOT, "a"), Serve(ROOT, "a")]

    def test_reports_that_come_late_are_taken_for_when_they_were_made(self) -> None:
        run = course("ab", 1, wire=100 * MB)
        for step in range(80):
            now, size = step * 0.25, (step + 1) * 10 * MB
            run.moved("a", size, size, now, at=1000 + now)
            if step % 8 == 7:  # what the other says of two seconds comes at once
                for each in range(step - 7, step + 1):
                    size = (each + 1) * 10 * MB - LAG
                    assert run.moved("b", size, size, now, at=7 + each * 0.25) == []

    def test_a_parent_that_catches_up_gives_each_child_only_its_share_of_the_wire(self) -> None:
        reports = Reports("pqrabc", wire=90 * MB, width=3)  # p serves a, b and c
        assert reports.go(3, p=90 * MB, q=30 * MB, r=30 * MB, a=29 * MB, b=29 * MB, c=29 * MB) == []

    def test_those_behind_a_node_that_was_cut_off_for_long_do_not_lag_when_it_goes_on(self) -> None:
        reports = Reports("abcd")
        assert reports.go(3, a=50 * MB, b=50 * MB, c=50 * MB, d=50 * MB) == []
        reports.go(10, a=50 * MB, b=0, c=0, d=0)
        reports.run.gone("b", "it hangs")
        assert reports.run.members["c"].parent == "a"
        assert reports.go(3, a=50 * MB, b=0, c=90 * MB, d=90 * MB) == []


class Turmoil:
    """A run in which a world obeys the course, and anything happens in any order; checks what must always hold.

    `open` are the servings that the actions have begun and not ended.
    """

    TOTAL = 10

    def __init__(self, nodes: int, width: int, seed: int, wire: float) -> None:
        self.rng = random.Random(seed)
        self.run: TreeScheduler[int] = TreeScheduler(-1, tuple(range(nodes)), width, random.Random(seed + 1), wire=wire)
        self.width = width
        self.open: dict[int, int] = {}
        self.dead: set[int] = set()
        self.given_up: set[int] = set()
        self.now = 0.0
        self.run.moved(-1, self.TOTAL, self.TOTAL * LAG, 0.0)
        self.act(self.run.start())

    def act(self, actions: list[Action[int]]) -> None:
        for action in actions:
            if isinstance(action, Serve):
                assert action.child not in self.open
                assert action.parent not in self.dead | self.given_up
                assert action.child not in self.dead | self.given_up
                self.open[action.child] = action.parent
            elif isinstance(action, Release):
                assert self.open.pop(action.child) == action.parent
            else:
                self.given_up.add(action.node)
                self.open.pop(action.node, None)
                self.open = {child: parent for child, parent in self.open.items() if parent != action.node}
        self.check()

    def check(self) -> None:
        """The books agree with each other and with what was ordered; nobody serves too many; there is no circle."""
        members = self.run.members
        for node, member in members.items():
            assert (member.state is NodePhase.SERVED) == (member.parent is not None)
            assert member.parent == self.open.get(node)
            assert Counter(member.children) == Counter(c for c, p in self.open.items() if p == node)
            most = MAX_PER_SOURCE if member.has_all else self.width + SPARE
            assert len(member.children) <= most
            if member.state in (NodePhase.FAILED, NodePhase.AWAY):
                assert not member.children
            self.check_way(node)
        over = all(member.has_ended for node, member in members.items() if node != -1)
        assert self.run.is_over == over

    def check_way(self, node: int) -> None:
        """The way up comes to an end."""
        way = [node]
        while (above := self.run.members[way[-1]].parent) is not None:
            assert above not in way
            way.append(above)

    def alive(self, *states: NodePhase) -> list[int]:
        return [node for node, member in self.run.members.items() if node >= 0 and member.state in states]

    def trouble(self) -> None:
        """Something goes wrong, or on."""
        self.now += self.rng.choice((0.01, 0.3, 1.0))
        wrong = (self.die, self.cut, self.refuse, self.damage, self.leave, self.come_back)
        self.rng.choice((*wrong, *[self.move] * 6))()

    def die(self) -> None:
        for node in self.pick(*(state for state in NodePhase if state is not NodePhase.FAILED)):
            self.dead.add(node)
            self.open = {child: parent for child, parent in self.open.items() if parent != node}
            self.act(self.run.gone(node, "it died"))

    def leave(self) -> None:
        for node in self.pick(NodePhase.SERVED, NodePhase.WAITING, NodePhase.PARKED, NodePhase.WHOLE):
            self.open = {child: parent for child, parent in self.open.items() if parent != node}
            self.act(self.run.away(node, "it was lost"))

    def come_back(self) -> None:
        for node in self.pick(NodePhase.AWAY):
            self.act(self.run.joined(node))
            assert self.run.members[node].position == 0

    def cut(self) -> None:
        for node in self.pick(NodePhase.SERVED):
            self.act(self.run.cut(node, self.open[node], self.now))

    def refuse(self) -> None:
        for node in self.pick(NodePhase.SERVED):
            self.act(self.run.refused(node, self.open.pop(node), "no"))

    def damage(self) -> None:
        for node in self.pick(NodePhase.SERVED):
            self.open.pop(node)
            self.act(self.run.damaged(node, (1, 2)))

    def move(self) -> None:
        """A node gets on as far as its parent is, and is whole at the end."""
        for node in self.pick(NodePhase.SERVED):
            member = self.run.members[node]
            above = self.run.members[self.open[node]]
            there = self.TOTAL if above.has_all else above.position
            position = max(member.position, self.rng.randint(0, there))
            self.act(self.run.moved(node, position, position * LAG, self.now))
            if position == self.TOTAL and self.open.get(node) is not None:
                self.open.pop(node)
                self.act(self.run.whole(node))
                self.act(self.run.done(node))

    def pick(self, *states: NodePhase) -> list[int]:
        among = self.alive(*states)
        return [self.rng.choice(among)] if among else []

    def finish(self) -> None:
        """Nothing goes wrong any more."""
        for _ in range(2000 * (len(self.run.members))):
            if self.run.is_over:
                return
            self.now += 0.3
            self.come_back()
            self.move()
        raise AssertionError(f"it never ends: {self.alive(NodePhase.WAITING, NodePhase.PARKED, NodePhase.SERVED)}")


class TestTurmoil:
    """Whatever happens in whatever order."""

    @settings(max_examples=min(80, settings().max_examples))
    @given(
        st.integers(0, 24), st.integers(1, 4), st.integers(0, 2**32), st.integers(0, 60),
        st.sampled_from([0.0, 1e6, 1e9]),
    )  # fmt: skip
    def test_every_node_that_lives_is_served_at_last(
        self, nodes: int, width: int, seed: int, troubles: int, wire: float
    ) -> None:
        world = Turmoil(nodes, width, seed, wire)
        for _ in range(troubles):
            world.trouble()
        world.finish()
        assert set(world.alive(NodePhase.FAILED)) == world.dead | world.given_up

    def test_every_kind_of_trouble_comes_about(self) -> None:
        """Or the test above would show nothing."""
        seen: Counter[NodePhase] = Counter()
        given_up = adoptions = repaired = 0
        for seed in range(60):
            world = Turmoil(20, 2, seed, 1e9)
            for _ in range(60):
                world.trouble()
                seen.update(member.state for member in world.run.members.values())
                repaired += sum(bool(member.damaged) for member in world.run.members.values())
            given_up += len(world.given_up)
            adoptions += world.run.adoptions
        assert set(seen) == set(NodePhase)
        assert min(given_up, adoptions, repaired) > 20

    def test_one_seed_gives_one_run(self) -> None:
        def adopters(seed: int) -> list[int]:
            world = Turmoil(40, 2, seed, 1e9)
            for _ in range(50):
                world.trouble()
            return list(world.open.values())

        assert adopters(4) == adopters(4)
        assert adopters(4) != adopters(5)


class TestScale:
    """Thousands of nodes cost the root little."""

    def test_eight_thousand_nodes_of_which_a_thousand_die_at_once(self) -> None:
        nodes = tuple(range(8192))
        run: TreeScheduler[int] = TreeScheduler(-1, nodes, 2, random.Random(1), wire=1e9)
        run.start()
        dead = set(random.Random(2).sample(nodes, 1000))
        for moment in range(4):
            for node in nodes:
                run.moved(node, moment, moment << 20, moment * AGAIN)
        for node in dead:
            run.gone(node, "it died")
        for node in nodes:
            run.done(node)
        assert run.is_over
        assert {node for node in nodes if run.members[node].state is NodePhase.FAILED} == dead

    def test_a_chain_of_a_thousand_may_lose_any_node(self) -> None:
        run: TreeScheduler[int] = TreeScheduler(-1, tuple(range(1200)), 1, random.Random(1))
        run.start()
        assert run.gone(0, "it died") == [Release(-1, 0), Serve(-1, 1)]
        assert run.depth == 1199


class TestBag:
    """One of those that fit, each as likely as any other."""

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60), st.integers())
    def test_it_holds_what_was_put_in_and_not_taken_out(self, steps: list[tuple[bool, int]], seed: int) -> None:
        bag: RandomSet[int] = RandomSet()
        held: set[int] = set()
        for put, item in steps:
            (bag.add if put else bag.discard)(item)
            (held.add if put else held.discard)(item)
            assert {item for item in range(13) if item in bag} == held
        drawn = bag.draw(lambda item: item % 2 == 0, random.Random(seed))
        assert (
            drawn in {item for item in held if item % 2 == 0} if any(item % 2 == 0 for item in held) else drawn is None
        )

    def test_a_rare_one_is_found_and_all_are_drawn_alike(self) -> None:
        bag: RandomSet[int] = RandomSet()
        for item in range(1000):
            bag.add(item)
        rng = random.Random(1)
        assert bag.draw(lambda item: item == 777, rng) == 777
        drawn = Counter(bag.draw(lambda item: item < 4, rng) for _ in range(400))
        assert set(drawn) == {0, 1, 2, 3}
        assert min(drawn.values()) > 60
