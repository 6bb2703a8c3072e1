"""Requests to all nodes at once, over sessions that may stay open: status, clean, health checks.

The smallest agent answers (`agent.query_server`), because a request should cost little more than the connection. Inside
a Slurm job one srun starts agents on all nodes. Very many nodes are reached through a tree of agents.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import sys
from typing import TYPE_CHECKING, TypeVar

from ezpz.agent.common.cancel import CancelToken
from ezpz.agent.common.errors import AgentError, from_os_error
from ezpz.agent.common.messages.queries import ClearRequest, HealthCheckRequest, InventoryRequest
from ezpz.cluster.ssh import ssh_argv
from ezpz.errors import EzpzError, by_code
from ezpz.remote.bootstrap import BOOTSTRAP, bootstrap_command, bundle, shared_pythons
from ezpz.remote.channel import ProcessChannel
from ezpz.remote.limits import connection_limit, raise_open_files
from ezpz.remote.session import READY_TIMEOUT, AgentSession
from ezpz.remote.transports import TRANSPORTS
from ezpz.runtime.async_process import AsyncProcess, gather_or_cancel, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.messages.envelope import Answer
    from ezpz.cluster.allocation import Node
    from ezpz.remote.session import Question
    from ezpz.remote.startup import AgentStarter

A = TypeVar("A", bound="Answer")
MAX_DIRECT = 256  # nodes that are reached by ssh from this host; more are reached through a tree of agents
STALL = 10.0  # seconds without a byte after which an agent's connection is given up


class NodeQuery:
    """Requests to nodes, this host among them. The failure of a node is an answer: the EzpzError in its place."""

    def __init__(
        self,
        nodes: tuple[Node, ...],
        transport: str = "ssh",
        *,
        keep: bool = False,
        own_process: bool = False,
        ready_within: float = READY_TIMEOUT,
    ) -> None:
        """Prepare for requests to `nodes`; `async with` opens and closes the sessions.

        Args:
            nodes: the nodes that requests are sent to
            transport: the name of one
            keep: leave sessions open for the next request
            own_process: answer for this host in a process of its own, for requests that fork
            ready_within: seconds that connecting to a node and starting its agent may take
        """
        self.nodes = nodes
        self.transport = TRANSPORTS[transport]
        self.keep = keep
        self.own_process = own_process
        self.ready_within = ready_within
        self._gate = connection_limit()
        self._sessions: dict[Node, AgentSession] = {}
        self._lost: dict[Node, EzpzError] = {}
        self._starter: AgentStarter | None = None

    async def __aenter__(self) -> NodeQuery:
        remote = tuple(node for node in self.nodes if not node.is_local)
        raise_open_files(len(remote))
        if remote and (self.transport.at_once or len(remote) > MAX_DIRECT):
            await self._start(remote)
        return self

    async def __aexit__(self, *_: object) -> None:
        await gather_or_cancel(session.close() for session in self._sessions.values())
        if self._starter is not None:
            await self._starter.close()

    async def _start(self, remote: tuple[Node, ...]) -> None:
        from ezpz.remote.startup import FANOUT, ListenRequest

        invitation = ListenRequest(
            secrets.token_bytes(32), "this host", STALL, shared_pythons(), ready_within=self.ready_within
        )
        self._starter = self.transport.starter(invitation, self._gate, FANOUT)
        for node, found in (await self._starter.open(remote)).items():
            if isinstance(found, AgentSession):
                self._sessions[node] = found
            else:
                self._lost[node] = found
        self.keep = True

    async def ask(self, requests: Mapping[Node, Question[A]], within: float | None = None) -> dict[Node, A | EzpzError]:
        """Send each node its request and return the answers.

        Args:
            requests: what to ask, by node
            within: seconds for each answer, None for no limit
        """
        answers = await gather_or_cancel(self.ask_node(node, request, within) for node, request in requests.items())
        return dict(zip(requests, answers, strict=True))

    async def ask_node(self, node: Node, request: Question[A], within: float | None) -> A | EzpzError:
        """Send one node a request and return its answer."""
        if node in self._lost:
            return self._lost[node]
        try:
            if node.is_local and not self.own_process:
                return await _answer_here(node, request)
            session = await self._session(node)
            try:
                return await session.ask(request, timeout=within)
            finally:
                if not self.keep:
                    del self._sessions[node]
                    await session.close()
        except EzpzError as e:
            if node in self._sessions and not self._sessions[node].is_open:
                self._lost[node] = e
            return e

    async def _session(self, node: Node) -> AgentSession:
        """Return the session to a node, opened if there is none. Raises EzpzError."""
        if node not in self._sessions:
            async with self._gate:
                self._sessions[node] = await self._open(node)
        return self._sessions[node]

    async def _open(self, node: Node) -> AgentSession:
        """Reach a node by its address, and by its plain name if that fails. Raises EzpzError."""
        if node.is_local:
            return await self._start_agent(node, node.address, (sys.executable, "-IS", "-c", BOOTSTRAP))
        command = bootstrap_command(shared_pythons())
        try:
            return await self._start_agent(node, node.address, ssh_argv(node.address, command), b"\n")
        except EzpzError:
            if node.address == node.given:
                raise
            return await self._start_agent(node, node.given, ssh_argv(node.given, command), b"\n")

    async def _start_agent(
        self, node: Node, address: str, argv: tuple[str, ...], first_line: bytes = b""
    ) -> AgentSession:
        child = await AsyncProcess.start(argv)
        session = AgentSession(node, ProcessChannel(child, node), ready_within=self.ready_within)
        session.address = address
        with contextlib.suppress(ConnectionError):
            child.writer.write(first_line + bundle("query_server"))
        return await session.started()


def _answer(request: Question[A], cancel: CancelToken) -> A:
    from ezpz.agent import health_check
    from ezpz.agent.destination import inventory, removal

    found: Answer
    if isinstance(request, ClearRequest):
        found = removal.clear(request, cancel)
    elif isinstance(request, HealthCheckRequest):
        found = health_check.answer(request)
    elif isinstance(request, InventoryRequest):
        found = inventory.survey(request, cancel)
    else:
        raise TypeError(f"'{request.op}' is not a query")
    assert isinstance(found, request.answer)
    return found


async def _answer_here(node: Node, request: Question[A]) -> A:
    """Answer a request on this host, in a thread. Raises EzpzError."""
    cancel = CancelToken()
    act = functools.partial(_answer, request, cancel)
    try:
        return await run_in_thread(act, cancel.cancel)
    except OSError as e:
        error = from_os_error(e, "cannot look at what stands here")
    except AgentError as e:
        error = e
    raise by_code(error.code)(error.message, hint=error.hint, node=node.given)
