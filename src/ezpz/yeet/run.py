"""A yeet from beginning to end: look, decide, reach and check every node, read, publish here, send, judge."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.child import in_thread
from ezpz.cluster.detect import detect
from ezpz.errors import EzpzError, Interrupted, SourceEmpty, StaleList, UsageError
from ezpz.process import Stopped, find
from ezpz.yeet.agent.refusal import shown
from ezpz.yeet.copy.base import STRATEGIES, choose
from ezpz.yeet.copy.tarball import estimated_size
from ezpz.yeet.events import Emit, Event, NodeDone, PhaseStarted, Read, RunStarted, Warned
from ezpz.yeet.fanout.base import ENGINES, Engine, Limits, Shipment
from ezpz.yeet.here import Here, prepare_request
from ezpz.yeet.plan import Choice, Plan, Request, destination_of, engine_choice, make_plan, threshold, totals_of
from ezpz.yeet.report import Failure, NodeResult, Outcome, Report, Status, judge
from ezpz.yeet.scan import Scan, scan
from ezpz.yeet.source import Source, active_environment, inspect

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping

    from ezpz.cluster.model import Allocation, Node

REFUSALS = ("destination-refused", "destination-not-ours", "destination-busy")
"""What was asked for is wrong, as opposed to a node that is broken, which costs only itself."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known once everything has been looked at and nothing counted."""

    source: Source
    allocation: Allocation
    strategy: Choice


def look(request: Request, environ: Mapping[str, str]) -> Sight:
    """Look at the source and the allocation. Raises EzpzError."""
    source = inspect(active_environment(environ) if request.src is None else request.src)
    strategy = Choice(*choose(source, request.strategy))
    ENGINES.load(engine_choice(request).name)
    if STRATEGIES.load(strategy.name).reads_archives != source.is_archive:
        what = "an archive" if source.is_archive else "a directory"
        raise UsageError(
            f"--strategy {strategy.name} cannot read '{source.path}', which is {what}", hint="leave --strategy out"
        )
    if source.is_archive and request.exclude:
        raise UsageError(
            f"--exclude {request.exclude[0]} cannot be used with an archive", hint="make the archive without it"
        )
    allocation = detect(hosts=request.hosts, hostfile=request.hostfile, hsn=request.hsn, environ=environ)
    destination_of(request, source)  # what makes no sense is said before any node is bothered
    threshold(request, len(allocation.nodes))
    return Sight(source, allocation, strategy)


def decide(run: str, request: Request, sight: Sight, stop: threading.Event | None = None) -> tuple[Plan, Scan]:
    """Count the source and make the plan. Raises EzpzError or Stopped."""
    source = sight.source
    scanned = (
        Scan(b"")
        if source.is_archive
        else scan(source.real.encode(errors="surrogateescape"), exclude=request.exclude, stop=stop)
    )
    archive_bytes = estimated_size(source.real) if source.is_archive else 0
    plan = make_plan(run, request, source, totals_of(source, scanned, archive_bytes), sight.allocation, sight.strategy)
    if not source.is_archive and not scanned.files and not scanned.directories:
        raise SourceEmpty(f"nothing is left of the source '{source.path}'", hint="does --exclude match all of it?")
    if plan.in_place and any(left.why == "excluded" for left in scanned.left_out):
        raise UsageError(
            f"--exclude {request.exclude[0]} cannot be used: the source stands at the destination already",
            hint="choose another --dst",
        )
    return plan, scanned


def warnings(scanned: Scan) -> tuple[str, ...]:
    """One line for what the source holds that is not carried, whatever it is asked."""
    special = [left for left in scanned.left_out if left.why not in ("excluded", "ours")]
    if not special:
        return ()
    more = f" and {len(special) - 1} more" if len(special) > 1 else ""
    return (f"not carried: the {special[0].why} '{shown(special[0].path)}'{more}",)


def execute(run: str, request: Request, environ: Mapping[str, str], emit: Emit, rng: random.Random) -> Report:
    """Do it, and report. Raises EzpzError when it failed as a whole; a node's failure is in the report."""
    sight = look(request, environ)
    engine_type = ENGINES.load(engine_choice(request).name)
    remote = any(not node.is_local for node in sight.allocation.nodes)
    for tool in (*STRATEGIES.load(sight.strategy.name).tools, *(engine_type.tools if remote else ())):
        find(tool)
    return asyncio.run(_Run(run, request, sight, engine_type, emit, rng).go())


