"""Read the source, deploy it on this host, and deliver it to the other nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ezpz.runtime.async_process import gather_or_cancel, run_in_thread
from ezpz.yeet.engines.base import TransferSpec
from ezpz.yeet.pipeline.leak_count import count_leaks_during
from ezpz.yeet.transfer.entry_tee import EntryTee

if TYPE_CHECKING:
    from ezpz.yeet.engines.base import Payload
    from ezpz.yeet.pipeline.check_nodes import CheckedNodes
    from ezpz.yeet.pipeline.remote_inventory import RemoteInventory
    from ezpz.yeet.pipeline.run_state import RunContext


async def send(run: RunContext, checked: CheckedNodes, inventory: RemoteInventory) -> None:
    """Read the source once for all nodes: while it is sent if the engine can do that, or else before."""
    here, plan = checked.here, checked.plan
    replay = here.open_replay()
    spec = TransferSpec(plan.source.real, plan.totals.bytes, replay.read, inventory.bases)
    tee = EntryTee(await run.engine.begin(run.record.waiting_nodes(plan), spec))
    run.progress.tee = tee
    if not tee.sinks:
        with run.record.phase("read", plan.totals.bytes):
            payload = await run_in_thread(lambda: here.read(tee, inventory.previous))
        with run.record.phase("publish"):
            payload = await _publish(run, checked, payload)
        with run.record.phase("send", payload.bytes):
            await _deliver(run, checked, payload)
        return
    with run.record.phase("stream", plan.totals.bytes):
        payload = await run_in_thread(lambda: here.read(tee, inventory.previous))
        await gather_or_cancel((_publish(run, checked, payload), _deliver(run, checked, payload)))


async def _publish(run: RunContext, checked: CheckedNodes, payload: Payload) -> Payload:
    """Publish the copy on this host, if it is a node, and return the payload as it is served from now on."""
    run.record.warn(checked.reader.carried.warnings)
    run.progress.payload = payload
    published = await run_in_thread(lambda: checked.here.publish(payload))
    run.progress.payload = published
    run.record_local()
    return published


async def _deliver(run: RunContext, checked: CheckedNodes, payload: Payload) -> Payload:
    """Deliver the payload to the nodes that have no result yet, and count its leaks meanwhile."""
    run.progress.payload = payload
    delivery = asyncio.ensure_future(run.engine.deliver(run.record.waiting_nodes(checked.plan), payload))
    run.progress.leaks = await count_leaks_during(
        delivery, payload, run.record.first_copy, run.engine, run.environ, run.cancel
    )
    return payload
