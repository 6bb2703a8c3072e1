"""Transports that start agents: each brings its own way to start very many."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from ezpz.cluster import transports

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from ezpz.remote.startup import AgentStarter, ListenRequest


class AgentTransport(Protocol):
    """A transport of `ezpz.cluster.transports` that starts agents."""

    at_once: ClassVar[bool]
    has_shell: ClassVar[bool]

    def starter(self, invitation: ListenRequest, handshakes: asyncio.Semaphore, fan: int) -> AgentStarter:
        """Return what starts agents. handshakes: how many connections at once; fan: agents that one host starts."""

    def detour(self, address: str, host: str, port: int) -> tuple[str, ...] | None:
        """Return the argv that connects `address` to a port of `host`, None if there is none."""


class Ssh(transports.Ssh):
    """ssh from here to the first nodes, and from those to the others."""

    def starter(self, invitation: ListenRequest, handshakes: asyncio.Semaphore, fan: int) -> AgentStarter:
        from ezpz.remote.startup import SshStartup

        return SshStartup(invitation, handshakes, fan)


class Srun(transports.Srun):
    """One srun, for all nodes."""

    def starter(self, invitation: ListenRequest, _handshakes: asyncio.Semaphore, _fan: int) -> AgentStarter:
        from ezpz.remote.startup import SrunStartup

        return SrunStartup(invitation)


AGENT_TRANSPORTS: Mapping[str, AgentTransport] = {Ssh.name: Ssh(), Srun.name: Srun()}
