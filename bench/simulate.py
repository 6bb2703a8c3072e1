"""`python -m bench.simulate`: a stream to thousands of nodes, some of which die, in simulated time on this one machine.

Who serves whom is decided by ezpz's own code (`choose_shape`, `Course`); only the network, the nodes and their deaths are
made up. Data is a fluid: a node's uplink is shared equally by the children that still want something, a child has never
more than its parent, and the latency of the way that the last byte takes is added at its end. No switch is ever full.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench import scale
from ezpz.yeet.fanout.stream.course import Action, Course, GiveUp, Serve, State
from ezpz.yeet.fanout.stream.shape import Rates, Shape, choose_shape, starter_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = -1
NEAR = 1.0  # bytes: closer than that is the same place
TELL = 0.25  # seconds between two reports of a node
PHASES = 5  # in which the nodes take turns to report
DIAL = 0.05  # seconds to tell both ends, connect and shake hands
CONNECT = 5.0  # seconds until a host that does not answer has refused
EXAMPLES = """\
examples:
  python -m bench.simulate                                     8 GB to 4,096 nodes, 1 % of which die
  python -m bench.simulate --bound 60                          exit 1 if that takes longer than 60 s
  python -m bench.simulate --nodes 512 --dying 0.05 --seed 7   another size, more deaths, other chances
  python -m bench.simulate --plot docs/images/stream-scale.svg
"""


@dataclass(frozen=True)
class World:
    """What is made up. Bytes, seconds, bytes a second; dying is a share of the nodes, every second of which is silent."""

    nodes: int = 4096
    size: float = 8e9
    rate: float = 1e9
    start: float = 0.3
    dying: float = 0.01
    hop: float = 0.002
    chunk: int = 1 << 20
    stall: float = 10.0
    land: float = 2e9
    fan: int = 64
    seed: int = 1

    @property
    def shape(self) -> Shape:
        """The shape that ezpz chooses for it; that some nodes will die it does not know."""
        rates = Rates(rate=self.rate, hop=self.hop, chunk=self.chunk, size=self.size, start=self.start)
        return choose_shape(self.nodes, rates)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: seconds until the last live node had everything, and what happened on the way."""

    seconds: float
    started: float
    served: int
    deaths: int
    adoptions: int
    depth: int
    left_out: tuple[int, ...]
    parkings: int


@dataclass(slots=True)
class Host:
    """A host at one moment: `position` bytes at `since`, and `rate` from then on; `stamp` outdates what was foreseen."""

    position: float = 0.0
    rate: float = 0.0
    since: float = 0.0
    parent: int | None = None
    children: set[int] = field(default_factory=set)
    serial: int = 0
    stamp: int = 0
    told: float = -1.0
    filled: bool = False
    complete: bool = False
    dead: bool = False


