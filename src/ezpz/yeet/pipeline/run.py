"""A yeet from beginning to end: look, decide, reach and check every node, read, publish here, send, judge.

What is needed only once the sessions are opening is imported then: that takes as long as a session.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.cluster.transports import TRANSPORTS
from ezpz.errors import EzpzError, Interrupted, StaleList
from ezpz.runtime.async_process import gather_or_cancel, run_in_thread
from ezpz.runtime.process import find
from ezpz.runtime.signals import Received, cancel_task_on_signal
from ezpz.yeet.engines.base import ENGINES, Engine, EngineOptions, Payload, TransferSpec
from ezpz.yeet.model.events import Emit, Event, NodeDone, PhaseStarted, Read, RunStarted, WarningRaised
from ezpz.yeet.model.plan import Plan, Request, destination_of, engine_choice
from ezpz.yeet.model.report import RelocationSummary, RunReport, RunStatus, run_status
from ezpz.yeet.model.results import Failure, NodeResult, Outcome
from ezpz.yeet.pipeline.leak_count import LeakCount
from ezpz.yeet.pipeline.preflight import Preflight, look
from ezpz.yeet.pipeline.remote_inventory import RemoteInventory, ask_all, take_stock
from ezpz.yeet.source.link_policy import on_shared_filesystem
from ezpz.yeet.strategies.base import STRATEGIES

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping

    from ezpz.cluster.allocation import Node
    from ezpz.yeet.pipeline.local_node import LocalNode
    from ezpz.yeet.pipeline.make_plan import Decision
    from ezpz.yeet.pipeline.read_source import SourceReader
    from ezpz.yeet.transfer.entry_tee import EntryTee

REFUSALS = ("destination-refused", "destination-not-ours", "destination-busy")
"""What was asked for is wrong, as opposed to a node that is broken, which costs only itself."""


def execute(run: str, request: Request, environ: Mapping[str, str], emit: Emit, rng: random.Random) -> RunReport:
    """Do it, and report. Raises EzpzError when it failed as a whole; a node's failure is in the report."""
    sight = look(request, environ)
    engine_type = ENGINES.load(engine_choice(request).name)
    remote = any(not node.is_local for node in sight.allocation.nodes)
    for tool in (
        *STRATEGIES.load(sight.strategy.name).tools,
        *((*TRANSPORTS[sight.transport.name].tools, *engine_type.tools) if remote else ()),
    ):
        find(tool)
    return asyncio.run(_Run(run, request, sight, engine_type, environ, emit, rng).go())


