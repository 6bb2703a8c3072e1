"""The connections between the nodes of one stream: opened, identified by serial numbers, and closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ezpz.agent.common.messages.requests import ExpectRequest, ReleaseRequest, ServeRequest
from ezpz.agent.stream.relay import Downstream
from ezpz.yeet.engines.agent_engine import ANSWER_TIMEOUT, answer_or_none
from ezpz.yeet.engines.base import ROOT, STALL_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ezpz.agent.common.messages.envelope import Done
    from ezpz.agent.common.messages.events import Event
    from ezpz.agent.stream.chunk_buffer import ChunkBuffer
    from ezpz.cluster.allocation import Node
    from ezpz.remote.session import Question
    from ezpz.yeet.engines.stream.context import StreamContext


class StreamConnections:
    """Connections from this host to nodes, and between nodes.

    Args:
        context: Access to the nodes.
        nodes: Nodes of the stream.
        buffer: Chunks that this host sends.
        on_event: Takes what this host's own connections report, from their threads.
        spawn: Runs a coroutine in the background.
    """

    def __init__(
        self,
        context: StreamContext,
        nodes: tuple[Node, ...],
        buffer: ChunkBuffer,
        on_event: Callable[[Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.attempts: dict[Node, int] = dict.fromkeys(nodes, 0)
        self.via: dict[Node, str] = dict.fromkeys(nodes, "")
        self._context = context
        self._buffer = buffer
        self._on_event = on_event
        self._spawn = spawn
        self._last_serial = 0
        self._ends: dict[int, tuple[Node, Node]] = {}
        self._serial_of: dict[Node, int] = {}
        self._downstreams: dict[int, Downstream] = {}

    def ends_of(self, serial: int) -> tuple[Node, Node] | None:
        """Return parent and child of a connection, None if the child has another one by now."""
        ends = self._ends.get(serial)
        return ends if ends is not None and self._serial_of.get(ends[1]) == serial else None

    def open(self, parent: Node, child: Node, chunks: tuple[int, ...]) -> None:
        """Connect two nodes in the background.

        Args:
            parent: Node that sends, or this host.
            child: Node that receives.
            chunks: The only chunks to send; all that the child lacks if there are none.
        """
        self._last_serial += 1
        self._ends[self._last_serial] = parent, child
        self._serial_of[child] = self._last_serial
        self.attempts[child] += 1
        self.via[child] = parent.given
        self._spawn(self._connect(parent, child, self._last_serial, chunks))

    async def _connect(self, parent: Node, child: Node, serial: int, chunks: tuple[int, ...]) -> None:
        """Tell the child which peer to expect, then the parent to connect to it."""
        await self._ask(child, ExpectRequest(parent=parent.given, serial=serial, chunks=chunks))
        if self._serial_of.get(child) != serial:
            return
        address = self._context.peer_address(child)
        if parent == ROOT:
            self._downstreams[serial] = Downstream(
                self._buffer, self._context.secret, ROOT.given, serial, address, STALL_TIMEOUT, self._on_event
            )
        else:
            await self._ask(parent, ServeRequest(serial=serial, to=address))

    def close(self, parent: Node, child: Node, *, is_parent_alive: bool) -> None:
        """Close the connection between two nodes, if there is one."""
        serial = self._serial_of.get(child, 0)
        if self._ends.pop(serial, None) is None:
            return
        if parent == ROOT:
            downstream = self._downstreams.pop(serial, None)
            if downstream is not None:
                downstream.release()
        elif is_parent_alive:
            self._spawn(self._ask(parent, ReleaseRequest(serial=serial)))

    def close_all(self) -> None:
        """Close the connections of this host."""
        for downstream in self._downstreams.values():
            downstream.release()

    async def _ask(self, node: Node, request: Question[Done]) -> None:
        await answer_or_none(self._context.sessions[node].ask(request, timeout=ANSWER_TIMEOUT))