class Simulation:
    """One run; `play` it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(world.seed)
        self.shape = world.shape
        nodes = tuple(range(world.nodes))
        self.course: Course[int] = Course(ROOT, nodes, self.shape.width, random.Random(world.seed), wire=world.rate)
        self.hosts = {ROOT: Host(position=world.size, complete=True), **{node: Host() for node in nodes}}
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.number = itertools.count()
        self.missing = set(nodes)
        self.last = 0.0
        self.deepest = 0
        self.parkings = 0

    def play(self) -> Outcome:
        dying = self.rng.sample(range(self.world.nodes), round(self.world.dying * self.world.nodes))
        until = self._started({}) + self.shape.seconds
        deaths = {node: (self.rng.uniform(0, until), number % 2 == 1) for number, node in enumerate(dying)}
        for node, (when, silent) in deaths.items():
            self._at(when, lambda node=node, silent=silent: self._die(node, silent=silent))
        started = self._started(deaths)
        self._at(started, self._begin)
        while self.missing and self.events:
            self.now, _, act = heapq.heappop(self.events)
            act()
        dead = sum(host.dead for host in self.hosts.values())
        served = sum(host.complete and not host.dead for host in self.hosts.values()) - 1
        return Outcome(
            self.last, started, served, dead, self.course.adoptions, self.deepest, tuple(self.missing), self.parkings
        )

    def _started(self, deaths: Mapping[int, tuple[float, bool]]) -> float:
        """When the last node is up: each host starts `fan` others at once, and the root those of one that dies by then."""
        start, ready = self.world.start, [0.0] * self.world.nodes
        for node in range(self.world.nodes):
            starter = starter_of(node, self.world.fan)
            ready[node] = (ready[starter] if starter >= 0 else 0.0) + start
            died, silent = deaths.get(starter, (ready[node], False))
            if died < ready[node]:
                ready[node] = died + (self.world.stall if silent else 0.0) + start
        return max(ready)

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.number), act))

    def _begin(self) -> None:
        self.course.moved(ROOT, self._chunks(self.world.size), int(self.world.size), self.now)
        self._act(self.course.start())
        self.deepest = self.course.depth
        for phase in range(PHASES):
            self._at(self.now + TELL * (phase + 1) / PHASES, lambda phase=phase: self._tell(phase))

    # What happens

    def _die(self, node: int, *, silent: bool) -> None:
        host = self.hosts[node]
        host.dead = True
        parent = host.parent
        self._retune([node, *host.children, *(self.hosts[parent].children if parent is not None else ())])
        self._at(self.now + (self.world.stall if silent else 0), lambda: self._noticed(node))

    def _noticed(self, node: int) -> None:
        """Those whom it served and the root learn of a death, one after the other, in any order."""
        self.missing.discard(node)
        told = [*self.hosts[node].children, ROOT]
        self.rng.shuffle(told)
        for who in told:
            if who == ROOT:
                self._act(self.course.gone(node, "it died"))
            elif not self.hosts[who].dead:
                self._act(self.course.cut(who, node, self.now))
        self.deepest = max(self.deepest, self.course.depth)

    def _tell(self, phase: int) -> None:
        """The nodes whose turn it is report how far they are, if they are further than the last time."""
        for node in tuple(self.missing):
            host = self.hosts[node]
            if node % PHASES == phase and not host.dead:
                self._settle(host)
                if host.position > host.told:
                    host.told = host.position
                    self._act(self.course.moved(node, self._chunks(host.position), int(host.position), self.now))
        self._at(self.now + TELL, lambda: self._tell(phase))

    def _has_all(self, node: int) -> None:
        host = self.hosts[node]
        if not host.dead:
            host.complete = True
            self.missing.discard(node)
            self.last = self.now
            self._unlink(node)
            self._act(self.course.whole(node))
            self._act(self.course.done(node))

    # What the course wants

    def _act(self, actions: list[Action[int]]) -> None:
        for action in actions:
            if isinstance(action, Serve):
                host = self.hosts[action.child]
                self._unlink(action.child)
                host.serial += 1
                self._at(self.now + DIAL, lambda a=action, serial=host.serial: self._linked(a.parent, a.child, serial))
            elif not isinstance(action, GiveUp):
                self._unlink(action.child)
                self.parkings += self.course.members[action.child].state is State.PARKED

    def _linked(self, parent: int, child: int, serial: int) -> None:
        host = self.hosts[child]
        if host.serial != serial or host.complete or self.hosts[parent].dead:
            return  # nobody dials for a parent that is dead: its end will be noticed
        if host.dead:
            self._at(self.now + CONNECT, lambda: self._refused(parent, child, serial))
            return
        host.parent = parent
        self.hosts[parent].children.add(child)
        self._retune(list(self.hosts[parent].children))

    def _refused(self, parent: int, child: int, serial: int) -> None:
        if self.hosts[child].serial == serial:
            self._act(self.course.refused(child, parent, "it does not answer"))

    def _unlink(self, child: int) -> None:
        host = self.hosts[child]
        host.serial += 1
        if host.parent is not None:
            parent, host.parent = self.hosts[host.parent], None
            parent.children.discard(child)
            self._retune([child, *parent.children])

    # The fluid

    def _settle(self, host: Host) -> None:
        host.position = min(self.world.size, host.position + host.rate * (self.now - host.since))
        host.since = self.now

    def _retune(self, nodes: list[int]) -> None:
        """The rates of these nodes anew, and of all below whom that concerns."""
        while nodes:
            node = nodes.pop()
            host = self.hosts[node]
            before = host.rate
            self._settle(host)
            host.rate, foreseen = self._flow(host)
            host.stamp += 1
            if not host.filled and host.position == self.world.size:
                host.filled = True
                self._at(self.now + self._latency(node), lambda node=node: self._has_all(node))
                nodes += self.hosts[host.parent].children if host.parent is not None else ()
            elif host.rate != before:
                nodes += host.children
            if foreseen is not None:
                self._at(self.now + foreseen, lambda n=node, stamp=host.stamp: self._foreseen(n, stamp))

    def _foreseen(self, node: int, stamp: int) -> None:
        if self.hosts[node].stamp == stamp:
            self._retune([node])

    def _flow(self, host: Host) -> tuple[float, float | None]:
        """A node's rate now, and the seconds until that changes by itself."""
        if self.world.size - host.position <= NEAR:
            host.position = self.world.size
            return 0.0, None
        if host.dead or host.parent is None or self.hosts[host.parent].dead:
            return 0.0, None
        parent = self.hosts[host.parent]
        self._settle(parent)
        most, behind = self._share(parent), parent.position - host.position
        if behind < -NEAR:  # adopted by one that is behind it
            return 0.0, (-behind / parent.rate if parent.rate else None)
        rate = most if behind > NEAR else min(most, parent.rate)
        if not rate:
            return 0.0, None
        whole_in = (self.world.size - host.position) / rate
        level_in = behind / (rate - parent.rate) if behind > NEAR and rate > parent.rate else whole_in
        return rate, min(whole_in, level_in)

    def _share(self, parent: Host) -> float:
        """Bytes a second for each of its children that is alive and wants something."""
        children = (self.hosts[child] for child in parent.children)
        taking = sum(not child.filled and not child.dead for child in children)
        return min(self.world.rate / max(1, taking), self.world.land)

    def _latency(self, node: int) -> float:
        """Seconds that the last byte is on its way to a node, from whoever has had it for long."""
        seconds, parent = 0.0, self.hosts[node].parent
        while parent is not None:
            passing = self.world.chunk * max(1, len(self.hosts[parent].children)) / self.world.rate
            seconds += self.world.hop + passing
            parent = self.hosts[parent].parent
        return seconds

    def _chunks(self, position: float) -> int:
        return int(position // self.world.chunk)


def main(argv: list[str] | None = None) -> int:
    """Simulate what the command line says and print how it went; return the exit code."""
    arguments = vars(_parser().parse_args(argv))
    plot, bound = arguments.pop("plot"), arguments.pop("bound")
    world = World(**arguments)
    if plot is not None:
        counts = scale.COUNTS
        seconds = [Simulation(World(**{**arguments, "nodes": count})).play().seconds for count in counts]
        plot.write_text(scale.picture(tuple(zip(counts, seconds, strict=True)), world.size, world.rate, world.dying))
        print(f"written: {plot}", file=sys.stderr)
    began = time.process_time()
    simulation = Simulation(world)
    outcome = simulation.play()
    print(f"{world.nodes} nodes, {world.size / 1e9:g} GB at {world.rate / 1e9:g} GB/s: {simulation.shape.reason}")
    print(
        f"{outcome.seconds:.1f} s until the last live node had everything, {outcome.started:.1f} s of it to start them"
    )
    print(f"{outcome.deaths} deaths, {outcome.adoptions} adoptions, {outcome.parkings} parked, depth {outcome.depth}")
    print(f"{outcome.served} nodes served, {len(outcome.left_out)} live nodes not served")
    print(f"{time.process_time() - began:.1f} s of computing", file=sys.stderr)
    return int(bool(outcome.left_out) or (bound is not None and outcome.seconds > bound))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bench.simulate", epilog=EXAMPLES, description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    usual = World()
    for name, what in (
        ("nodes", "how many"), ("size", "bytes of the stream"), ("rate", "bytes a second of a node, in and out each"),
        ("start", "seconds to start one session"), ("dying", "share of the nodes that die at random moments"),
        ("hop", "seconds of latency a hop"), ("chunk", "bytes of a chunk"), ("stall", "seconds until a silent death is noticed"),
        ("land", "bytes a second that a node can land"), ("fan", "sessions that a host starts at once"),
        ("seed", "which chances"),
    ):  # fmt: skip
        default = getattr(usual, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{what} (default: {default:g})")
    parser.add_argument("--bound", type=float, metavar="S", help="exit 1 if it takes longer")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the time from 8 to 8,192 nodes as SVG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
