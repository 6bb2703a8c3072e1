"""Asking: questions about what of ours stands on the nodes, to all of them at once, over sessions that may stay open.

What answers is as little as can be sent and started (`agent.attend`), because asking should cost hardly more than the
way there. Inside a Slurm job one srun starts agents on all nodes; very many are reached through a tree of agents.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import sys
import threading
from typing import TYPE_CHECKING, Any

from ezpz.child import Child, all_of, in_thread
from ezpz.cluster.remote import ssh_argv
from ezpz.errors import EzpzError, by_code
from ezpz.yeet.agent import attend
from ezpz.yeet.agent.refusal import Refusal, from_os_error
from ezpz.yeet.fanout.machine import handshakes, raise_open_files
from ezpz.yeet.line import ProcessLine
from ezpz.yeet.session import BOOTSTRAP, MISSING, PLAIN, PYTHONS, Session, bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.cluster.model import Node
    from ezpz.yeet.fanout.stream.startup import Startup

MODULES = (
    "attend", "clearing", "estate", "listing", "lock", "manifest", "names", "own", "place", "refusal", "standing",
    "tree",
)  # fmt: skip
MANY = 256  # nodes that are all reached by ssh from here; more are through a tree of agents
STALL = 10.0  # seconds without a byte after which an agent's connection is given up


def quick_bootstrap() -> str:
    """The remote command that starts the attendant: no python is started only to see whether it can be.

    A python that cannot run it fails before it has read anything, so the next one is tried; and the same text serves
    sh, csh and fish as login shells.
    """
    each = f'command -v $p >/dev/null 2>&1 && $p -IS -c "{BOOTSTRAP}" && exit 0'
    pythons = " ".join((PYTHONS, *own_pythons()))
    return f"exec /bin/sh -c 'for p in {pythons}; do {each}; done; echo {MISSING} >&2; exit 127'"


def own_pythons() -> tuple[str, ...]:
    """Pythons that a node without one of its own may have: the one that runs this, if it is on a disk of all nodes."""
    return tuple(
        path for path in dict.fromkeys((sys.executable, os.path.realpath(sys.executable))) if PLAIN.fullmatch(path)
    )


class Asking:
    """Asks nodes, this host among them. A node's failure is an answer: the EzpzError in its place.

    transport: "ssh" or "srun"; keep: sessions stay open for the next question
    """

    def __init__(self, nodes: tuple[Node, ...], transport: str = "ssh", *, keep: bool = False) -> None:
        self.nodes = nodes
        self.transport = transport
        self.keep = keep
        self._sessions: dict[Node, Session] = {}
        self._lost: dict[Node, EzpzError] = {}
        self._startup: Startup | None = None

    async def __aenter__(self) -> Asking:
        remote = tuple(node for node in self.nodes if not node.is_local)
        raise_open_files(len(remote))
        self._gate = handshakes()
        if remote and (self.transport == "srun" or len(remote) > MANY):
            await self._start(remote)
        return self

    async def __aexit__(self, *_: object) -> None:
        await all_of(session.close() for session in self._sessions.values())
        if self._startup is not None:
            await self._startup.close()

    async def _start(self, remote: tuple[Node, ...]) -> None:
        from ezpz.yeet.fanout.stream.startup import FAN, Invitation, SrunStartup, SshStartup

        invitation = Invitation(secrets.token_bytes(32), "this host", STALL, own_pythons())
        self._startup = SrunStartup(invitation) if self.transport == "srun" else SshStartup(invitation, self._gate, FAN)
        for node, found in (await self._startup.open(remote)).items():
            if isinstance(found, Session):
                self._sessions[node] = found
            else:
                self._lost[node] = found
        self.keep = True

    async def ask(
        self, requests: Mapping[Node, dict[str, Any]], within: float | None = None
    ) -> dict[Node, dict[str, Any] | EzpzError]:
        """What each node answers to its request; see `agent.attend.answer`. within: seconds, None for any."""
        answers = await all_of(self._ask(node, request, within) for node, request in requests.items())
        return dict(zip(requests, answers, strict=True))

    async def _ask(self, node: Node, request: dict[str, Any], within: float | None) -> dict[str, Any] | EzpzError:
        if node in self._lost:
            return self._lost[node]
        try:
            if node.is_local:
                return await _here(node, request)
            session = await self._session(node)
            try:
                return await session.ask("estate", **request, timeout=within)
            finally:
                if not self.keep:
                    del self._sessions[node]
                    await session.close()
        except EzpzError as e:
            if node in self._sessions and not self._sessions[node].is_open:
                self._lost[node] = e
            return e

    async def _session(self, node: Node) -> Session:
        """The session to a node, opened if there is none. Raises EzpzError."""
        if node not in self._sessions:
            async with self._gate:
                self._sessions[node] = await _open(node)
        return self._sessions[node]


async def _open(node: Node) -> Session:
    """Reach a node by its address, and by its plain name if that fails. Raises EzpzError."""
    try:
        return await _open_at(node, node.address)
    except EzpzError:
        if node.address == node.given:
            raise
        return await _open_at(node, node.given)


async def _open_at(node: Node, address: str) -> Session:
    child = await Child.start(ssh_argv(address, quick_bootstrap()))
    session = Session(node, ProcessLine(child, node))
    session.address = address
    with contextlib.suppress(ConnectionError):
        child.writer.write(bundle("attend", MODULES))
    return await session.started()


async def _here(node: Node, request: dict[str, Any]) -> dict[str, Any]:
    """The same on this host. Raises EzpzError."""
    given_up = threading.Event()

    def going_on() -> None:
        if given_up.is_set():
            raise attend.Gone

    try:
        return await in_thread(functools.partial(attend.answer, request, going_on), given_up.set)
    except OSError as e:
        refusal = from_os_error(e, "cannot look at what stands here")
    except Refusal as e:
        refusal = e
    raise by_code(refusal.code)(f"{node.given}: {refusal.message}", hint=refusal.hint)
