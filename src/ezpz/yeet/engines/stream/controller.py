"""Carries out the decisions about one stream, and reports to them what happens on the nodes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.messages import events
from ezpz.agent.common.messages.parts import ExpectedTree, SmokeTest
from ezpz.agent.common.messages.requests import JoinRequest, PublishRequest
from ezpz.agent.stream.chunks import CONTENT_LIMIT
from ezpz.agent.stream.codec import Codec
from ezpz.errors import CopyFailed, EzpzError, NodeLost, TimedOut, by_code
from ezpz.remote.session import NodeSilent
from ezpz.yeet.engines.agent_engine import ANSWER_TIMEOUT, PERMANENT_FAILURES
from ezpz.yeet.engines.base import ROOT
from ezpz.yeet.engines.pacing import SLOW_WIRE
from ezpz.yeet.engines.stream.connections import StreamConnections
from ezpz.yeet.engines.stream.node_state import Abandon, Action, Connect, Disconnect, NodePhase
from ezpz.yeet.engines.stream.progress_watch import PROGRESS_TIMEOUT
from ezpz.yeet.engines.stream.sender import StreamSender
from ezpz.yeet.engines.stream.topology import NetworkModel, choose_shape
from ezpz.yeet.engines.stream.tree_scheduler import TreeScheduler
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
    from collections.abc import Coroutine

    from ezpz.agent.common.messages.events import Event
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.engines.base import Payload, RemoteFiles, TransferSpec
    from ezpz.yeet.engines.stream.context import StreamContext

TICK = 1.0  # seconds between two checks of the progress
SWEEP_TIMEOUT = 5.0  # seconds to end the agent of a node that hangs
JOIN_GRACE = 3.0  # seconds that all nodes wait for one to open its staging
NOT_RETRIED = (*PERMANENT_FAILURES, "timed-out")
NETWORK_HINT = "is the network between the nodes all right?"
DISK_HINT = "does its disk hang? look at the node, or leave it out with --exclude"
SMALL_CHUNK = 512 << 10  # bytes of content in a chunk on a slow wire, where each hop costs the time of one chunk


class StreamController:
    """One stream to some nodes.

    Args:
        context: Access to the nodes.
        nodes: Nodes that receive the stream.
        start: What is known of the source.
        base: Files that all of these nodes have already.
    """

    def __init__(self, context: StreamContext, nodes: tuple[Node, ...], start: TransferSpec, base: RemoteFiles) -> None:
        self.context = context
        self.nodes = nodes
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[None]] = set()
        self.dismissals: list[asyncio.Task[None]] = []
        self.changed = asyncio.Event()
        self.results: dict[Node, NodeResult] = {}
        self.restarts: dict[Node, int] = dict.fromkeys(nodes, 0)
        self.restarting: set[Node] = set()
        self.payload: Payload | None = None
        self.bug: BaseException | None = None
        codec = Codec()
        kind = min([codec.best, *(context.listening[node].codec for node in nodes)])
        is_slow = context.rate < SLOW_WIRE
        self.sender = StreamSender(
            context.secret, codec, kind, start.read, SMALL_CHUNK if is_slow else CONTENT_LIMIT, base=base
        )  # fmt: skip
        size = max(1, start.size) / (3 if is_slow else 1)
        self.shape = choose_shape(
            len(nodes), NetworkModel(rate=max(context.rate, 1.0), size=size, chunk=SMALL_CHUNK // 3)
        )
        self.scheduler: TreeScheduler[Node] = TreeScheduler(
            ROOT, nodes, self.shape.width, context.rng, wire=context.rate
        )
        self.connections = StreamConnections(context, nodes, self.sender.ring, self._on_own_event, self._spawn)

    async def begin(self) -> None:
        """Connect the nodes in a tree."""
        self.context.emit(DetailLogged(f"the network carries {self.context.rate / 1e6:.0f} MB/s: {self.shape.reason}"))
        await self._join_all()
        self._act(self.scheduler.start())
        for node in self.nodes:  # a session may have ended before its end was reported to this object
            session = self.context.sessions[node]
            if not session.is_open:
                self.on_lost(node, await session.line.failure())
        self._spawn(self._watch())

    async def _join_all(self) -> None:
        """Let the nodes open their staging; a node that is late for that is connected once it is done."""
        joining = {node: self._spawn(self._join(node)) for node in self.nodes}
        _, late = await asyncio.wait(joining.values(), timeout=JOIN_GRACE)
        for node, task in joining.items():
            if task in late:
                self._act(self.scheduler.on_lost(node, "its disk is slow"))

    async def _join(self, node: Node) -> None:
        try:
            await self.context.sessions[node].ask(JoinRequest(), timeout=PROGRESS_TIMEOUT)
        except TimedOut:
            text = f"it could not make its files in staging within {PROGRESS_TIMEOUT:g} s"
            self.on_lost(node, TimedOut(text, hint=DISK_HINT, node=node.given))
        except EzpzError as e:
            self.on_lost(node, e)
        else:
            self._act(self.scheduler.on_joined(node))

    async def _watch(self) -> None:
        while not self.scheduler.is_over:
            await asyncio.sleep(TICK)
            self._report_own_progress()
            self._act(self.scheduler.on_tick(time.monotonic()))

    def _report_own_progress(self) -> None:
        buffer = self.sender.ring
        self.scheduler.on_progress(ROOT, buffer.next, buffer.wire, time.monotonic())

    async def finish(self, payload: Payload) -> None:
        """Let every node verify, run the smoke test, and publish; return when all have ended.

        An exception that a task of this host did not expect is raised again.
        """
        self.payload = payload
        self.scheduler.on_source_read()
        for node in self.nodes:
            if node not in self.results and node not in self.restarting:
                self._spawn(self._publish(node, payload))
        while not self.scheduler.is_over and self.bug is None:
            self.changed.clear()
            await self.changed.wait()
        if self.bug is not None:
            raise self.bug

    async def close(self) -> None:
        """Close all connections, and the sessions of nodes that have failed."""
        for task in self.tasks:
            task.cancel()
        self.connections.close_all()
        await asyncio.gather(*self.dismissals, *self.tasks, return_exceptions=True)
        self.sender.close()

    # Events

    def on_event(self, node: Node, event: Event) -> None:
        """Handle what an agent, or this host itself, reports of the stream."""
        if isinstance(event, events.PositionEvent):
            self.context.emit(NodeProgress(node, event.content))
            self._report_own_progress()
            now = time.monotonic()
            self._act(self.scheduler.on_progress(node, event.position, event.wire, now, event.time))
        elif isinstance(event, events.ReceivedEvent):
            self.context.emit(NodeReceived(node))
            self._act(self.scheduler.on_received(node))
        elif isinstance(event, events.DamagedEvent):
            error = CopyFailed("what landed was damaged, and is sent again", node=node.given)
            self.context.emit(NodeRetrying(node, Failure.of(error)))
            self._act(self.scheduler.on_damaged(node, tuple(event.chunks)))
        elif isinstance(event, events.FailedEvent):
            failure = event.failure
            self.on_lost(node, by_code(failure.code)(failure.message, hint=failure.hint, node=node.given))
        elif isinstance(event, events.AdvancedEvent):
            self.scheduler.on_activity(node, time.monotonic())
        elif isinstance(event, (events.ServingEvent, events.CutEvent, events.LostEvent, events.RefusedEvent)):
            self._on_connection_event(event)

    def _on_own_event(self, event: Event) -> None:
        """Handle what this host's own connections report from their threads."""
        self.loop.call_soon_threadsafe(self.on_event, ROOT, event)

    def _on_connection_event(
        self, event: events.ServingEvent | events.CutEvent | events.LostEvent | events.RefusedEvent
    ) -> None:
        ends = self.connections.ends_of(event.serial)
        if ends is None:
            return
        parent, child = ends
        if isinstance(event, events.ServingEvent):
            self.scheduler.on_connected(child, parent, time.monotonic())
            return
        self.context.emit(DetailLogged(f"{child.given} from {parent.given}: {event.why}"))
        if isinstance(event, events.RefusedEvent):
            self._act(self.scheduler.on_refused(child, parent, event.why))
        else:
            self._act(self.scheduler.on_disconnect(child, parent, event.why))

    def on_lost(self, node: Node, error: EzpzError) -> None:
        """Handle a node whose session has ended or whose agent has failed: restart it if that may help."""
        if node not in self.nodes or node in self.results or node in self.restarting:
            return
        is_hopeless = isinstance(error, NodeSilent) or error.code in NOT_RETRIED
        if is_hopeless or self.restarts[node] >= self.context.options.retries:
            self._fail(node, error)
            return
        self.restarts[node] += 1
        self.restarting.add(node)
        self.context.emit(NodeRetrying(node, Failure.of(error)))
        self._act(self.scheduler.on_lost(node, error.message))
        self._spawn(self._restart(node, error))

    async def _restart(self, node: Node, error: EzpzError) -> None:
        try:
            await self.context.restart(node)
            await self.context.sessions[node].ask(JoinRequest(), timeout=ANSWER_TIMEOUT)
        except EzpzError:
            self.restarting.discard(node)
            self._fail(node, error)
            return
        self.restarting.discard(node)
        self._act(self.scheduler.on_joined(node))
        if self.payload is not None:
            self._spawn(self._publish(node, self.payload))

    async def _publish(self, node: Node, payload: Payload) -> None:
        request = PublishRequest(
            expected=ExpectedTree(version=payload.version, files=payload.files, bytes=payload.bytes),
            receipt=payload.receipt, executable=payload.executable, streamed=True,
            trial=None if payload.smoke_test is None else SmokeTest.from_json(payload.smoke_test),
        )  # fmt: skip
        try:
            answer = await self.context.sessions[node].ask(request, timeout=self.context.options.timeout or None)
        except EzpzError as e:
            self.on_lost(node, e)
            return
        if node not in self.results:
            self._record(NodeResult(
                node, Outcome.OK, self.connections.attempts[node], self.connections.via[node],
                seconds=self.context.elapsed(), sent_files=self.sender.files, sent_bytes=self.sender.bytes,
                **answer.to_json(),
            ))  # fmt: skip
            self._act(self.scheduler.on_published(node))

    def _fail(self, node: Node, error: EzpzError) -> None:
        failure = Failure.of(error)
        self._record(NodeResult(
            node, failure.outcome, self.connections.attempts[node], self.connections.via[node],
            failure=failure, seconds=self.context.elapsed(),
        ))  # fmt: skip
        self._act(self.scheduler.on_failed(node, error.message))
        self.dismissals.append(asyncio.ensure_future(self._dismiss(node, hangs=isinstance(error, NodeSilent))))

    async def _dismiss(self, node: Node, *, hangs: bool) -> None:
        """Close the session of a node; replace the agent if it hangs and cannot end itself."""
        session = self.context.sessions.get(node)
        if session is not None:
            await session.close()
        if hangs:
            with contextlib.suppress(EzpzError, asyncio.TimeoutError):
                await asyncio.wait_for(self.context.restart(node), SWEEP_TIMEOUT)
                await self.context.sessions[node].close()

    def _record(self, result: NodeResult) -> None:
        self.results[result.node] = result
        self.context.emit(NodeDone(result))
        self.changed.set()

    # Actions

    def _act(self, actions: list[Action[Node]]) -> None:
        for action in actions:
            if isinstance(action, Connect):
                self._connect(action)
            elif isinstance(action, Disconnect):
                result = self.results.get(action.parent)
                is_alive = result is None or result.outcome is Outcome.OK
                self.connections.close(action.parent, action.child, is_parent_alive=is_alive)
                if self.scheduler.states[action.child].phase is NodePhase.DEFERRED:
                    self.context.emit(NodeDeferred(action.child))
            elif isinstance(action, Abandon):
                hint = DISK_HINT if action.hangs else NETWORK_HINT
                self._fail(action.node, NodeLost(action.reason, hint=hint, node=action.node.given))
        self.changed.set()

    def _connect(self, action: Connect[Node]) -> None:
        parent, child = action.parent, action.child
        is_reassigned = self.connections.attempts[child] > 0
        self.context.emit(NodeConnected(child, parent.given, self.scheduler.depth_of(child), is_reassigned))
        self.connections.open(parent, child, action.chunks)

    def _spawn(self, act: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(act)
        self.tasks.add(task)
        task.add_done_callback(self._on_task_end)
        return task

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.bug = task.exception()
            self.changed.set()
