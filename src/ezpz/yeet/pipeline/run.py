"""One run of `ezpz yeet`, step by step.

Modules that are needed only once the sessions are opening are imported then: that takes as long as a session.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.errors import Interrupted
from ezpz.remote.bootstrap import shared_pythons
from ezpz.remote.transports import TRANSPORTS
from ezpz.runtime.async_process import run_in_thread
from ezpz.runtime.process import find
from ezpz.runtime.signals import cancel_task_on_signal
from ezpz.yeet.engines.base import ENGINES, EngineOptions
from ezpz.yeet.model.events import RunStarted, WarningRaised
from ezpz.yeet.model.plan import destination_of, engine_choice
from ezpz.yeet.model.report import RunStatus
from ezpz.yeet.model.results import Outcome
from ezpz.yeet.pipeline.preflight import Preflight, check_request
from ezpz.yeet.pipeline.run_state import PartialRun, RunContext, RunRecord
from ezpz.yeet.strategies.base import STRATEGIES

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Mapping

    from ezpz.yeet.engines.base import Engine
    from ezpz.yeet.model.events import Emit
    from ezpz.yeet.model.plan import Request
    from ezpz.yeet.model.report import RunReport
    from ezpz.yeet.pipeline.check_nodes import CheckedNodes
    from ezpz.yeet.pipeline.make_plan import Decision


def execute(run_id: str, request: Request, environ: Mapping[str, str], emit: Emit, rng: random.Random) -> RunReport:
    """Copy the source to every node and report what happened.

    Raise EzpzError if the run failed as a whole. The failure of a node is in the report.
    """
    preflight = check_request(request, environ)
    engine_type = ENGINES.load(engine_choice(request).name)
    _find_tools(preflight, engine_type)
    return asyncio.run(_execute(run_id, request, preflight, engine_type, environ, emit, rng))


async def _execute(
    run_id: str,
    request: Request,
    preflight: Preflight,
    engine_type: type[Engine],
    environ: Mapping[str, str],
    emit: Emit,
    rng: random.Random,
) -> RunReport:
    record, cancel = RunRecord(emit), CancelToken()
    engine = engine_type(_engine_options(request, preflight), record.on_event, rng)
    run = RunContext(run_id, request, preflight, environ, engine, cancel, record, PartialRun())
    async with open_run(run):
        await copy_source(run)
    run.record_local()
    if run.progress.decision is None:
        raise Interrupted("interrupted before anything was done", signal=run.progress.received.first)
    return run.report(run.progress.decision.plan)


async def copy_source(run: RunContext) -> None:
    """Copy the source to every node: plan, check, compare, send. Raise EzpzError."""
    decision = await plan_and_connect(run)
    from ezpz.yeet.pipeline.check_nodes import check_destinations, compare_versions

    checked = await check_destinations(run, decision)
    if not run.record.can_succeed(checked.plan):
        return
    inventory = await compare_versions(run, checked)
    if not run.record.can_succeed(checked.plan):
        return
    if run.record.waiting_nodes(checked.plan) or not run.record.is_local_done(checked.plan):
        from ezpz.yeet.pipeline.send import send

        await send(run, checked, inventory)
    await record_failed_nodes(run, checked)


@asynccontextmanager
async def open_run(run: RunContext) -> AsyncIterator[None]:
    """Handle signals and close everything at the end. An interrupt ends the block, and is not raised."""
    run.record.on_event(RunStarted(len(run.preflight.allocation.nodes)))
    for warning in run.preflight.allocation.warnings:
        run.record.on_event(WarningRaised(warning))
    with cancel_task_on_signal(run.cancel.cancel) as run.progress.received:
        try:
            yield
        except (asyncio.CancelledError, Cancelled):
            if not run.progress.received.first:
                raise
        finally:
            await _close(run)


async def plan_and_connect(run: RunContext) -> Decision:
    """Count the source while the sessions are opened. Both take time, and neither changes anything. Raise EzpzError."""
    preflight, record = run.preflight, run.record
    remote = tuple(node for node in preflight.allocation.nodes if not node.is_local)
    destination = "" if run.request.checksum else destination_of(run.request, preflight.source)
    planning = asyncio.ensure_future(run_in_thread(lambda: _plan(run)))
    with record.phase("reach"):
        try:
            lost = await run.engine.reach(remote, destination)
        finally:
            await asyncio.gather(planning, return_exceptions=True)
    decision = planning.result()
    run.progress.decision = decision
    record.warn(decision.warnings)
    record.record_failures(lost)
    return decision


def _plan(run: RunContext) -> Decision:
    from ezpz.yeet.pipeline.make_plan import plan_run

    return plan_run(run.id, run.request, run.preflight, run.environ, run.cancel)


async def record_failed_nodes(run: RunContext, checked: CheckedNodes) -> None:
    """Write the list of failed nodes into the destination if the threshold is met: here, or on a node that has it."""
    plan, results = checked.plan, run.record.results
    failed = tuple(node.given for node in plan.allocation.nodes if results[node].outcome is not Outcome.OK)
    if not failed or run.report(plan).status is not RunStatus.PARTIAL:
        return
    if checked.here.is_target:
        run.progress.failed_list = await run_in_thread(lambda: checked.here.write_failed_nodes(failed))
        return
    first = next(node for node in plan.remote_nodes if results[node].outcome is Outcome.OK)
    path = await run.engine.note_failed(first, failed)
    run.progress.failed_list = f"{first.given}:{path}"


async def _close(run: RunContext) -> None:
    """End the sessions, remove what is temporary, and release the lock."""
    progress = run.progress
    run.cancel.cancel()
    await run.engine.close()
    if progress.here is not None:
        await run_in_thread(progress.here.close)
    if progress.tee is not None:
        progress.tee.close()
    if progress.decision is not None:
        progress.decision.contents.close()


def _find_tools(preflight: Preflight, engine_type: type[Engine]) -> None:
    """Raise ToolMissing if a program that the run needs on this host is not on PATH."""
    tools = STRATEGIES.load(preflight.strategy.name).tools
    if any(not node.is_local for node in preflight.allocation.nodes):
        tools = (*tools, *TRANSPORTS[preflight.transport.name].tools, *engine_type.tools)
    for tool in tools:
        find(tool)


def _engine_options(request: Request, preflight: Preflight) -> EngineOptions:
    source = preflight.source
    own = () if source.is_archive else (os.path.join(source.real, "bin", "python3"),)
    return EngineOptions(
        request.retries, request.timeout, preflight.transport.name, request.encrypt, (*own, *shared_pythons())
    )
