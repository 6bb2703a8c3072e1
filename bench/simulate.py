"""`python -m bench.simulate`: a stream to thousands of nodes, some of which die, in made-up time on one machine.

Who serves whom is decided by ezpz's own code (`choose_shape`, `TreeScheduler`), which is told what a real root would be
told; only the network, the hosts and their deaths are made up (bench/fluid.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import scale
from bench.fluid import ROOT, Clock, Fluid, World
from ezpz.remote.startup import starter_of
from ezpz.yeet.engines.stream.node_state import Action, GiveUp, NodePhase, Serve
from ezpz.yeet.engines.stream.topology import NetworkModel, choose_shape
from ezpz.yeet.engines.stream.tree_scheduler import TreeScheduler

if TYPE_CHECKING:
    from collections.abc import Mapping

TELL = 0.25  # seconds between two reports of a node
TICK = 1.0  # seconds between two looks for nodes that make no progress
PHASES = 5  # in which the nodes take turns to report
DIAL = 0.05  # seconds to tell both ends, connect and shake hands
CONNECT = 5.0  # seconds after which a host that does not answer is taken for one that refuses
EXAMPLES = """\
examples:
  python -m bench.simulate                                     8 GB to 4,096 nodes, 1 % of which die
  python -m bench.simulate --bound 60                          exit 1 if that takes longer than 60 s
  python -m bench.simulate --nodes 512 --dying 0.05 --seed 7   another size, more deaths, other chances
  python -m bench.simulate --plot docs/images/stream-scale.svg
"""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    seconds: until the last live node had everything; started: of these, until all were up; left_out: live, not served
    depth: the most hops from the root to a node that was being served, at the start or after a death
    parkings: of nodes that are well; given_up: nodes that were reached and made no progress
    """

    seconds: float
    started: float
    served: int
    left_out: int
    deaths: int
    adoptions: int
    parkings: int
    depth: int
    given_up: int


