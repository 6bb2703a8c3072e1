"""The rsync engine: a greedy tree of rsync copies over ssh; every node that has the data serves others at once.

A session to an agent on each node stages, verifies, and publishes there. This host pushes the data; between nodes the
receiving agent pulls it, so that the end of its session ends the copy as well.
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
from ezpz.cluster.ssh import ssh_command_line
from ezpz.cluster.ssh_errors import classify_failure
from ezpz.errors import EzpzError, SourceChanged, TimedOut
from ezpz.runtime.async_process import AsyncProcess, gather_or_cancel, run_in_thread
from ezpz.yeet.engines.agent_engine import (
    ANSWER_TIMEOUT,
    PERMANENT_FAILURES,
    AgentEngine,
    answer_or_none,
    measure_bandwidth,
)
from ezpz.yeet.engines.base import ROOT
from ezpz.yeet.engines.copy_tree import MAX_PER_SOURCE, CopyTree
from ezpz.yeet.engines.pacing import Pace, choose_pace
from ezpz.yeet.model.events import DetailLogged, NodeDone, NodeProgress, NodeRetrying, NodeStarted
from ezpz.yeet.model.results import Failure, NodeResult, Outcome

if TYPE_CHECKING:
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.engines.base import EntrySink, Payload, TransferSpec

STALL_SECONDS = 60  # without a byte, after which rsync gives up
OPTIONS = (
    "-rlptH",
    "--protect-args",
    "--no-human-readable",
    "--info=progress2",
    "--stats",
    "--modify-window=-1",  # compare nanoseconds
    f"--timeout={STALL_SECONDS}",
    *(f"--exclude=/{os.fsdecode(name)}" for name in OWN_FILES),
)
LOGIN_FAILURES = ("ssh-refused", "host-key-unknown", "login-refused", "host-unknown")
"""Codes of failures of one node to log in to another, although this host may reach both."""
REPORT_INTERVAL = 0.25  # seconds between two progress events of a node


class PeerUnreachable(EzpzError):
    """One node cannot log in to another, and this host has to serve it; `code` is the reason."""

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
        """Return no sink: rsync needs the complete tree."""
        return ()

    async def deliver(self, nodes: tuple[Node, ...], payload: Payload) -> None:
        await RsyncDelivery(self, nodes, payload).run()


class RsyncDelivery:
    """Copies of one payload through the tree, on the sessions of an engine."""

    def __init__(self, engine: AgentEngine, nodes: tuple[Node, ...], payload: Payload) -> None:
        self.engine = engine
        self.nodes = nodes
        self.payload = payload
        self.pace = Pace(MAX_PER_SOURCE, (), "")
        self.tree = CopyTree(ROOT, nodes, retries=engine.options.retries, rng=engine.rng)
        self.running: set[asyncio.Task[None]] = set()
        self.ended: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self.expected = ExpectedTree(version=payload.version, files=payload.files, bytes=payload.bytes)

    async def run(self) -> None:
        """Copy to every node; each result is emitted as NodeDone."""
        if self.tree.is_waiting:
            self.pace = await self._choose_pace()
            self.tree.max_per_source = self.pace.per_source
            self.engine.emit(DetailLogged(self.pace.reason))
        try:
            while True:
                while (pair := self.tree.next()) is not None:
                    task = asyncio.create_task(self._serve(*pair))
                    self.running.add(task)
                    task.add_done_callback(self._on_task_end)
                if not self.running:
                    return
                bug = await self.ended.get()
                if bug is not None:
                    raise bug
        finally:
            for task in self.running:
                task.cancel()
            await asyncio.gather(*self.running, return_exceptions=True)

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self.ended.put_nowait(None if task.cancelled() else task.exception())

    async def _choose_pace(self) -> Pace:
        """Measure the network to one node, and ask all nodes whether their rsync has zstd."""
        sessions = [self.engine.sessions[node] for node in self.nodes]
        asked = (answer_or_none(session.ask(CapabilitiesRequest(), timeout=ANSWER_TIMEOUT)) for session in sessions)
        answers = await gather_or_cancel(asked)
        zstd = await run_in_thread(knows_zstd) and all(answer is None or answer.zstd for answer in answers)
        return choose_pace(await measure_bandwidth(sessions), zstd=zstd)

    async def _serve(self, node: Node, source: Node) -> None:
        number = self.tree.attempts[node]
        try:
            self.engine.emit(NodeStarted(node, source.given, number))
            await self.engine.renew(node)
            await self._reuse_files(node)
            sent = await self._copy(node, source)
            if source is ROOT and self.payload.check_source is not None:
                await run_in_thread(self.payload.check_source)
            published = await self._publish(node)
        except EzpzError as e:
            self._on_failed(node, source, e, number)
        else:
            self.tree.done(node, source)
            seconds = self.engine.elapsed()
            self.engine.emit(
                NodeDone(NodeResult(node, Outcome.OK, number, source.given, seconds=seconds, **published, **sent))
            )

    async def _reuse_files(self, node: Node) -> None:
        """Let a node put the files that it has already into staging, where rsync finds them. Raises EzpzError."""
        timeout = self.engine.options.timeout or None
        await self.engine.sessions[node].ask(AdoptRequest(), attached=self.payload.manifest, timeout=timeout)

    def _on_failed(self, node: Node, source: Node, error: EzpzError, number: int) -> None:
        if isinstance(error, PeerUnreachable):
            again = self.tree.unreachable(node, source)
        else:
            session = self.engine.sessions.get(node)
            is_permanent = error.code in PERMANENT_FAILURES or (source is ROOT and error.code == SourceChanged.code)
            is_well = session is not None and session.is_open and not is_permanent
            again = self.tree.failed(node, source, blame_source=is_well, again=not is_permanent)
        failure = Failure.of(error)
        if again:
            self.engine.emit(NodeRetrying(node, failure))
            return
        seconds = self.engine.elapsed()
        result = NodeResult(node, failure.outcome, number, source.given, failure=failure, seconds=seconds)
        self.engine.emit(NodeDone(result))

    async def _copy(self, node: Node, source: Node) -> dict[str, Any]:
        return await (self._push(node) if source is ROOT else self._pull(node, source))

    async def _pull(self, node: Node, source: Node) -> dict[str, Any]:
        address = rsync_host(self.engine.sessions[source].address)
        staging = self.engine.prepared[node].staging
        argv = self._argv(f"{address}:{self.payload.destination}/", staging + "/")
        timeout = self.engine.options.timeout
        session = self.engine.sessions[node]
        copied = await session.ask(
            PullRequest(argv=argv, seconds=timeout), timeout=timeout + ANSWER_TIMEOUT if timeout else None,
            heard=lambda event: self._on_event(node, event),
        )  # fmt: skip
        if copied.returncode != 0:
            error = classify_failure(copied.stderr, copied.returncode, source.given)
            if error.code in LOGIN_FAILURES:
                raise PeerUnreachable(error, node)
            raise type(error)(f"{node.given}, copying from {error.message}", hint=error.hint)
        return {name: getattr(copied, name) for name in STATS}

    def _on_event(self, node: Node, event: Event) -> None:
        if isinstance(event, ProgressEvent):
            self.engine.emit(NodeProgress(node, event.bytes))

    async def _push(self, node: Node) -> dict[str, Any]:
        address = rsync_host(self.engine.sessions[node].address)
        staging = self.engine.prepared[node].staging
        argv = self._argv(self.payload.path + "/", f"{address}:{staging}/")
        child = await AsyncProcess.start(argv, env=dict(os.environ, LC_ALL="C"))
        timeout = self.engine.options.timeout or None
        try:
            output = await asyncio.wait_for(self._follow(node, child), timeout)
            status = await child.wait()
        except asyncio.TimeoutError:
            raise TimedOut(
                f"the copy did not end within {timeout:g} s",
                hint="is the node slow? raise --timeout, or look at the node",
                node=node.given,
            ) from None
        finally:
            await child.end(0.5)
        if status != 0:
            raise classify_failure(child.err, status, node.given)
        return {
            name: int(match.group(1)) if (match := pattern.search(output)) else 0 for name, pattern in STATS.items()
        }

    async def _follow(self, node: Node, child: AsyncProcess) -> bytes:
        """Read the output of rsync to its end, emit the progress, and return the last part of the output."""
        kept = b""
        reported_at = 0.0
        while data := await child.reader.read(1 << 16):
            kept = (kept + data)[-4096:]
            found = PROGRESS.findall(kept)
            if found and time.monotonic() - reported_at > REPORT_INTERVAL:
                reported_at = time.monotonic()
                self.engine.emit(NodeProgress(node, int(found[-1])))
        return kept

    async def _publish(self, node: Node) -> dict[str, Any]:
        payload, timeout = self.payload, self.engine.options.timeout or None
        request = PublishRequest(
            expected=self.expected, receipt=payload.receipt, executable=payload.executable,
            trial=None if payload.smoke_test is None else SmokeTest.from_json(payload.smoke_test),
        )  # fmt: skip
        return (await self.engine.sessions[node].ask(request, timeout=timeout)).to_json()

    def _argv(self, source: str, target: str) -> list[str]:
        return ["rsync", *OPTIONS, *self.pace.options, "-e", ssh_command_line(), "--", source, target]


def rsync_host(address: str) -> str:
    """Return an address as rsync expects it before a colon."""
    return f"[{address}]" if re.fullmatch(r"[0-9a-fA-F]*:[0-9a-fA-F:.]+", address) else address
