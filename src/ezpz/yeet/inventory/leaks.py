"""Leaks: what the environment at a destination still uses on a shared filesystem, as its Python tells on one node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ezpz import __version__
from ezpz.agent.common.cancel import NEVER
from ezpz.agent.common.errors import AgentError
from ezpz.agent.common.messages.requests import LeaksRequest, LookRequest
from ezpz.agent.destination import leaks
from ezpz.agent.destination.installed import describe
from ezpz.errors import EzpzError, NodesFailed, by_code
from ezpz.remote.bootstrap import shared_pythons
from ezpz.remote.limits import connection_limit, raise_open_files
from ezpz.remote.query import STALL
from ezpz.remote.session import AgentSession
from ezpz.remote.transports import AGENT_TRANSPORTS
from ezpz.runtime.async_process import gather_or_cancel
from ezpz.runtime.signals import run_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.agent.common.messages.answers import LeaksAnswer
    from ezpz.cluster.allocation import Allocation, Node

Opener: TypeAlias = "Callable[[Node], Awaitable[AgentSession]]"

SCHEMA = "ezpz/yeet-leaks/1"
ANSWER_WITHIN = 30.0  # seconds for an agent to look at its disk


@dataclass(frozen=True, slots=True)
class Leak:
    """A folder on a shared filesystem that an environment still uses.

    what: how it is led there, a key of `agent.leaks.REMEDIES`; count: of what is used there; remedy: what to do
    """

    what: str
    path: str
    count: int
    remedy: str

    def to_dict(self) -> dict[str, Any]:
        return {"what": self.what, "path": self.path, "count": self.count, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What the environment at `destination` still uses on a shared filesystem, as its Python told on one node."""

    destination: str
    node: Node
    python: str
    leaks: tuple[Leak, ...]

    @property
    def exit_code(self) -> int:
        """0 only if there are none."""
        return NodesFailed.exit_code if self.leaks else 0

    def to_dict(self) -> dict[str, Any]:
        """The leaks as JSON; schema in docs/reference/json.md."""
        return {
            "schema": SCHEMA,
            "ezpz": __version__,
            "destination": self.destination,
            "node": self.node.given,
            "python": self.python,
            "exit_code": self.exit_code,
            "leaks": [leak.to_dict() for leak in self.leaks],
        }


def find_leaks(allocation: Allocation, destination: str, environ: Mapping[str, str], transport: str) -> LeakReport:
    """Look for leaks on one node that has a version: on this host, else on the first that answers.

    environ: of the job; transport: the name of one
    Raises EzpzError: NodesFailed when no node has one, SmokeFailed, TimedOut.
    """
    local = allocation.local
    if local is not None:
        found = describe(os.fsencode(destination))
        if found is not None and found.receipt is not None:
            return leaks_here(local, destination, known_to(found.receipt), environ, NEVER)
    remote = tuple(node for node in allocation.nodes if not node.is_local)
    return run_async(_leaks_elsewhere(remote, destination, environ, transport))


def known_to(receipt: Mapping[str, Any]) -> tuple[str, ...]:
    """The folders that a version was made from, by its receipt."""
    return tuple(str(path) for path in receipt.get("origins", ())) or (str(receipt["source"]),)


def leaks_here(
    node: Node, destination: str, known: Iterable[str], environ: Mapping[str, str], cancel: CancelToken
) -> LeakReport:
    """Look for leaks on this host, which is `node`. Blocking. Raises EzpzError, or Cancelled.

    known: folders that count as shared wherever they are: the source, its base, its editables
    """
    try:
        found = leaks.find_leaks(leaks_request(destination, known, environ), cancel)
    except AgentError as e:
        raise by_code(e.code)(e.message, hint=e.hint) from e
    return _leak_report(destination, node, found)


async def _leaks_elsewhere(
    nodes: tuple[Node, ...], destination: str, environ: Mapping[str, str], transport: str
) -> LeakReport:
    async with _session_opener(nodes, transport) as opening:
        session, receipt = await _first_that_has_it(nodes, destination, opening)
        try:
            request = leaks_request(destination, known_to(receipt), environ)
            found = await session.ask(request, timeout=leaks.TIMEOUT + ANSWER_WITHIN)
        finally:
            await session.close()
    return _leak_report(destination, session.node, found)


@contextlib.asynccontextmanager
async def _session_opener(nodes: tuple[Node, ...], transport: str) -> AsyncIterator[Opener]:
    """What opens a session to a node: a process for each, some at once; or one that has started all agents."""
    way, gate = AGENT_TRANSPORTS[transport], connection_limit()
    if not way.at_once:
        raise_open_files(len(nodes))

        async def one_by_one(node: Node) -> AgentSession:
            async with gate:
                return await AgentSession.open(node)

        yield one_by_one
        return
    from ezpz.remote.startup import FAN, ListenRequest

    invitation = ListenRequest(secrets.token_bytes(32), "this host", STALL, shared_pythons())
    startup = way.starter(invitation, gate, FAN)
    started: dict[Node, AgentSession | EzpzError] = {}

    async def started_already(node: Node) -> AgentSession:
        session = started[node]
        if isinstance(session, EzpzError):
            raise session
        return session

    try:
        started.update(await startup.open(nodes))
        yield started_already
    finally:
        await gather_or_cancel(session.close() for session in started.values() if isinstance(session, AgentSession))
        await startup.close()


async def _first_that_has_it(
    nodes: tuple[Node, ...], destination: str, opening: Opener
) -> tuple[AgentSession, dict[str, Any]]:
    """The session to a node that has a version, and its receipt. Raises NodesFailed when there is none."""
    asking = [asyncio.ensure_future(_receipt_on(node, destination, opening)) for node in nodes]
    lost: list[EzpzError] = []
    chosen: AgentSession | None = None
    try:
        for answer in asyncio.as_completed(asking):
            try:
                session, receipt = await answer
            except EzpzError as e:
                lost.append(e)
                continue
            if receipt is not None:
                chosen = session
                return session, receipt
    finally:
        for each in asking:
            each.cancel()
        answered = await asyncio.gather(*asking, return_exceptions=True)
        others = [each[0] for each in answered if not isinstance(each, BaseException)]
        await gather_or_cancel(session.close() for session in others if session is not chosen)
    silent = f" ({len(lost)} of them did not answer: {lost[0].message})" if lost else ""
    raise NodesFailed(f"no node has a version at '{destination}'{silent}", hint="put it there first, with `ezpz yeet`")


async def _receipt_on(node: Node, destination: str, opening: Opener) -> tuple[AgentSession, dict[str, Any] | None]:
    """The session to a node, which stays open, and the receipt that it has. Raises EzpzError."""
    session = await opening(node)
    answered = False
    try:
        found = (await session.ask(LookRequest(dst=destination), timeout=ANSWER_WITHIN)).standing
        answered = True
    finally:
        if not answered:
            await session.close()
    return session, None if found is None else found.receipt


def leaks_request(destination: str, known: Iterable[str], environ: Mapping[str, str]) -> LeaksRequest:
    """What an agent is asked to look for leaks; see `agent.leaks.find_leaks`."""
    return LeaksRequest(dst=destination, known=list(known), environ=leaks.job_environ(environ))


def _leak_report(destination: str, node: Node, found: LeaksAnswer) -> LeakReport:
    return LeakReport(destination, node, found.python, tuple(Leak(**each.to_json()) for each in found.leaks))
