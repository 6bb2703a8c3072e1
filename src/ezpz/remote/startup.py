"""Starting agents on nodes: by ssh, through a tree of agents, or by one srun."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import TYPE_CHECKING, Any, Protocol

from ezpz.agent.common.messages.events import Event, StartedEvent
from ezpz.agent.common.messages.parts import PeerAddress, RemoteAgent
from ezpz.agent.common.messages.requests import ListeningRequest, StartRequest
from ezpz.agent.spawner import parse_address
from ezpz.cluster.ssh import srun_argv, ssh_argv
from ezpz.cluster.ssh_errors import classify_failure
from ezpz.errors import EzpzError, NodeLost
from ezpz.remote.bootstrap import bootstrap_command, bundle
from ezpz.remote.channel import TcpChannel
from ezpz.remote.session import READY_TIMEOUT, AgentSession
from ezpz.runtime.async_process import AsyncProcess, gather_or_cancel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.cluster.allocation import Node

FANOUT = 64  # agents that one host starts: one level up to here, two up to 4,160 nodes


class ListenRequest:
    """The request to listen, for an agent that is not started by this host directly: the secret, and an address."""

    def __init__(
        self,
        secret: bytes,
        me: str,
        stall: float,
        pythons: tuple[str, ...] = (),
        *,
        ready_within: float = READY_TIMEOUT,
    ) -> None:
        self.secret = secret
        self.me = me
        self.stall = stall
        self.pythons = pythons
        self.ready_within = ready_within

    def to(self, node: Node) -> str:
        """Return the request to one node, as a line of its stdin."""
        return self._line(name=node.given, address=node.address)

    def to_all(self, nodes: tuple[Node, ...]) -> str:
        """Return one request to all nodes. Each node finds its own name in it."""
        return self._line(names={node.given: node.address for node in nodes})

    def _line(self, **whom: Any) -> str:
        request = ListeningRequest(secret=self.secret.hex(), stall=self.stall, **whom)
        return json.dumps(dict(request.to_json(), id=1, op=request.op)) + "\n"

    async def accept(self, node: Node, where: PeerAddress) -> AgentSession:
        """Open a session to an agent that listens. Raises EzpzError."""
        line = await TcpChannel.dial(node, where.address, where.port, self.secret, self.me)
        return await AgentSession(node, line, ready_within=self.ready_within).started()


class AgentStarter(Protocol):
    """A way to start agents. `where` describes, for each node, the agent that listens there already."""

    where: dict[Node, PeerAddress]

    async def open(self, nodes: tuple[Node, ...], destination: str = "") -> Mapping[Node, AgentSession | EzpzError]:
        """Return a session or an error for each node. If `seen` of a session is set, no agent was started yet."""

    async def close(self) -> None:
        """End what was started."""


class SshStarter:
    """Starts agents by ssh: on the first nodes from this host, on the others from those, or from here if that fails."""

    def __init__(
        self,
        invitation: ListenRequest,
        handshakes: asyncio.Semaphore,
        fan: int,
    ) -> None:
        self.invitation = invitation
        self.handshakes = handshakes
        self.fan = fan
        self.where: dict[Node, PeerAddress] = {}
        self._destination = ""
        self._started: dict[str, asyncio.Future[StartedEvent]] = {}

    async def open(self, nodes: tuple[Node, ...], destination: str = "") -> Mapping[Node, AgentSession | EzpzError]:
        self._destination = destination if len(nodes) <= self.fan else ""  # otherwise, some of them start others
        loop = asyncio.get_running_loop()
        ready: list[asyncio.Future[AgentSession | None]] = [loop.create_future() for _ in nodes]
        results = await gather_or_cancel(self._open(index, nodes, ready) for index in range(len(nodes)))
        return dict(zip(nodes, results, strict=True))

    async def _open(
        self, index: int, nodes: tuple[Node, ...], ready: list[asyncio.Future[AgentSession | None]]
    ) -> AgentSession | EzpzError:
        node, above = nodes[index], starter_of(index, self.fan)
        found: AgentSession | EzpzError
        starter = await ready[above] if above >= 0 else None
        try:
            found = await (self._by_agent(node, starter) if starter is not None else self._by_ssh(node))
        except EzpzError as e:
            found = e if starter is None else await self._tried(node)
        ready[index].set_result(found if isinstance(found, AgentSession) else None)
        return found

    async def _tried(self, node: Node) -> AgentSession | EzpzError:
        self.where.pop(node, None)
        try:
            return await self._by_ssh(node)
        except EzpzError as e:
            return e

    async def _by_ssh(self, node: Node) -> AgentSession:
        async with self.handshakes:
            session = await AgentSession.open(
                node, self.invitation.pythons, self._destination, self.invitation.ready_within
            )
        session.happened = self._happened
        return session

    async def _by_agent(self, node: Node, starter: AgentSession) -> AgentSession:
        """Start the agent of a node by the agent of another node. Raises EzpzError."""
        answer: asyncio.Future[StartedEvent] = asyncio.get_running_loop().create_future()
        self._started[node.given] = answer
        within = self.invitation.ready_within
        feed = self.invitation.to(node)
        argv = ssh_argv(node.address, bootstrap_command(self.invitation.pythons))
        await starter.ask(StartRequest(agents=[RemoteAgent(name=node.given, argv=argv, feed=feed)]))
        try:
            said = await asyncio.wait_for(answer, within)
        except asyncio.TimeoutError:
            raise NodeLost(f"no answer within {within:g} s of connecting", node=node.given) from None
        if said.where is None:
            raise classify_failure(said.stderr, said.status, node.given)
        session = await self.invitation.accept(node, said.where)
        session.happened = self._happened
        self.where[node] = said.where
        return session

    def _happened(self, event: Event) -> None:
        if isinstance(event, StartedEvent):
            answer = self._started.get(event.started)
            if answer is not None and not answer.done():
                answer.set_result(event)

    async def close(self) -> None:
        """Do nothing: agents end the agents that they started."""


class SrunStarter:
    """Starts the agents on all nodes of a Slurm job by one srun, without ssh."""

    def __init__(self, invitation: ListenRequest) -> None:
        self.invitation = invitation
        self.where: dict[Node, PeerAddress] = {}
        self.children: list[AsyncProcess] = []

    async def open(self, nodes: tuple[Node, ...], _destination: str = "") -> Mapping[Node, AgentSession | EzpzError]:
        found = await self._open(nodes)
        dead = {node: error for node, error in found.items() if isinstance(error, _Unlaunched)}
        rest = tuple(node for node in nodes if node not in dead)
        if not dead or not rest:
            return found
        # Slurm ends the complete step if one of its nodes does not answer
        await gather_or_cancel(session.close() for session in found.values() if isinstance(session, AgentSession))
        return {**dead, **await self._open(rest)}

    async def _open(self, nodes: tuple[Node, ...]) -> Mapping[Node, AgentSession | EzpzError]:
        if not nodes:
            return {}
        child = await AsyncProcess.start(srun_argv(nodes, ("sh", "-c", bootstrap_command(self.invitation.pythons))))
        self.children.append(child)
        with contextlib.suppress(ConnectionError):
            child.writer.write(b"\n" + bundle() + self.invitation.to_all(nodes).encode())
        by_name = {node.given: node for node in nodes}
        opening: dict[Node, asyncio.Future[AgentSession | EzpzError]] = {}

        def heard(where: PeerAddress) -> None:
            node = by_name.get(where.name)
            if node is not None and node not in opening:
                self.where[node] = where
                opening[node] = asyncio.ensure_future(self._accept(node, where))

        within = self.invitation.ready_within
        try:
            await asyncio.wait_for(self._listen(child, heard, lambda: len(opening) == len(nodes)), within)
            is_useless = len(opening) < len(nodes)
        except asyncio.TimeoutError:
            is_useless = not opening  # the end of srun would be the end of the agents that listen
        if is_useless:
            await child.end(0.5)  # its stderr is complete then
        found = dict(zip(opening, await asyncio.gather(*opening.values()), strict=True))
        return {node: found.get(node) or _missing(node, child, within) for node in nodes}

    async def _listen(
        self, child: AsyncProcess, heard: Callable[[PeerAddress], None], complete: Callable[[], bool]
    ) -> None:
        while not complete() and (line := await _line(child)):
            where = parse_address(line)
            if where is not None:
                heard(where)

    async def _accept(self, node: Node, where: PeerAddress) -> AgentSession | EzpzError:
        try:
            return await self.invitation.accept(node, where)
        except EzpzError as e:
            return e

    async def close(self) -> None:
        for child in self.children:
            with contextlib.suppress(OSError):
                await child.end(3.0)


async def _line(child: AsyncProcess) -> bytes:
    """Return the next line that a process prints, b"" at its end."""
    try:
        return await child.reader.readline()
    except (ConnectionError, ValueError):
        return b""


class _Unlaunched(NodeLost):
    """A node on which Slurm cannot start anything."""


def _missing(node: Node, child: AsyncProcess, within: float) -> EzpzError:
    """Return why srun started no agent on a node."""
    lines = child.err.splitlines()
    said = [line for line in lines if re.search(rf"\b{re.escape(node.given)}\b", line)] or lines[-2:]
    why = "; ".join(said) or f"no answer within {within:g} s"
    kind = _Unlaunched if any("launch" in line and "failed" in line for line in said) else NodeLost
    return kind(f"srun started no agent there: {why}", hint="is the node up? try --transport ssh", node=node.given)


def starter_of(index: int, fan: int) -> int:
    """Return the index of the node that starts the agent at `index`, or -1 for the launch host, which starts `fan`."""
    return index // fan - 1
