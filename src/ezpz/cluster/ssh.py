"""Command lines of ssh and srun, with the hardened options in one place. Nothing is started here."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ezpz.cluster.hostnames import fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.cluster.allocation import Node

CONNECT_TIMEOUT = 15  # seconds

SSH_OPTIONS: tuple[str, ...] = (
    "-T",  # no terminal: a protocol runs over stdin and stdout
    *("-o", "BatchMode=yes"),  # a password prompt would hang the run
    *("-o", f"ConnectTimeout={CONNECT_TIMEOUT}"),
    *("-o", "ServerAliveInterval=5"),  # with the next: a dead node is known after 15 s
    *("-o", "ServerAliveCountMax=3"),
    *("-o", "LogLevel=ERROR"),
    *("-o", "Compression=no"),  # the data is compressed before it is sent
    *("-o", "ForwardX11=no"),
    *("-o", "ForwardAgent=no"),
    *("-o", "ClearAllForwardings=yes"),  # a LocalForward in the user's config fails on the second session
    *("-o", "PermitLocalCommand=no"),
    *("-o", "RemoteCommand=none"),  # one in the user's config makes ssh refuse ours
    # No multiplexing, even if the user's config asks for it: all sessions to a node would share one TCP stream, one
    # encrypting process and sshd's MaxSessions (10), and a persisting master keeps our stderr open after we end.
    *("-o", "ControlMaster=no"),
    *("-o", "ControlPath=none"),
)


def ssh_argv(address: str, command: str) -> tuple[str, ...]:
    """Return the argv that runs `command` (for the remote shell, quoted by the caller) at `address`."""
    return ("ssh", *SSH_OPTIONS, "--", address, command)


def ssh_forward_argv(address: str, host: str, port: int) -> tuple[str, ...]:
    """Return the argv whose stdin and stdout are a connection from `address` to a port of `host`."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ("ssh", *SSH_OPTIONS, "-W", where, "--", address)


def ssh_command_line() -> str:
    """Return the ssh command line for `rsync -e`. It ends with `--`, because rsync appends the host and its command."""
    return shlex.join(("ssh", *SSH_OPTIONS, "--"))


def srun_argv(nodes: Sequence[Node], command: Sequence[str], *, overlap: bool = True) -> tuple[str, ...]:
    """Return the argv that runs `command` once on each node of a Slurm job.

    A task that fails does not kill the others. No task is bound to the single core that a step gets by default.

    Args:
        nodes: nodes of the job
        command: what each of them runs
        overlap: run also where another step holds the resources
    """
    count = len(nodes)
    return (
        "srun",
        *(("--overlap",) if overlap else ()),
        f"--nodes={count}",
        f"--ntasks={count}",
        "--ntasks-per-node=1",
        f"--nodelist={fold((node.given for node in nodes), one_bracket=True)}",
        "--cpu-bind=none",
        "--kill-on-bad-exit=0",
        "--no-kill",
        *command,
    )
