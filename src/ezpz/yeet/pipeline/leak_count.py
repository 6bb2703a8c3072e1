"""The number of leaks of a new copy, counted on its first node while the other nodes still receive it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ezpz.errors import EzpzError
from ezpz.runtime.async_process import run_in_thread
from ezpz.yeet.inventory.leaks import find_local_leaks, leaks_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.engines.base import Engine, Payload


class FirstCopy:
    """The first node that has the copy. All nodes have the same copy."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._is_recorded = asyncio.Event()

    @property
    def exists(self) -> bool:
        """Whether a node has the copy."""
        return bool(self._nodes)

    def record(self, node: Node) -> None:
        """Record a node that has the copy."""
        self._nodes.append(node)
        self._is_recorded.set()

    async def wait(self) -> Node:
        """Wait for the first node and return it."""
        await self._is_recorded.wait()
        return self._nodes[0]


async def count_leaks_during(
    delivery: asyncio.Future[None],
    payload: Payload,
    first_copy: FirstCopy,
    engine: Engine,
    environ: Mapping[str, str],
    cancel: CancelToken,
) -> int | None:
    """Wait for a delivery and return the number of leaks of what is delivered.

    Return None if the payload is no environment, if no node has it, or if the node does not answer.
    """
    counting = asyncio.ensure_future(_count(payload, first_copy, engine, environ, cancel))
    try:
        await delivery
        return await counting if first_copy.exists else None
    finally:
        counting.cancel()


async def _count(
    payload: Payload, first_copy: FirstCopy, engine: Engine, environ: Mapping[str, str], cancel: CancelToken
) -> int | None:
    if payload.smoke_test is None:
        return None
    node, origins = await first_copy.wait(), payload.receipt.origins
    if not node.is_local:
        answers = await engine.ask((node,), leaks_request(payload.destination, origins, environ))
        return len(answers[node].leaks) if node in answers else None
    try:
        found = await run_in_thread(lambda: find_local_leaks(node, payload.destination, origins, environ, cancel))
    except EzpzError:
        return None
    return len(found.leaks)
