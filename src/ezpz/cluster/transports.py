"""Transports: the programs that start something on other nodes, each an object that says what it can do.

Pure, but for `is_usable`, which looks for a program on PATH.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ezpz.cluster.schedulers.slurm import SLURM
from ezpz.cluster.ssh import srun_argv, ssh_argv, ssh_forward_argv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ezpz.cluster.allocation import Allocation, Node

AUTO = "auto"


class Transport(ABC):
    """A way to start something on other nodes.

    name: what users call it; tools: programs that must be on PATH here; only_in: the job that it works in only, or ""
    is_private: what goes through it is encrypted
    at_once: one process reaches all nodes
    has_shell: a node without Python can be served over it, by rsync and a shell
    """

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    only_in: ClassVar[str] = ""
    is_private: ClassVar[bool] = False
    at_once: ClassVar[bool] = False
    has_shell: ClassVar[bool] = False

    @abstractmethod
    def argvs(self, nodes: Sequence[Node], command: str) -> tuple[tuple[str, ...], ...]:
        """Return the argvs that run a shell command on the nodes, the next for when the last fails.

        Without `at_once` for one node only.
        """

    @abstractmethod
    def is_usable(self, environ: Mapping[str, str]) -> bool:
        """Return whether it can be used from here."""

    def reason(self, _allocation: Allocation) -> str:
        """Return why it is better than the default for these nodes, "" if it is not."""
        return ""

    def detour(self, _address: str, _host: str, _port: int) -> tuple[str, ...] | None:
        """Return the argv whose stdin and stdout are a connection from `address` to a port of `host`, None for none."""
        return None


class Ssh(Transport):
    """ssh to each node."""

    name = "ssh"
    tools = ("ssh",)
    is_private = True
    has_shell = True

    def argvs(self, nodes: Sequence[Node], command: str) -> tuple[tuple[str, ...], ...]:
        """Return the argv for a node's address, and for its plain name if that is another."""
        (node,) = nodes
        return tuple(ssh_argv(address, command) for address in dict.fromkeys((node.address, node.given)))

    def is_usable(self, _environ: Mapping[str, str]) -> bool:
        return True

    def detour(self, address: str, host: str, port: int) -> tuple[str, ...] | None:
        return ssh_forward_argv(address, host, port)


class Srun(Transport):
    """One srun for all nodes, inside of a Slurm job."""

    name = "srun"
    tools = ("srun",)
    only_in = "a Slurm job"
    at_once = True

    def argvs(self, nodes: Sequence[Node], command: str) -> tuple[tuple[str, ...], ...]:
        return (srun_argv(nodes, ("/bin/sh", "-c", command)),)

    def is_usable(self, environ: Mapping[str, str]) -> bool:
        return bool(environ.get(SLURM.job_variable)) and shutil.which("srun") is not None

    def reason(self, allocation: Allocation) -> str:
        ours = allocation.scheduler == SLURM.name
        return f"inside Slurm job {allocation.job_id or ''}".strip() if ours else ""


TRANSPORTS: Mapping[str, Transport] = {each.name: each for each in (Ssh(), Srun())}


def usable(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the transports that can be used from here."""
    return tuple(name for name, each in TRANSPORTS.items() if each.is_usable(environ))
