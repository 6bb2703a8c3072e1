"""Check every destination, and compare what every node has with what is about to be sent."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.messages.answers import InterpreterAnswer
from ezpz.agent.common.messages.requests import InterpreterRequest
from ezpz.errors import EzpzError
from ezpz.runtime.async_process import run_in_thread
from ezpz.yeet.model.events import NodeDone, Read
from ezpz.yeet.model.results import Failure, NodeResult, Outcome
from ezpz.yeet.pipeline.leak_count import count_leaks_during
from ezpz.yeet.pipeline.local_node import LocalNode
from ezpz.yeet.pipeline.read_source import SourceReader
from ezpz.yeet.pipeline.remote_inventory import RemoteInventory, compare_installed, query_installed
from ezpz.yeet.source.link_policy import on_shared_filesystem
from ezpz.yeet.transfer.previous_version import NO_PREVIOUS_VERSION

if TYPE_CHECKING:
    from ezpz.yeet.model.plan import Plan
    from ezpz.yeet.pipeline.make_plan import Decision
    from ezpz.yeet.pipeline.run_state import RunContext


@dataclass(frozen=True, slots=True)
class CheckedNodes:
    """A plan whose destinations were checked and locked on every node that has no result yet.

    Attributes:
        plan: The plan.
        reader: The reader of the source.
        here: This host.
    """

    plan: Plan
    reader: SourceReader
    here: LocalNode


async def check_destinations(run: RunContext, decision: Decision) -> CheckedNodes:
    """Check the destination on every node and take its lock, before anything is copied. Raise EzpzError."""
    record, plan = run.record, decision.plan
    loop = asyncio.get_running_loop()
    reader = SourceReader(
        plan, decision.contents, run.environ, run.cancel, lambda size: record.on_event(Read(size)),
        lambda request: _interpreter_missing_on(run, plan, loop, request),
    )  # fmt: skip
    here = LocalNode(plan, reader, run.cancel)
    run.progress.reader, run.progress.here = reader, here
    with record.phase("check"):
        try:
            await run_in_thread(here.prepare)
        except EzpzError as e:
            if plan.allocation.local is None:
                raise
            record.record_failures({plan.allocation.local: Failure.of(e)})
        seen = run.engine.seen()
        unseen = tuple(node for node in record.waiting_nodes(plan) if node not in seen)
        record.record_failures(await run.engine.check(unseen, here.request))
    return CheckedNodes(plan, reader, here)


async def compare_versions(run: RunContext, checked: CheckedNodes) -> RemoteInventory:
    """Find out what every node has, and record the nodes that already have the version. Raise EzpzError."""
    record, plan, here = run.record, checked.plan, checked.here
    if plan.allocation.local in record.results:
        await run_in_thread(here.prepare_elsewhere)
    with record.phase("compare"):
        inventory = await _compare(run, checked)
    if inventory.is_here:
        here.accept_installed()
    run.record_local()  # before the other nodes: leaks are counted fastest on this host
    for node in inventory.same:
        record.on_event(NodeDone(NodeResult(node, Outcome.OK, unchanged=True, seconds=record.elapsed)))
    if not record.waiting_nodes(plan) and record.is_local_done(plan) and inventory.receipt is not None:
        payload = here.installed_payload(inventory.receipt)
        run.progress.payload = payload
        nothing = asyncio.ensure_future(asyncio.sleep(0))
        run.progress.leaks = await count_leaks_during(
            nothing, payload, record.first_copy, run.engine, run.environ, run.cancel
        )
    return replace(inventory, previous=NO_PREVIOUS_VERSION) if run.request.checksum else inventory


async def _compare(run: RunContext, checked: CheckedNodes) -> RemoteInventory:
    """Query all nodes. Check those that were seen from a shell only, if they turn out to have another version."""
    engine, record, here = run.engine, run.record, checked.here
    replies = await query_installed(engine, here, record.waiting_nodes(checked.plan))
    interpreter = replies.interpreter
    fingerprint = await run_in_thread(lambda: checked.reader.prepare(interpreter))
    late = replies.seen_with_other_version(fingerprint)
    if late:
        record.record_failures(await engine.check(late, here.request))
        replies = await replies.ask_again(engine, late, lost=record.results)
    return await compare_installed(engine, here, replies, fingerprint)


def _interpreter_missing_on(
    run: RunContext, plan: Plan, loop: asyncio.AbstractEventLoop, request: dict[str, Any]
) -> str:
    """Return why not every waiting node has an interpreter itself, or "" if all have it. Call it from a thread."""
    for name in ("executable", "prefix"):
        if on_shared_filesystem(os.fsencode(request[name])):
            return f"'{request[name]}' is on a shared filesystem"
    nodes = run.record.waiting_nodes(plan)
    asking = asyncio.run_coroutine_threadsafe(run.engine.ask(nodes, InterpreterRequest.from_json(request)), loop)
    found = asking.result()
    answers = {node.given: found.get(node, InterpreterAnswer(same=False, why="no answer")) for node in nodes}
    return next((f"{name}: {answer.why}" for name, answer in answers.items() if not answer.same), "")
