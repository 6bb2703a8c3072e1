"""Leak count: how much of what was yeeted still leads to a shared filesystem, looked at while the others are served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ezpz.errors import EzpzError
from ezpz.runtime.async_process import run_in_thread
from ezpz.yeet.inventory.leaks import leaks_here, leaks_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.engines.base import Engine, Payload


class LeakCount:
    """Counts on the first node that has it, whichever that is: all have the same.

    cancel: is checked several times per second
    """

    def __init__(self, engine: Engine, environ: Mapping[str, str], cancel: CancelToken) -> None:
        self.engine = engine
        self.environ = environ
        self.cancel = cancel
        self._first: Node | None = None
        self._known = asyncio.Event()

    def has_it(self, node: Node) -> None:
        """A node shows the version that is yeeted."""
        self._first = self._first or node
        self._known.set()

    async def beside(self, delivering: asyncio.Future[None], shipment: Payload) -> int | None:
        """The count once all is delivered; None for what is no environment, or when no node has it, or answers."""
        counting = asyncio.ensure_future(self._count(shipment))
        try:
            await delivering
            return await counting if self._first is not None else None
        finally:
            counting.cancel()

    async def _count(self, shipment: Payload) -> int | None:
        if shipment.trial is None:
            return None
        await self._known.wait()
        node, known = self._first, shipment.receipt["origins"]
        assert node is not None
        if not node.is_local:
            request = leaks_request(shipment.destination, known, self.environ)
            answers = await self.engine.ask((node,), request)
            return len(answers[node].leaks) if node in answers else None
        try:
            found = await run_in_thread(
                lambda: leaks_here(node, shipment.destination, known, self.environ, self.cancel)
            )
        except EzpzError:
            return None
        return len(found.leaks)
