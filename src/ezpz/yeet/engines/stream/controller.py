"""Conductor: carries out what the course of one stream says, and tells it what happens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.messages import events
from ezpz.agent.common.messages.parts import ExpectedTree, SmokeTest
from ezpz.agent.common.messages.requests import ExpectRequest, JoinRequest, PublishRequest, ReleaseRequest, ServeRequest
from ezpz.agent.stream.chunks import CONTENT_LIMIT
from ezpz.agent.stream.codec import Codec
from ezpz.agent.stream.relay import Downstream
from ezpz.errors import EzpzError, NodeLost, TimedOut, by_code
from ezpz.remote.session import NodeSilent
from ezpz.yeet.engines.agent_engine import ANSWER_WITHIN, PERMANENT_FAILURES, attempt
from ezpz.yeet.engines.base import ROOT, STALL
from ezpz.yeet.engines.stream.node_state import Action, GiveUp, NodePhase, Release, Serve
from ezpz.yeet.engines.stream.sender import StreamSender
from ezpz.yeet.engines.stream.topology import NetworkModel, choose_shape
from ezpz.yeet.engines.stream.tree_scheduler import HUNG, TreeScheduler
from ezpz.yeet.model.events import (
    DetailLogged,
    NodeConnected,
    NodeDeferred,
    NodeDone,
    NodeProgress,
    NodeReceived,
    NodeRetrying,
)
from ezpz.yeet.model.results import Failure, NodeResult, Outcome

if TYPE_CHECKING:
    from ezpz.agent.common.messages.envelope import Done
    from ezpz.agent.common.messages.events import Event
    from ezpz.cluster.allocation import Node
    from ezpz.remote.session import Question
    from ezpz.yeet.engines.base import Payload, RemoteFiles, TransferSpec
    from ezpz.yeet.engines.stream.engine import Stream

TICK = 1.0  # seconds
SWEEP_WITHIN = 5.0  # seconds
LATE = 3.0  # seconds that all wait for a node to open its staging
FINAL = (*PERMANENT_FAILURES, "timed-out")
NETWORK_HINT = "is the network between the nodes all right?"
DISK_HINT = "does its disk hang? look at the node, or leave it out with --exclude"
SLOW_WIRE = 120e6  # bytes a second: gigabit Ethernet
SMALL_CHUNK = 512 << 10  # bytes of content in a chunk on a slow wire, where each hop costs the time of one chunk


class StreamController:
    """One stream to some nodes: carries out what the course says, and tells it what happens."""

    def __init__(
        self, engine: Stream, nodes: tuple[Node, ...], start: TransferSpec, base: RemoteFiles, *, needs_tree: bool
    ) -> None:
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
        self.shipment: Payload | None = None
        self.attempts: dict[Node, int] = dict.fromkeys(nodes, 0)
        self.via: dict[Node, str] = dict.fromkeys(nodes, "")
        self.bug: BaseException | None = None

    async def begin(self) -> None:
        """Plan the tree and let the nodes take their places in it."""
        engine = self.engine
        codec = Codec()
        kind = min([codec.best, *(engine.listening[node].codec for node in self.nodes)])
        rate = engine.rate
        slow = rate < SLOW_WIRE
        rates = NetworkModel(
            rate=max(rate, 1.0), size=max(1, self.start.size) / (3 if slow else 1), chunk=SMALL_CHUNK // 3
        )
        shape = choose_shape(len(self.nodes), rates)
        engine.emit(DetailLogged(f"the network carries {rate / 1e6:.0f} MB/s: {shape.reason}"))
        self.feed = StreamSender(
            engine.secret, codec, kind, self.start.read, SMALL_CHUNK if slow else CONTENT_LIMIT,
            needs_tree=self.needs_tree, base=self.base,
        )  # fmt: skip
        self.course: TreeScheduler[Node] = TreeScheduler(ROOT, self.nodes, shape.width, engine.rng, wire=rate)
        await self._join_all()
        self._act(self.course.start())
        for node in self.nodes:  # the line may have ended before anybody listened
            if not engine.sessions[node].is_open:
                self.lost(node, await engine.sessions[node].line.lost())
        self._task(self._watch())

    async def _join_all(self) -> None:
        """Let the nodes open their staging; whoever is late for that gets its place once it has."""
        joining = {node: self._task(self._join(node)) for node in self.nodes}
        _, late = await asyncio.wait(joining.values(), timeout=LATE)
        for node, task in joining.items():
            if task in late:
                self._act(self.course.away(node, "its disk is slow"))

    async def _join(self, node: Node) -> None:
        try:
            await self.engine.sessions[node].ask(JoinRequest(), timeout=HUNG)
        except TimedOut:
            message = f"{node.given}: it could not make its files in staging within {HUNG:g} s"
            self.lost(node, TimedOut(message, hint=DISK_HINT))
        except EzpzError as e:
            self.lost(node, e)
        else:
            self._act(self.course.joined(node))

    async def _watch(self) -> None:
        while not self.course.is_over:
            await asyncio.sleep(TICK)
            root = self.feed.ring
            self.course.moved(ROOT, root.next, root.wire, time.monotonic())
            self._act(self.course.ticked(time.monotonic()))

    async def finish(self, shipment: Payload) -> None:
        """Have every node verify, try out and publish; return when all have ended. Raises what went wrong here."""
        self.shipment = shipment
        self.course.completed()
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

    def heard(self, node: Node, event: Event) -> None:
        """What an agent, or this host's own part, says of the stream."""
        if isinstance(event, events.PositionEvent):
            self.engine.emit(NodeProgress(node, event.content))
            root = self.feed.ring
            self.course.moved(ROOT, root.next, root.wire, time.monotonic())
            self._act(self.course.moved(node, event.position, event.wire, time.monotonic(), event.time))
        elif isinstance(event, events.ReceivedEvent):
            self.engine.emit(NodeReceived(node))
            self._act(self.course.whole(node))
        elif isinstance(event, events.DamagedEvent):
            self.engine.emit(NodeRetrying(node, f"{node.given}: what landed was damaged, and is sent again"))
            self._act(self.course.damaged(node, tuple(event.chunks)))
        elif isinstance(event, events.FailedEvent):
            failure = event.failure
            self.lost(node, by_code(failure.code)(f"{node.given}: {failure.message}", hint=failure.hint))
        elif isinstance(event, events.AdvancedEvent):
            self.course.advanced(node, time.monotonic())
        elif isinstance(event, (events.ServingEvent, events.CutEvent, events.LostEvent, events.RefusedEvent)):
            self._connected(event)

    def _connected(self, event: events.ServingEvent | events.CutEvent | events.LostEvent | events.RefusedEvent) -> None:
        parent, child = self.servings.get(event.serial, (None, None))
        if parent is None or child is None or self.serial_of.get(child) != event.serial:
            return
        if isinstance(event, events.ServingEvent):
            self.course.reached(child, parent, time.monotonic())
            return
        self.engine.emit(DetailLogged(f"{child.given} from {parent.given}: {event.why}"))
        if isinstance(event, events.RefusedEvent):
            self._act(self.course.refused(child, parent, event.why))
        else:
            self._act(self.course.cut(child, parent, time.monotonic(), event.why))

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
            await self.engine.sessions[node].ask(JoinRequest(), timeout=ANSWER_WITHIN)
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

    async def _publish(self, node: Node, shipment: Payload) -> None:
        request = PublishRequest(
            expected=ExpectedTree(version=shipment.version, files=shipment.files, bytes=shipment.bytes),
            receipt=shipment.receipt, executable=shipment.executable,
            trial=None if shipment.trial is None else SmokeTest.from_json(shipment.trial), streamed=True,
        )  # fmt: skip
        try:
            published = await self.engine.sessions[node].ask(request, timeout=self.engine.limits.timeout or None)
        except EzpzError as e:
            self.lost(node, e)
            return
        if node not in self.results:
            self._finished(NodeResult(
                node, Outcome.OK, self.attempts[node], self.via[node], seconds=self.engine.elapsed(),
                sent_files=self.feed.files, sent_bytes=self.feed.bytes, **published.to_json(),
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
                if self.course.members[action.child].state is NodePhase.PARKED:
                    self.engine.emit(NodeDeferred(action.child))
            elif isinstance(action, GiveUp):
                hint = DISK_HINT if action.hangs else NETWORK_HINT
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
        self.engine.emit(NodeConnected(child, parent.given, self.course.depth_of(child), adopted))
        self._task(self._connect(parent, child, self.serial, action.chunks))

    async def _connect(self, parent: Node, child: Node, serial: int, chunks: tuple[int, ...]) -> None:
        """Tell the child whom to expect, then the parent to dial it."""
        await self._ask(child, ExpectRequest(parent=parent.given, serial=serial, chunks=chunks))
        if self.serial_of.get(child) != serial:
            return
        way = self.engine.way_to(child)
        if parent == ROOT:
            self.downstreams[serial] = Downstream(
                self.feed.ring, self.engine.secret, ROOT.given, serial, way, STALL, self._say
            )
        else:
            await self._ask(parent, ServeRequest(serial=serial, to=way))

    def _release(self, parent: Node, child: Node) -> None:
        serial = self.serial_of.get(child, 0)
        if self.servings.pop(serial, None) is None:
            return
        if parent == ROOT:
            downstream = self.downstreams.pop(serial, None)
            if downstream is not None:
                downstream.release()
        elif parent not in self.results or self.results[parent].outcome is Outcome.OK:
            self._task(self._ask(parent, ReleaseRequest(serial=serial)))

    async def _ask(self, node: Node, request: Question[Done]) -> None:
        await attempt(self.engine.sessions[node].ask(request, timeout=ANSWER_WITHIN))

    def _say(self, event: Event) -> None:
        """What this host's own connections say, from their threads."""
        self.loop.call_soon_threadsafe(self.heard, ROOT, event)

    def _task(self, act: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(act)
        self.tasks.add(task)
        task.add_done_callback(self._has_ended)
        return task

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.bug = task.exception()
            self.ended.set()
