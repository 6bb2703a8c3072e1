"""Asking: questions about what of ours stands on the nodes, to all of them at once, over sessions that may stay open.

What answers is as little as can be sent and started (`agent.attend`), because asking should cost hardly more than the
way there. Inside a Slurm job one srun starts agents on all nodes; very many are reached through a tree of agents.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.cancel import CancelToken
from ezpz.agent.common.errors import AgentError, from_os_error
from ezpz.agent.common.messages.envelope import parse_request
from ezpz.agent.common.messages.queries import ClearRequest, InventoryRequest
from ezpz.cluster.ssh import ssh_argv
from ezpz.errors import EzpzError, by_code
from ezpz.remote.bootstrap import bundle, query_command, shared_pythons
from ezpz.remote.channel import ProcessChannel
from ezpz.remote.limits import connection_limit, raise_open_files
from ezpz.remote.session import AgentSession
from ezpz.remote.transports import AGENT_TRANSPORTS
from ezpz.runtime.async_process import AsyncProcess, gather_or_cancel, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.cluster.allocation import Node
    from ezpz.remote.startup import AgentStarter

MANY = 256  # nodes that are all reached by ssh from here; more are through a tree of agents
STALL = 10.0  # seconds without a byte after which an agent's connection is given up


class NodeQuery:
    """Asks nodes, this host among them. A node's failure is an answer: the EzpzError in its place.

    transport: the name of one; keep: sessions stay open for the next question
    """

    def __init__(self, nodes: tuple[Node, ...], transport: str = "ssh", *, keep: bool = False) -> None:
        self.nodes = nodes
        self.transport = AGENT_TRANSPORTS[transport]
        self.keep = keep
        self._sessions: dict[Node, AgentSession] = {}
        self._lost: dict[Node, EzpzError] = {}
        self._startup: AgentStarter | None = None

    async def __aenter__(self) -> NodeQuery:
        remote = tuple(node for node in self.nodes if not node.is_local)
        raise_open_files(len(remote))
        self._gate = connection_limit()
        if remote and (self.transport.at_once or len(remote) > MANY):
            await self._start(remote)
        return self

    async def __aexit__(self, *_: object) -> None:
        await gather_or_cancel(session.close() for session in self._sessions.values())
        if self._startup is not None:
            await self._startup.close()

    async def _start(self, remote: tuple[Node, ...]) -> None:
        from ezpz.remote.startup import FAN, ListenRequest

        invitation = ListenRequest(secrets.token_bytes(32), "this host", STALL, shared_pythons())
        self._startup = self.transport.starter(invitation, self._gate, FAN)
        for node, found in (await self._startup.open(remote)).items():
            if isinstance(found, AgentSession):
                self._sessions[node] = found
            else:
                self._lost[node] = found
        self.keep = True

    async def ask(
        self, requests: Mapping[Node, dict[str, Any]], within: float | None = None
    ) -> dict[Node, dict[str, Any] | EzpzError]:
        """Return what each node answers to its request: its `op`, "inventory" or "clear", and its fields.

        Args:
            requests: by node
            within: seconds, None for any
        """
        answers = await gather_or_cancel(self._ask(node, request, within) for node, request in requests.items())
        return dict(zip(requests, answers, strict=True))

    async def _ask(self, node: Node, request: dict[str, Any], within: float | None) -> dict[str, Any] | EzpzError:
        if node in self._lost:
            return self._lost[node]
        wanted = parse_request(request["op"], {name: value for name, value in request.items() if name != "op"})
        assert isinstance(wanted, (InventoryRequest, ClearRequest))
        try:
            if node.is_local:
                return await _here(node, wanted)
            session = await self._session(node)
            try:
                return (await session.ask(wanted, timeout=within)).to_json()
            finally:
                if not self.keep:
                    del self._sessions[node]
                    await session.close()
        except EzpzError as e:
            if node in self._sessions and not self._sessions[node].is_open:
                self._lost[node] = e
            return e

    async def _session(self, node: Node) -> AgentSession:
        """The session to a node, opened if there is none. Raises EzpzError."""
        if node not in self._sessions:
            async with self._gate:
                self._sessions[node] = await _open(node)
        return self._sessions[node]


async def _open(node: Node) -> AgentSession:
    """Reach a node by its address, and by its plain name if that fails. Raises EzpzError."""
    try:
        return await _open_at(node, node.address)
    except EzpzError:
        if node.address == node.given:
            raise
        return await _open_at(node, node.given)


async def _open_at(node: Node, address: str) -> AgentSession:
    child = await AsyncProcess.start(ssh_argv(address, query_command()))
    session = AgentSession(node, ProcessChannel(child, node))
    session.address = address
    with contextlib.suppress(ConnectionError):
        child.writer.write(bundle("query_server"))
    return await session.started()


def _answer(request: InventoryRequest | ClearRequest, cancel: CancelToken) -> dict[str, Any]:
    from ezpz.agent.destination import inventory, removal

    if isinstance(request, ClearRequest):
        return removal.clear(request, cancel).to_json()
    return inventory.survey(request, cancel).to_json()


async def _here(node: Node, request: InventoryRequest | ClearRequest) -> dict[str, Any]:
    """Return the answer of this host. Raise EzpzError."""
    cancel = CancelToken()
    try:
        return await run_in_thread(functools.partial(_answer, request, cancel))
    except OSError as e:
        refusal = from_os_error(e, "cannot look at what stands here")
    except AgentError as e:
        refusal = e
    finally:
        cancel.cancel()
    raise by_code(refusal.code)(f"{node.given}: {refusal.message}", hint=refusal.hint)