class _Run:
    """The steps of one yeet and what they leave for each other."""

    def __init__(
        self,
        run: str,
        request: Request,
        sight: Preflight,
        engine_type: type[Engine],
        environ: Mapping[str, str],
        emit: Emit,
        rng: random.Random,
    ) -> None:
        self.run = run
        self.request = request
        self.sight = sight
        self.environ = environ
        self.emit = emit
        own = () if sight.source.is_archive else (os.path.join(sight.source.real, "bin", "python3"),)
        limits = EngineOptions(request.retries, request.timeout, sight.transport.name, request.encrypt, own)
        self.engine = engine_type(limits, self._hear, rng)
        self.cancel = CancelToken()
        self.leaking = LeakCount(self.engine, environ, self.cancel)
        self.started = time.monotonic()
        self.phases: dict[str, float] = {}
        self.results: dict[Node, NodeResult] = {}
        self.received = Received()
        self.decided: Decision | None = None
        self.reading: SourceReader | None = None
        self.here: LocalNode | None = None
        self.stock = RemoteInventory()
        self.intake: EntryTee | None = None
        self.shipment: Payload | None = None
        self.failed_list = ""
        self.leaks: int | None = None
        self.warned: set[WarningRaised] = set()

    async def go(self) -> RunReport:
        self._hear(RunStarted(len(self.sight.allocation.nodes)))
        for warning in self.sight.allocation.warnings:
            self._hear(WarningRaised(warning))
        with cancel_task_on_signal(self.cancel.cancel) as self.received:
            try:
                await self._reach_and_scan()
                if await self._check() and await self._take_stock():
                    if self._wanted() or not self._is_served():
                        await self._move()
                    await self._note_failed()
            except (asyncio.CancelledError, Cancelled):
                if not self.received.first:
                    raise
            finally:
                await self._close()
        self._account_for_here()
        if self.decided is None:
            raise Interrupted("interrupted before anything was done", signal=self.received.first)
        return self._report()

    @property
    def plan(self) -> Plan:
        assert self.decided is not None
        return self.decided.plan

    async def _reach_and_scan(self) -> None:
        """Open the sessions while the source is counted: both take their time, and neither moves anything."""
        remote = tuple(node for node in self.sight.allocation.nodes if not node.is_local)
        destination = "" if self.request.checksum else destination_of(self.request, self.sight.source)
        counting = asyncio.ensure_future(run_in_thread(self._decide))
        with self._phase("reach"):
            try:
                lost = await self.engine.reach(remote, destination)
            finally:
                counted = await asyncio.gather(counting, return_exceptions=True)
        if isinstance(counted[0], BaseException):
            raise counted[0]
        self.decided = counted[0]
        self._warn(self.decided.warnings)
        self._lose(lost)

    def _decide(self) -> Decision:
        from ezpz.yeet.pipeline.make_plan import decide

        return decide(self.run, self.request, self.sight, self.environ, self.cancel)

    def _everywhere(self, question: dict[str, Any]) -> str:
        """Why not every node that is wanted has this interpreter itself, "" when all have; called from a thread."""
        for name in ("executable", "prefix"):
            if on_shared_filesystem(os.fsencode(question[name])):
                return f"'{question[name]}' is on a shared filesystem"
        from ezpz.agent.common.messages.answers import InterpreterAnswer
        from ezpz.agent.common.messages.requests import InterpreterRequest

        nodes = self._wanted()
        asking = asyncio.run_coroutine_threadsafe(
            self.engine.ask(nodes, InterpreterRequest.from_json(question)), self.loop
        )
        found = asking.result()
        answers = {node.given: found.get(node, InterpreterAnswer(same=False, why="no answer")) for node in nodes}
        return next((f"{name}: {answer.why}" for name, answer in answers.items() if not answer.same), "")

    async def _check(self) -> bool:
        """Check every destination; whether there is any point in moving something."""
        from ezpz.yeet.pipeline.local_node import LocalNode
        from ezpz.yeet.pipeline.read_source import SourceReader

        assert self.decided is not None
        self.loop = asyncio.get_running_loop()
        self.reading = SourceReader(
            self.plan, self.decided.contents, self.environ, self.cancel,
            lambda size: self._hear(Read(size)), self._everywhere,
        )  # fmt: skip
        self.here = LocalNode(self.plan, self.reading, self.cancel)
        local = self.plan.allocation.local
        with self._phase("check"):
            try:
                await run_in_thread(self.here.prepare)
            except EzpzError as e:
                if local is None:
                    raise
                self._lose({local: Failure.of(e)})
            seen = self.engine.seen()
            unseen = tuple(node for node in self._wanted() if node not in seen)
            self._lose(await self.engine.check(unseen, self.here.request))
        if not self._worth_it():
            return False
        if local is not None and local in self.results:
            await run_in_thread(self.here.prepare_elsewhere)
        return True

    async def _take_stock(self) -> bool:
        """Find out who has what of it; those who have it all are done. Whether there is any point in going on."""
        here, reading = self.here, self.reading
        assert here is not None
        assert reading is not None
        with self._phase("compare"):
            answers = await ask_all(self.engine, here, self._wanted())
            made_of = await run_in_thread(lambda: reading.settle(answers.interpreter))
            late = answers.seen_otherwise(made_of)
            if late:
                self._lose(await self.engine.check(late, here.request))
                answers = await answers.asked_again(self.engine, late, lost=self.results)
            stock = await take_stock(self.engine, here, answers, made_of)
            self.stock = replace(stock, known=None) if self.request.checksum else stock
        if stock.is_here:
            here.keep()
        self._account_for_here()  # first: what leaks is quickest found out here
        for node in self.stock.same:
            self._hear(NodeDone(NodeResult(node, Outcome.OK, unchanged=True, seconds=self._elapsed())))
        if not self._wanted() and self._is_served() and stock.receipt is not None:
            self.shipment = here.standing(stock.receipt)
            self.leaks = await self.leaking.beside(asyncio.ensure_future(asyncio.sleep(0)), self.shipment)
        return self._worth_it()

    def _is_served(self) -> bool:
        """Whether this host has what it is to have."""
        local = self.plan.allocation.local
        return local is None or local in self.results

    def _worth_it(self) -> bool:
        """Whether to move anything: nobody refused the destination, or enough nodes are left for the threshold."""
        nodes = self.plan.allocation.nodes
        failures = [result.failure for result in self.results.values() if result.failure is not None]
        left = len(nodes) - len(failures)
        if self.plan.threshold is not None:
            return run_status(left, len(nodes), self.plan.threshold) is not RunStatus.FAILURE
        return left > 0 and not any(failure.code in REFUSALS for failure in failures)

    async def _move(self) -> None:
        """Read, land here and send: all at once if the engine can, else one after the other."""
        from ezpz.yeet.transfer.entry_tee import EntryTee

        here, source = self.here, self.plan.source.real
        assert here is not None
        again = here.begin()
        start = TransferSpec(source, self.plan.totals.bytes, again.read, self.stock.bases)
        feeds = await self.engine.begin(self._wanted(), start)
        self.intake = intake = EntryTee(feeds)
        if not feeds:
            await self._read()
            await self._send()
            return
        with self._phase("stream", self.plan.totals.bytes):
            shipment = await run_in_thread(lambda: here.read(intake, self.stock.known))
            if intake.needs_tree:  # where it stands after it was published here
                await self._publish(shipment)
                await self._deliver(self.shipment or shipment)
            else:
                await gather_or_cancel((self._publish(shipment), self._deliver(shipment)))

    async def _read(self) -> None:
        here, intake = self.here, self.intake
        assert here is not None
        assert intake is not None
        with self._phase("read", self.plan.totals.bytes):
            shipment = await run_in_thread(lambda: here.read(intake, self.stock.known))
        with self._phase("publish"):
            await self._publish(shipment)

    async def _publish(self, shipment: Payload) -> None:
        """Show it here, if this host is a node."""
        here = self.here
        assert here is not None
        assert self.reading is not None
        self._warn(self.reading.carried.warnings)
        self.shipment = shipment
        self.shipment = await run_in_thread(lambda: here.publish(shipment))
        self._account_for_here()

    def _account_for_here(self) -> None:
        """Note what has become of this host, if it is a node of the job; also after an interrupt."""
        here, local = self.here, self.sight.allocation.local
        if here is not None and local is not None and here.landed and local not in self.results:
            done = NodeResult(local, Outcome.OK, unchanged=here.unchanged, seconds=self._elapsed(), **here.published)
            self._hear(NodeDone(done))

    async def _send(self) -> None:
        assert self.shipment is not None
        with self._phase("send", self.shipment.bytes):
            await self._deliver(self.shipment)

    async def _deliver(self, shipment: Payload) -> None:
        self.shipment = shipment
        delivering = asyncio.ensure_future(self.engine.deliver(self._wanted(), shipment))
        self.leaks = await self.leaking.beside(delivering, shipment)

    async def _note_failed(self) -> None:
        """With failures and the threshold met, list the failed nodes in the destination, here or where it is."""
        here = self.here
        assert here is not None
        failed = tuple(
            node.given for node in self.plan.allocation.nodes if self.results[node].outcome is not Outcome.OK
        )
        if not failed or self._report().status is not RunStatus.PARTIAL:
            return
        if here.is_target:
            self.failed_list = await run_in_thread(lambda: here.note_failed(failed))
            return
        first = next(node for node in self.plan.remote_nodes if self.results[node].outcome is Outcome.OK)
        path = await self.engine.note_failed(first, failed)
        self.failed_list = f"{first.given}:{path}"

    async def _close(self) -> None:
        self.cancel.cancel()
        await self.engine.close()
        if self.here is not None:
            await run_in_thread(self.here.close)
        if self.intake is not None:
            self.intake.close()
        if self.decided is not None:
            self.decided.contents.close()

    def _report(self) -> RunReport:
        results = tuple(
            self.results.get(node) or NodeResult(node, Outcome.SKIPPED) for node in self.plan.allocation.nodes
        )
        sent = self.shipment
        return RunReport(
            self.plan, results,
            version=sent.version if sent else "", files=sent.files if sent else 0, bytes=sent.bytes if sent else 0,
            kind=self.reading.kind.value if self.reading else "", phases=self.phases, seconds=self._elapsed(),
            failed_list=self.failed_list, interrupted=self.received.first,
            carried=self.reading.carried if self.reading and self.intake and sent else RelocationSummary(),
            leaks=self.leaks,
        )  # fmt: skip

    def _wanted(self) -> tuple[Node, ...]:
        return tuple(node for node in self.plan.remote_nodes if node not in self.results)

    def _warn(self, warnings: tuple[WarningRaised, ...]) -> None:
        """Say each warning once, with all that is known of it by then."""
        for warning in warnings:
            if warning not in self.warned:
                self.warned.add(warning)
                self._hear(warning)

    def _lose(self, failures: Mapping[Node, Failure]) -> None:
        for node, failure in failures.items():
            if failure.code == StaleList.code:  # it would be read as this run's, whatever the threshold
                raise StaleList(failure.message, hint=failure.hint)
            self._hear(NodeDone(NodeResult(node, failure.outcome, failure=failure, seconds=self._elapsed())))

    def _hear(self, event: Event) -> None:
        if isinstance(event, NodeDone):
            self.results[event.result.node] = event.result
            if event.result.outcome is Outcome.OK:
                self.leaking.has_it(event.result.node)
        self.emit(event)

    @contextmanager
    def _phase(self, name: str, total: int = 0) -> Iterator[None]:
        began = time.monotonic()
        self._hear(PhaseStarted(name, total))
        try:
            yield
        finally:
            self.phases[name] = time.monotonic() - began

    def _elapsed(self) -> float:
        return time.monotonic() - self.started