class Simulation:
    """One run; `play` it, once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(world.seed)
        rates = NetworkModel(rate=world.rate, hop=world.hop, chunk=world.chunk, size=world.size, start=world.start)
        self.shape = choose_shape(world.nodes, rates)  # that some nodes will die it does not know
        nodes = tuple(range(world.nodes))
        self.course: TreeScheduler[int] = TreeScheduler(
            ROOT, nodes, self.shape.width, random.Random(world.seed), wire=world.rate
        )
        self.clock = Clock()
        self.fluid = Fluid(world, self.clock, self._full)
        self.missing = set(nodes)
        self.served: set[int] = set()
        self.serial: dict[int, int] = dict.fromkeys(nodes, 0)
        self.told: dict[int, float] = dict.fromkeys(nodes, 0.0)
        self.last = 0.0
        self.depth = self.parkings = self.given_up = 0

    def play(self) -> Outcome:
        """Let it run until every node has everything or is known to be dead, or nothing happens any more."""
        deaths = self._deaths()
        for node, (when, silent) in deaths.items():
            self.clock.after(when, self._die, node, self.world.stall if silent else 0.0)
        for node in self.rng.sample(range(self.world.nodes), round(self.world.hung * self.world.nodes)):
            self.fluid.hosts[node].hung = True
        started = self._started(deaths)
        self.clock.after(started, self._begin)
        stuck_at = started + 100 * (self.shape.seconds + self.world.stall)
        while self.missing and self.clock.now < stuck_at and self.clock.step():
            pass
        dead = {node for node, host in self.fluid.hosts.items() if host.dead}
        return Outcome(
            self.last, started, len(self.served - dead), len(self.missing - dead), len(dead), self.course.adoptions,
            self.parkings, self.depth, self.given_up,
        )  # fmt: skip

    def _deaths(self) -> Mapping[int, tuple[float, bool]]:
        """Who dies, when, and whether silently: at any moment of a run that goes as expected."""
        dying = self.rng.sample(range(self.world.nodes), round(self.world.dying * self.world.nodes))
        until, first = self._started({}) + self.shape.seconds, self.rng.randrange(2)
        return {node: (self.rng.uniform(0, until), number % 2 == first) for number, node in enumerate(dying)}

    def _started(self, deaths: Mapping[int, tuple[float, bool]]) -> float:
        """When the last node is up: each host starts `fan` others at once, and the root those of one that died."""
        start, ready = self.world.start, [0.0] * self.world.nodes
        for node in range(self.world.nodes):
            starter = starter_of(node, self.world.fan)
            ready[node] = (ready[starter] if starter >= 0 else 0.0) + start
            died, silent = deaths.get(starter, (ready[node], False))
            if died < ready[node]:
                ready[node] = died + (self.world.stall if silent else 0.0) + start
        return max(ready, default=0.0)

    def _begin(self) -> None:
        self.course.moved(ROOT, self._chunks(self.world.size), int(self.world.size), self.clock.now)
        self.course.completed()
        self._act(self.course.start())
        self.clock.after(TICK, self._tick)
        self.depth = self.course.depth
        for phase in range(PHASES):
            self.clock.after(TELL * (phase + 1) / PHASES, self._tell, phase)

    # What happens

    def _die(self, node: int, unnoticed: float) -> None:
        self.fluid.die(node)
        self.clock.after(unnoticed, self._noticed, node)

    def _noticed(self, node: int) -> None:
        """Those whom it served and the root learn of a death, one after the other, in any order."""
        self.missing.discard(node)
        told = [*self.fluid.hosts[node].children, ROOT]
        self.rng.shuffle(told)
        for who in told:
            if who == ROOT:
                self._act(self.course.gone(node, "it died"))
            elif not self.fluid.hosts[who].dead:
                self._act(self.course.cut(who, node, self.clock.now))
        self.depth = max(self.depth, self.course.depth)

    def _tick(self) -> None:
        self._act(self.course.ticked(self.clock.now))
        self.clock.after(TICK, self._tick)

    def _tell(self, phase: int) -> None:
        """The nodes whose turn it is report how far they are, if they are further than the last time."""
        for node in sorted(self.missing):
            host = self.fluid.hosts[node]
            if node % PHASES == phase and not host.dead and not host.hung:
                position = self.fluid.position(node)
                if position > self.told[node]:
                    self.told[node] = position
                    self._act(self.course.moved(node, self._chunks(position), int(position), self.clock.now))
        self.clock.after(TELL, self._tell, phase)

    def _full(self, node: int) -> None:
        if not self.fluid.hosts[node].dead:
            self.missing.discard(node)
            self.served.add(node)
            self.last = self.clock.now
            self._end(node)
            self._act(self.course.whole(node))
            self._act(self.course.done(node))

    # What the course wants

    def _act(self, actions: list[Action[int]]) -> None:
        for action in actions:
            if isinstance(action, GiveUp):
                self.given_up += action.hangs
                self.missing.discard(action.node)
                continue
            self._end(action.child)
            if isinstance(action, Serve):
                self.clock.after(DIAL, self._dial, action.parent, action.child, self.serial[action.child])
            else:
                host = self.fluid.hosts[action.child]
                well = not (host.dead or host.hung)
                self.parkings += well and self.course.members[action.child].state is NodePhase.PARKED

    def _end(self, child: int) -> None:
        self.serial[child] += 1
        self.fluid.unlink(child)

    def _dial(self, parent: int, child: int, serial: int) -> None:
        hosts = self.fluid.hosts
        if self.serial[child] != serial or hosts[parent].dead:
            return  # nobody dials for a parent that is dead, until that is noticed
        if hosts[child].dead:
            self.clock.after(CONNECT, self._refused, parent, child, serial)
        else:
            self.fluid.link(parent, child)
            self.course.reached(child, parent, self.clock.now)

    def _refused(self, parent: int, child: int, serial: int) -> None:
        if self.serial[child] == serial:
            self._act(self.course.refused(child, parent, "it does not answer"))

    def _chunks(self, position: float) -> int:
        return int(position // self.world.chunk)


def main(argv: list[str] | None = None) -> int:
    """Simulate what the command line says and print how it went; return the exit code."""
    arguments = _parser().parse_args(argv)
    world = World(**{name: getattr(arguments, name) for name in World.__dataclass_fields__})
    if arguments.plot is not None:
        _plot(arguments.plot, world)
    began = time.process_time()
    simulation = Simulation(world)
    outcome = simulation.play()
    print(f"{world.nodes} nodes, {world.size / 1e9:g} GB at {world.rate / 1e9:g} GB/s: {simulation.shape.reason}")
    print(
        f"{outcome.seconds:.1f} s until the last live node has everything, {outcome.started:.1f} s of it to start all"
    )
    print(f"{outcome.deaths} deaths, {outcome.adoptions} adoptions, {outcome.parkings} parked, depth {outcome.depth}")
    if arguments.hung:
        print(f"{outcome.given_up} nodes given up, which hung")
    print(f"{outcome.served} nodes served, {outcome.left_out} live nodes not served")
    print(f"simulated in {time.process_time() - began:.1f} s of computing", file=sys.stderr)
    late = arguments.bound is not None and outcome.seconds > arguments.bound
    return 1 if outcome.left_out or late else 0


def _plot(path: Path, world: World) -> None:
    """Draw the seconds for every count of nodes; the worst of several runs, and the best."""
    measured = []
    for count in scale.COUNTS:
        seconds = [
            Simulation(dataclasses.replace(world, nodes=count, seed=world.seed + more)).play().seconds
            for more in range(scale.RUNS)
        ]
        measured.append((count, min(seconds), max(seconds)))
    path.write_text(scale.picture(world, tuple(measured)))
    print(f"written: {path}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bench.simulate", epilog=EXAMPLES, description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    usual = World()
    for name, what in (
        ("nodes", "how many"), ("size", "bytes of the stream"), ("rate", "bytes a second of a node, in and out each"),
        ("start", "seconds to start one session"), ("dying", "share of the nodes that die, half of them silently"),
        ("hung", "share of the nodes whose disk hangs from the start"), ("room", "bytes that such a node passes on"),
        ("hop", "seconds of latency a hop"), ("chunk", "bytes of a chunk"),
        ("land", "bytes a second that a node can land"), ("stall", "seconds until a silent death is noticed"),
        ("fan", "sessions that a host starts at once"), ("seed", "which chances"),
    ):  # fmt: skip
        default = getattr(usual, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{what} (usually {default:g})")
    parser.add_argument("--bound", type=float, metavar="S", help="exit 1 if it takes longer than S simulated seconds")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the time from 8 to 8,192 nodes as SVG as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
