"""Transports: ssh and srun, the programs that start something on other nodes.

Everything here is pure, except `is_usable`, which looks for a program on PATH.
"""

from __future__ import annotations

import shlex
import shutil
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ezpz.cluster.schedulers.slurm import SLURM
from ezpz.cluster.ssh import srun_argv, ssh_argv, ssh_forward_argv

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.remote.startup import AgentStarter, ListenRequest

AUTO = "auto"


class Transport(ABC):
    """A way to start agents and other programs on nodes.

    Attributes:
        name: what users call it
        tools: programs that must be on PATH of this host
        only_in: the kind of job outside of which it does not work, or ""
        is_private: everything that is sent through it is encrypted
        at_once: one process reaches all nodes
    """

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    only_in: ClassVar[str] = ""
    is_private: ClassVar[bool] = False
    at_once: ClassVar[bool] = False

    @abstractmethod
    def argv(self, node: Node, script: str) -> tuple[str, ...]:
        """Return the argv that runs a POSIX shell script on a node."""

    @abstractmethod
    def starter(self, invitation: ListenRequest, handshakes: asyncio.Semaphore, fan: int) -> AgentStarter:
        """Return an object that starts agents.

        Args:
            invitation: the secret and the settings that the agents need to listen
            handshakes: limits how many connections are opened at the same time
            fan: how many agents one host starts
        """

    @abstractmethod
    def is_usable(self, environ: Mapping[str, str]) -> bool:
        """Return whether it can be used on this host."""

    def reason(self, _allocation: Allocation) -> str:
        """Return why it is better than the default for these nodes, or "" if it is not."""
        return ""

    def detour(self, _address: str, _host: str, _port: int) -> tuple[str, ...] | None:
        """Return the argv whose stdin and stdout are a connection from `address` to a port of `host`, or None."""
        return None


class SshTransport(Transport):
    """ssh to each node, or to the first nodes, and from those to the others."""

    name = "ssh"
    tools = ("ssh",)
    is_private = True

    def argv(self, node: Node, script: str) -> tuple[str, ...]:
        return ssh_argv(node.address, f"exec /bin/sh -c {shlex.quote(script)}")  # the login shell may be csh

    def starter(self, invitation: ListenRequest, handshakes: asyncio.Semaphore, fan: int) -> AgentStarter:
        from ezpz.remote.startup import SshStarter

        return SshStarter(invitation, handshakes, fan)

    def is_usable(self, _environ: Mapping[str, str]) -> bool:
        return True

    def detour(self, address: str, host: str, port: int) -> tuple[str, ...] | None:
        return ssh_forward_argv(address, host, port)


class SrunTransport(Transport):
    """One srun for all nodes, inside of a Slurm job."""

    name = "srun"
    tools = ("srun",)
    only_in = "a Slurm job"
    at_once = True

    def argv(self, node: Node, script: str) -> tuple[str, ...]:
        return srun_argv((node,), ("/bin/sh", "-c", script))

    def starter(self, invitation: ListenRequest, _handshakes: asyncio.Semaphore, _fan: int) -> AgentStarter:
        from ezpz.remote.startup import SrunStarter

        return SrunStarter(invitation)

    def is_usable(self, environ: Mapping[str, str]) -> bool:
        return bool(environ.get(SLURM.job_variable)) and shutil.which("srun") is not None

    def reason(self, allocation: Allocation) -> str:
        ours = allocation.scheduler == SLURM.name
        return f"inside Slurm job {allocation.job_id or ''}".strip() if ours else ""


TRANSPORTS: Mapping[str, Transport] = {each.name: each for each in (SshTransport(), SrunTransport())}


def usable(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the transports that can be used on this host."""
    return tuple(name for name, each in TRANSPORTS.items() if each.is_usable(environ))


def transport_of_job(environ: Mapping[str, str]) -> Transport:
    """Return the transport to the nodes of this job: the one that is made for such jobs, or else ssh."""
    of_job = (each for each in TRANSPORTS.values() if each.only_in and each.is_usable(environ))
    return next(of_job, TRANSPORTS[SshTransport.name])
