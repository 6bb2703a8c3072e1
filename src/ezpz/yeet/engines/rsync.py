"""rsync: a greedy tree of rsync copies over ssh; every node that has the data serves others at once.

One session to an agent on each node stages, verifies and publishes there. From this host the data is pushed; between
nodes the receiving agent pulls it, so that the end of its session ends the copy too.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from typing import TYPE_CHECKING, Any, ClassVar

from ezpz.agent.common.layout import OWN_FILES
from ezpz.agent.common.messages.events import Event, ProgressEvent
from ezpz.agent.common.messages.parts import ExpectedTree, SmokeTest
from ezpz.agent.common.messages.requests import AdoptRequest, CapabilitiesRequest, PublishRequest, PullRequest
from ezpz.agent.run_rsync import PROGRESS, STATS, knows_zstd
from ezpz.cluster.allocation import Node
from ezpz.cluster.ssh import ssh_command_line
from ezpz.cluster.ssh_errors import classify_failure
from ezpz.errors import EzpzError, SourceChanged, TimedOut
from ezpz.runtime.async_process import AsyncProcess, gather_or_cancel, run_in_thread
from ezpz.yeet.engines.agent_engine import ANSWER_WITHIN, PERMANENT_FAILURES, AgentEngine, attempt, measure_bandwidth
from ezpz.yeet.engines.copy_tree import MAX_PER_SOURCE, CopyTree
from ezpz.yeet.engines.pacing import Pace, choose_pace
from ezpz.yeet.model.events import DetailLogged, NodeDone, NodeProgress, NodeRetrying, NodeStarted
from ezpz.yeet.model.results import Failure, NodeResult, Outcome

if TYPE_CHECKING:
    from ezpz.yeet.engines.base import EntrySink, Payload, TransferSpec

STALLED = 60  # seconds without a byte after which rsync gives up
OPTIONS = (
    "-rlptH",
    "--protect-args",
    "--no-human-readable",
    "--info=progress2",
    "--stats",
    "--modify-window=-1",  # nanoseconds count
    f"--timeout={STALLED}",
    *(f"--exclude=/{os.fsdecode(name)}" for name in OWN_FILES),
)
ALIKE = ("source", "ezpz", "kind", "relocation")
"""What versions in a receipt have in common that were made of the same source by the same rules."""
CLOSED_DOORS = ("ssh-refused", "host-key-unknown", "login-refused", "host-unknown")
"""Why one node may be unable to log in to another, although this host can reach both."""

ORIGIN = Node("this host", address="", given="this host", is_local=True)
"""The first source, whether or not it is a node of the job."""


class PeerUnreachable(EzpzError):
    """One node cannot log in to another, and has to be served by this host; `code` says why."""

    def __init__(self, error: EzpzError, node: Node) -> None:
        super().__init__(f"{node.given}, copying from {error.message}", hint=error.hint)
        self.code = error.code


class RsyncTree(AgentEngine):
    """The engine that needs nothing but ssh and rsync, and python3 for the agent."""

    name: ClassVar[str] = "rsync"
    tools: ClassVar[tuple[str, ...]] = ("rsync",)
    transports: ClassVar[tuple[str, ...]] = ("ssh",)

    needs = ("rsync", "ssh")

    async def begin(self, _nodes: tuple[Node, ...], _start: TransferSpec) -> tuple[EntrySink, ...]:
        """Wait for the whole of it."""
        return ()

    async def deliver(self, nodes: tuple[Node, ...], shipment: Payload) -> None:
        await _Delivery(self, nodes, shipment).run()


class _Delivery:
    """One shipment on its way through the tree."""

    def __init__(self, engine: RsyncTree, nodes: tuple[Node, ...], shipment: Payload) -> None:
        self.engine = engine
        self.nodes = nodes
        self.shipment = shipment
        self.pace = Pace(MAX_PER_SOURCE, (), "")
        self.tree = CopyTree(ORIGIN, nodes, retries=engine.limits.retries, rng=engine.rng)
        self.under_way: set[asyncio.Task[None]] = set()
        self.ended: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self.expected = {"version": shipment.version, "files": shipment.files, "bytes": shipment.bytes}

    async def run(self) -> None:
        for node in self.nodes:
            if not self.engine.sessions[node].is_agent:
                self.tree.only_from_origin(node)
        if self.tree.is_waiting:
            self.pace = await self._weigh()
            self.tree.max_per_source = self.pace.per_source
            self.engine.emit(DetailLogged(self.pace.reason))
        try:
            while True:
                while (pair := self.tree.next()) is not None:
                    task = asyncio.create_task(self._serve(*pair))
                    self.under_way.add(task)
                    task.add_done_callback(self._has_ended)
                if not self.under_way:
                    return
                bug = await self.ended.get()
                if bug is not None:
                    raise bug
        finally:
            for task in self.under_way:
                task.cancel()
            await asyncio.gather(*self.under_way, return_exceptions=True)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self.under_way.discard(task)
        self.ended.put_nowait(None if task.cancelled() else task.exception())

    async def _weigh(self) -> Pace:
        """Learn what the network carries from one node, and from all of them what their rsync knows."""
        sessions = [self.engine.sessions[node] for node in self.nodes]
        answers = await gather_or_cancel(
            attempt(session.ask(CapabilitiesRequest(), timeout=ANSWER_WITHIN)) for session in sessions
        )
        zstd = await run_in_thread(knows_zstd) and all(answer is None or answer.zstd for answer in answers)
        return choose_pace(await measure_bandwidth(sessions), zstd=zstd)

    async def _serve(self, node: Node, source: Node) -> None:
        number = self.tree.attempts[node]
        try:
            self.engine.emit(NodeStarted(node, source.given, number))
            await self.engine.renew(node)
            await self._adopt(node)
            moved = await self._copy(node, source)
            if source is ORIGIN and self.shipment.refuse_changed is not None:
                await run_in_thread(self.shipment.refuse_changed)
            published = await self._publish(node)
        except EzpzError as e:
            self._failed(node, source, e, number)
        else:
            self.tree.done(node, source)
            via = source.given if self.engine.sessions[node].is_agent else f"{source.given}, by rsync"
            result = NodeResult(node, Outcome.OK, number, via, seconds=self._elapsed(), **published, **moved)
            self.engine.emit(NodeDone(result))

    async def _adopt(self, node: Node) -> None:
        """Have a node take what it has already into staging, where rsync finds it. Raises EzpzError."""
        session = self.engine.sessions[node]
        if session.is_agent:
            await session.ask(
                AdoptRequest(), attached=self.shipment.manifest, timeout=self.engine.limits.timeout or None
            )

    def _failed(self, node: Node, source: Node, error: EzpzError, attempt: int) -> None:
        if isinstance(error, PeerUnreachable):
            again = self.tree.unreachable(node, source)
        else:
            session = self.engine.sessions.get(node)
            hopeless = error.code in PERMANENT_FAILURES or (source is ORIGIN and error.code == SourceChanged.code)
            well = session is not None and session.is_open and not hopeless
            again = self.tree.failed(node, source, blame_source=well, again=not hopeless)
        if again:
            self.engine.emit(NodeRetrying(node, error.message))
            return
        failure = Failure.of(error)
        result = NodeResult(node, failure.outcome, attempt, source.given, failure=failure, seconds=self._elapsed())
        self.engine.emit(NodeDone(result))

    async def _copy(self, node: Node, source: Node) -> dict[str, Any]:
        return await (self._push(node) if source is ORIGIN else self._pull(node, source))

    async def _pull(self, node: Node, source: Node) -> dict[str, Any]:
        serving = self.engine.sessions[source]
        staging = self.engine.prepared[node].staging
        argv = self._argv(node, f"{_host(serving.address)}:{self.shipment.destination}/", staging + "/")
        timeout = self.engine.limits.timeout
        session = self.engine.sessions[node]
        moved = await session.ask(
            PullRequest(argv=argv, seconds=timeout), timeout=timeout + ANSWER_WITHIN if timeout else None,
            heard=lambda event: self._on_event(node, event),
        )  # fmt: skip
        if moved.returncode != 0:
            error = classify_failure(moved.stderr, moved.returncode, source.given)
            if error.code in CLOSED_DOORS:
                raise PeerUnreachable(error, node)
            raise type(error)(f"{node.given}, copying from {error.message}", hint=error.hint)
        return {name: getattr(moved, name) for name in STATS}

    def _on_event(self, node: Node, event: Event) -> None:
        if isinstance(event, ProgressEvent):
            self.engine.emit(NodeProgress(node, event.bytes))

    async def _push(self, node: Node) -> dict[str, Any]:
        session = self.engine.sessions[node]
        staging = self.engine.prepared[node].staging
        argv = self._argv(node, self.shipment.path + "/", f"{_host(session.address)}:{staging}/")
        child = await AsyncProcess.start(argv, env=dict(os.environ, LC_ALL="C"))
        timeout = self.engine.limits.timeout or None
        try:
            said = await asyncio.wait_for(self._follow(node, child), timeout)
            status = await child.wait()
        except asyncio.TimeoutError:
            raise TimedOut(
                f"{node.given}: the copy did not end within {timeout:g} s",
                hint="is the node slow? raise --timeout, or look at the node",
            ) from None
        finally:
            await child.end(0.5)
        if status != 0:
            raise classify_failure(child.err, status, node.given)
        return {name: int(match.group(1)) if (match := pattern.search(said)) else 0 for name, pattern in STATS.items()}

    async def _follow(self, node: Node, child: AsyncProcess) -> bytes:
        """Read what rsync says to its end, tell how far it is, and return the last of it."""
        kept = b""
        told = 0.0
        while data := await child.reader.read(1 << 16):
            kept = (kept + data)[-4096:]
            found = PROGRESS.findall(kept)
            if found and time.monotonic() - told > 0.25:
                told = time.monotonic()
                self.engine.emit(NodeProgress(node, int(found[-1])))
        return kept

    async def _publish(self, node: Node) -> dict[str, Any]:
        request = PublishRequest(
            expected=ExpectedTree.from_json(self.expected), receipt=self.shipment.receipt,
            executable=self.shipment.executable,
            trial=None if self.shipment.trial is None else SmokeTest.from_json(self.shipment.trial),
        )  # fmt: skip
        timeout = self.engine.limits.timeout or None
        return (await self.engine.sessions[node].ask(request, timeout=timeout)).to_json()

    def _argv(self, node: Node, source: str, target: str) -> list[str]:
        argv = ["rsync", *OPTIONS, *self.pace.options, "-e", ssh_command_line()]
        standing = self.engine.prepared[node].receipt or {}
        rules = ((name, self.shipment.receipt[name]) for name in ALIKE)
        if not self.engine.sessions[node].is_agent and all(standing.get(name) == value for name, value in rules):
            # there is no manifest; only then do equal size and time mean equal content
            argv.append(f"--link-dest={self.shipment.destination}")
        return [*argv, "--", source, target]

    def _elapsed(self) -> float:
        return self.engine.elapsed()


def _host(address: str) -> str:
    """An address as rsync takes it before a colon."""
    return f"[{address}]" if re.fullmatch(r"[0-9a-fA-F]*:[0-9a-fA-F:.]+", address) else address
