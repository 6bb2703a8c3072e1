"""Conductor: carries out what the course of one stream says, and tells it what happens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from ezpz.cluster.model import Node
from ezpz.errors import EzpzError, NodeLost, by_code
from ezpz.runtime.async_process import gather_or_cancel
from ezpz.yeet.agent.chunk import CONTENT_LIMIT
from ezpz.yeet.agent.codec import Codec
from ezpz.yeet.agent.relay import Downstream
from ezpz.yeet.events import NodeDone, NodeMoved, NodeParked, NodeRetrying, NodeServed, NodeWhole, Noted
from ezpz.yeet.fanout.agents import ANSWER_WITHIN, HOPELESS, attempt
from ezpz.yeet.fanout.stream.course import Action, Course, GiveUp, Release, Serve, State
from ezpz.yeet.fanout.stream.feed import Feed
from ezpz.yeet.fanout.stream.shape import Rates, choose_shape
from ezpz.yeet.report import Failure, NodeResult, Outcome
from ezpz.yeet.session import NodeSilent

if TYPE_CHECKING:
    from ezpz.yeet.fanout.base import Base, Shipment, Start
    from ezpz.yeet.fanout.stream.engine import Stream

ROOT = Node("this host", address="", given="this host", is_local=True)
TICK = 1.0  # seconds
SWEEP_WITHIN = 5.0  # seconds
FINAL = (*HOPELESS, "timed-out")
STALL = 10.0  # seconds without a byte after which a connection is given up
SLOW_WIRE = 120e6  # bytes a second: gigabit Ethernet
SMALL_CHUNK = 512 << 10  # bytes of content in a chunk on a slow wire, where each hop costs the time of one chunk


class Conductor:
    """One stream to some nodes: carries out what the course says, and tells it what happens."""

    def __init__(self, engine: Stream, nodes: tuple[Node, ...], start: Start, base: Base, *, needs_tree: bool) -> None:
        self.engine = engine
        self.nodes = nodes
        self.start = start
        self.base = base
        self.needs_tree = needs_tree
        self.loop = asyncio.get_running_loop()
        self.serial = 0
        self.servings: dict[int, tuple[Node, Node]] = {}
        self.serial_of: dict[Node, int] = {}
        self.downstreams: dict[int, Downstream] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.dismissals: list[asyncio.Task[None]] = []
        self.ended = asyncio.Event()
        self.results: dict[Node, NodeResult] = {}
        self.returns: dict[Node, int] = dict.fromkeys(nodes, 0)
        self.returning: set[Node] = set()
        self.shipment: Shipment | None = None
        self.attempts: dict[Node, int] = dict.fromkeys(nodes, 0)
        self.via: dict[Node, str] = dict.fromkeys(nodes, "")
        self.bug: BaseException | None = None

    async def begin(self) -> None:
        """Plan the tree and let the nodes take their places in it."""
        engine = self.engine
        codec = Codec()
        kind = min([codec.best, *(engine.listening[node]["codec"] for node in self.nodes)])
        rate = engine.rate
        slow = rate < SLOW_WIRE
        rates = Rates(rate=max(rate, 1.0), size=max(1, self.start.size) / (3 if slow else 1), chunk=SMALL_CHUNK // 3)
        shape = choose_shape(len(self.nodes), rates)
        engine.emit(Noted(f"the network carries {rate / 1e6:.0f} MB/s: {shape.reason}"))
        self.feed = Feed(
            engine.secret, codec, kind, self.start.read, SMALL_CHUNK if slow else CONTENT_LIMIT,
            needs_tree=self.needs_tree, base=self.base,
        )  # fmt: skip
        self.course: Course[Node] = Course(ROOT, self.nodes, shape.width, engine.rng, wire=rate)
        await gather_or_cancel(self._ask(node, "join") for node in self.nodes)
        self._act(self.course.start())
        for node in self.nodes:  # the line may have ended before anybody listened
            if not engine.sessions[node].is_open:
                self.lost(node, await engine.sessions[node].line.lost())
        self._task(self._watch())

    async def _watch(self) -> None:
        while not self.course.is_over:
            await asyncio.sleep(TICK)
            root = self.feed.ring
            self.course.moved(ROOT, root.next, root.wire, time.monotonic())
            self._act(self.course.ticked(time.monotonic()))

    async def finish(self, shipment: Shipment) -> None:
        """Have every node verify, try out and publish; return when all have ended. Raises what went wrong here."""
        self.shipment = shipment
        for node in self.nodes:
            if node not in self.results and node not in self.returning:
                self._task(self._publish(node, shipment))
        while not self.course.is_over and self.bug is None:
            self.ended.clear()
            await self.ended.wait()
        if self.bug is not None:
            raise self.bug

    async def close(self) -> None:
        """Let go of all connections, and of the nodes that are out of it."""
        for task in self.tasks:
            task.cancel()
        for downstream in self.downstreams.values():
            downstream.release()
        await asyncio.gather(*self.dismissals, *self.tasks, return_exceptions=True)
        self.feed.close()

    def heard(self, node: Node, event: dict[str, Any]) -> None:
        """What an agent, or this host's own part, says of the stream."""
        what = event["stream"]
        if what == "at":
            self.engine.emit(NodeMoved(node, event["content"]))
            root = self.feed.ring
            self.course.moved(ROOT, root.next, root.wire, time.monotonic())
            self._act(self.course.moved(node, event["position"], event["wire"], time.monotonic(), event["time"]))
        elif what == "whole":
            self.engine.emit(NodeWhole(node))
            self._act(self.course.whole(node))
        elif what == "damaged":
            self.engine.emit(NodeRetrying(node, f"{node.given}: what landed was damaged, and is sent again"))
            self._act(self.course.damaged(node, tuple(event["chunks"])))
        elif what == "failed":
            failure = event["failure"]
            error = by_code(failure["code"])(f"{node.given}: {failure['message']}", hint=failure["hint"])
            self.lost(node, error)
        elif what in ("cut", "lost", "refused"):
            self._interrupted(what, event)

    def _interrupted(self, what: str, event: dict[str, Any]) -> None:
        parent, child = self.servings.get(event["serial"], (None, None))
        if parent is None or child is None or self.serial_of.get(child) != event["serial"]:
            return
        self.engine.emit(Noted(f"{child.given} from {parent.given}: {event['why']}"))
        if what == "refused":
            self._act(self.course.refused(child, parent, event["why"]))
        else:
            self._act(self.course.cut(child, parent, time.monotonic()))

    def lost(self, node: Node, error: EzpzError) -> None:
        """A node is lost; it is started anew when that may help."""
        if node not in self.nodes or node in self.results or node in self.returning:
            return
        hangs = isinstance(error, NodeSilent)
        if hangs or error.code in FINAL or self.returns[node] >= self.engine.limits.retries:
            self._fail(node, error)
            return
        self.returns[node] += 1
        self.returning.add(node)
        self.engine.emit(NodeRetrying(node, error.message))
        self._act(self.course.away(node, error.message))
        self._task(self._bring_back(node, error))

    async def _bring_back(self, node: Node, error: EzpzError) -> None:
        try:
            await self.engine.bring_back(node)
            await self.engine.sessions[node].ask("join", timeout=ANSWER_WITHIN)
        except EzpzError:
            self.returning.discard(node)
            self._fail(node, error)
            return
        self.returning.discard(node)
        self._act(self.course.joined(node))
        if self.shipment is not None:
            self._task(self._publish(node, self.shipment))

    def _fail(self, node: Node, error: EzpzError) -> None:
        failure = Failure.of(error)
        self._finished(NodeResult(
            node, failure.outcome, self.attempts[node], self.via[node], failure=failure, seconds=self.engine.elapsed(),
        ))  # fmt: skip
        self._act(self.course.gone(node, error.message))
        self.dismissals.append(asyncio.ensure_future(self._dismiss(node, hangs=isinstance(error, NodeSilent))))

    async def _dismiss(self, node: Node, *, hangs: bool) -> None:
        """Let go of a node; of one that hangs, end the agent, which cannot end itself."""
        session = self.engine.sessions.get(node)
        if session is not None:
            await session.close()
        if hangs:
            with contextlib.suppress(EzpzError, asyncio.TimeoutError):
                await asyncio.wait_for(self.engine.bring_back(node), SWEEP_WITHIN)
                await self.engine.sessions[node].close()

    async def _publish(self, node: Node, shipment: Shipment) -> None:
        expected = {"version": shipment.version, "files": shipment.files, "bytes": shipment.bytes}
        try:
            published = await self.engine.sessions[node].ask(
                "publish", expected=expected, receipt=shipment.receipt, executable=shipment.executable,
                trial=shipment.trial, streamed=True, timeout=self.engine.limits.timeout or None,
            )  # fmt: skip
        except EzpzError as e:
            self.lost(node, e)
            return
        if node not in self.results:
            self._finished(NodeResult(
                node, Outcome.OK, self.attempts[node], self.via[node], seconds=self.engine.elapsed(),
                sent_files=self.feed.files, sent_bytes=self.feed.bytes, **published,
            ))  # fmt: skip
            self._act(self.course.done(node))

    def _finished(self, result: NodeResult) -> None:
        self.results[result.node] = result
        self.engine.emit(NodeDone(result))
        self.ended.set()

    def _act(self, actions: list[Action[Node]]) -> None:
        for action in actions:
            if isinstance(action, Serve):
                self._serve(action)
            elif isinstance(action, Release):
                self._release(action.parent, action.child)
                if self.course.members[action.child].state is State.PARKED:
                    self.engine.emit(NodeParked(action.child))
            elif isinstance(action, GiveUp):
                hint = "is the network between the nodes all right?"
                self._fail(action.node, NodeLost(f"{action.node.given}: {action.why}", hint=hint))
        self.ended.set()

    def _serve(self, action: Serve[Node]) -> None:
        parent, child = action.parent, action.child
        self.serial += 1
        self.servings[self.serial] = parent, child
        self.serial_of[child] = self.serial
        adopted = self.attempts[child] > 0
        self.attempts[child] += 1
        self.via[child] = parent.given
        self.engine.emit(NodeServed(child, parent.given, self.course.depth_of(child), adopted))
        self._task(self._connect(parent, child, self.serial, action.chunks))

    async def _connect(self, parent: Node, child: Node, serial: int, chunks: tuple[int, ...]) -> None:
        """Tell the child whom to expect, then the parent to dial it."""
        await self._ask(child, "expect", parent=parent.given, serial=serial, chunks=list(chunks))
        if self.serial_of.get(child) != serial:
            return
        way = self.engine.way_to(child)
        if parent == ROOT:
            self.downstreams[serial] = Downstream(
                self.feed.ring, self.engine.secret, ROOT.given, serial, way, STALL, self._say
            )
        else:
            await self._ask(parent, "serve", serial=serial, to=way)

    def _release(self, parent: Node, child: Node) -> None:
        serial = self.serial_of.get(child, 0)
        if self.servings.pop(serial, None) is None:
            return
        if parent == ROOT:
            downstream = self.downstreams.pop(serial, None)
            if downstream is not None:
                downstream.release()
        elif parent not in self.results or self.results[parent].outcome is Outcome.OK:
            self._task(self._ask(parent, "release", serial=serial))

    async def _ask(self, node: Node, op: str, **request: Any) -> None:
        await attempt(self.engine.sessions[node].ask(op, timeout=ANSWER_WITHIN, **request))

    def _say(self, event: dict[str, Any]) -> None:
        """What this host's own connections say, from their threads."""
        self.loop.call_soon_threadsafe(self.heard, ROOT, event)

    def _task(self, act: Any) -> None:
        task = asyncio.ensure_future(act)
        self.tasks.add(task)
        task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.bug = task.exception()
            self.ended.set()
