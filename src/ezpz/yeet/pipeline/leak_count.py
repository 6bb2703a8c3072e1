"""Leak count: how much of what was yeeted still leads to a shared filesystem, looked at while the others are served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ezpz.errors import EzpzError
from ezpz.runtime.async_process import run_in_thread
from ezpz.yeet.inventory.leaks import find_local_leaks, leaks_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.cluster.allocation import Node
    from ezpz.yeet.engines.base import Engine, Payload


class LeakCount:
    """Counts on the first node that has it, whichever that is: all have the same.

    going_on: called several times a second; may raise Cancelled
    """

    def __init__(self, engine: Engine, environ: Mapping[str, str], going_on: Callable[[], None]) -> None:
        self.engine = engine
        self.environ = environ
        self.going_on = going_on
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
            request = leaks_request(known, self.environ)
            answers = await self.engine.ask((node,), "leaks", dst=shipment.destination, **request)
            return len(answers[node]["leaks"]) if node in answers else None
        try:
            found = await run_in_thread(
                lambda: find_local_leaks(node, shipment.destination, known, self.environ, self.going_on)
            )
        except EzpzError:
            return None
        return len(found.leaks)