class _Run:
    """The steps of one yeet and what they leave for each other."""

    def __init__(
        self, run: str, request: Request, sight: Sight, engine_type: type[Engine], emit: Emit, rng: random.Random
    ) -> None:
        self.run = run
        self.request = request
        self.sight = sight
        self.emit = emit
        self.engine = engine_type(Limits(request.retries, request.timeout), self._hear, rng)
        self.stop = threading.Event()
        self.started = time.monotonic()
        self.phases: dict[str, float] = {}
        self.results: dict[Node, NodeResult] = {}
        self.interrupted = 0
        self.decided: tuple[Plan, Scan] | None = None
        self.here: Here | None = None
        self.shipment: Shipment | None = None
        self.failed_list = ""

    async def go(self) -> Report:
        self._hear(RunStarted(len(self.sight.allocation.nodes)))
        for warning in self.sight.allocation.warnings:
            self._hear(Warned(warning))
        with self._signals():
            try:
                await self._reach_and_scan()
                if await self._check():
                    await self._read()
                    await self._send()
                    await self._note_failed()
            except (asyncio.CancelledError, Stopped):
                if not self.interrupted:
                    raise
            finally:
                await self._close()
        self._account_for_here()
        if self.decided is None:
            raise Interrupted("interrupted before anything was done", signal=self.interrupted)
        return self._report()

    @property
    def plan(self) -> Plan:
        assert self.decided is not None
        return self.decided[0]

    async def _reach_and_scan(self) -> None:
        """Open the sessions while the source is counted: both take their time, and neither moves anything."""
        remote = tuple(node for node in self.sight.allocation.nodes if not node.is_local)
        counting = asyncio.ensure_future(in_thread(lambda: decide(self.run, self.request, self.sight, self.stop)))
        with self._phase("reach"):
            try:
                lost = await self.engine.reach(remote)
            finally:
                counted = await asyncio.gather(counting, return_exceptions=True)
        if isinstance(counted[0], BaseException):
            raise counted[0]
        self.decided = counted[0]
        for warning in warnings(self.decided[1]):
            self._hear(Warned(warning))
        self._lose(lost)

    async def _check(self) -> bool:
        """Check every destination; whether there is any point in moving something."""
        assert self.decided is not None
        self.here = Here(*self.decided, self.stop, lambda size: self._hear(Read(size)))
        local = self.plan.allocation.local
        with self._phase("check"):
            try:
                await in_thread(self.here.prepare)
            except EzpzError as e:
                if local is None:
                    raise
                self._lose({local: Failure.of(e)})
            self._lose(await self.engine.check(self._wanted(), prepare_request(self.plan)))
        if not self._worth_it():
            return False
        if local is not None and local in self.results:
            await in_thread(self.here.prepare_elsewhere)
        return True

    def _worth_it(self) -> bool:
        """Whether to move anything: nobody refused the destination, or enough nodes are left for the threshold."""
        nodes = self.plan.allocation.nodes
        left = len(nodes) - len(self.results)
        if self.plan.threshold is not None:
            return judge(left, len(nodes), self.plan.threshold) is not Status.FAILURE
        failures = (result.failure for result in self.results.values())
        return left > 0 and not any(failure is not None and failure.code in REFUSALS for failure in failures)

    async def _read(self) -> None:
        here = self.here
        assert here is not None
        with self._phase("read", self.plan.totals.bytes):
            shipment = await in_thread(here.read)
        with self._phase("publish"):
            self.shipment = shipment = await in_thread(lambda: here.publish(shipment))
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
            await self.engine.deliver(self._wanted(), self.shipment)

    async def _note_failed(self) -> None:
        """With failures and the threshold met, list the failed nodes in the destination, here or where it is."""
        here = self.here
        assert here is not None
        failed = tuple(
            node.given for node in self.plan.allocation.nodes if self.results[node].outcome is not Outcome.OK
        )
        if not failed or self._report().status is not Status.PARTIAL:
            return
        if here.is_target:
            self.failed_list = await in_thread(lambda: here.note_failed(failed))
            return
        first = next(node for node in self.plan.remote_nodes if self.results[node].outcome is Outcome.OK)
        path = await self.engine.note_failed(first, failed)
        self.failed_list = f"{first.given}:{path}"

    async def _close(self) -> None:
        self.stop.set()
        await self.engine.close()
        if self.here is not None:
            await in_thread(self.here.close)

    def _report(self) -> Report:
        results = tuple(
            self.results.get(node) or NodeResult(node, Outcome.SKIPPED) for node in self.plan.allocation.nodes
        )
        sent = self.shipment
        return Report(
            self.plan, results,
            version=sent.version if sent else "", files=sent.files if sent else 0, bytes=sent.bytes if sent else 0,
            kind=self.here.kind.value if self.here else "", phases=self.phases, seconds=self._elapsed(),
            failed_list=self.failed_list, interrupted=self.interrupted,
        )  # fmt: skip

    def _wanted(self) -> tuple[Node, ...]:
        return tuple(node for node in self.plan.remote_nodes if node not in self.results)

    def _lose(self, failures: Mapping[Node, Failure]) -> None:
        for node, failure in failures.items():
            if failure.code == StaleList.code:  # it would be read as this run's, whatever the threshold
                raise StaleList(failure.message, hint=failure.hint)
            self._hear(NodeDone(NodeResult(node, failure.outcome, failure=failure, seconds=self._elapsed())))

    def _hear(self, event: Event) -> None:
        if isinstance(event, NodeDone):
            self.results[event.result.node] = event.result
        self.emit(event)

    @contextmanager
    def _phase(self, name: str, total: int = 0) -> Iterator[None]:
        began = time.monotonic()
        self._hear(PhaseStarted(name, total))
        try:
            yield
        finally:
            self.phases[name] = time.monotonic() - began

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Within it Ctrl-C and SIGTERM cancel the run, once; what is cleaned up then is cleaned up in peace."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def interrupt(number: int) -> None:
            if not self.interrupted:
                self.interrupted = number
                self.stop.set()
                if self.here is not None:
                    self.here.interrupt()
                task.cancel()

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, interrupt, int(number))
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _elapsed(self) -> float:
        return time.monotonic() - self.started
