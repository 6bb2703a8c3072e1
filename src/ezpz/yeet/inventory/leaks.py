"""Find what a copied environment still reads from shared filesystems, by running its Python on one node."""

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
from ezpz.remote.transports import TRANSPORTS
from ezpz.runtime.async_process import gather_or_cancel
from ezpz.runtime.signals import run_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.agent.common.messages.answers import LeaksAnswer
    from ezpz.agent.common.messages.receipt import Receipt
    from ezpz.cluster.allocation import Allocation, Node

SessionOpener: TypeAlias = "Callable[[Node], Awaitable[AgentSession]]"

SCHEMA = "ezpz/yeet-leaks/1"
ANSWER_TIMEOUT = 30.0  # seconds for an agent to examine its disk


@dataclass(frozen=True, slots=True)
class Leak:
    """Directory on a shared filesystem that an environment still uses.

    Attributes:
        what: why the environment uses it, a key of `agent.destination.leaks.REMEDIES`
        path: the directory
        count: how many paths in it are used
        remedy: how to avoid that
    """

    what: str
    path: str
    count: int
    remedy: str

    def to_dict(self) -> dict[str, Any]:
        """Return the leak for JSON."""
        return {"what": self.what, "path": self.path, "count": self.count, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Leaks of the environment at a destination, found on one node.

    Attributes:
        destination: the destination
        node: the node
        python: the version of the environment's Python
        leaks: the leaks
    """

    destination: str
    node: Node
    python: str
    leaks: tuple[Leak, ...]

    @property
    def exit_code(self) -> int:
        """0 if there are no leaks."""
        return NodesFailed.exit_code if self.leaks else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON; the schema is in docs/reference/json.md."""
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
    """Find leaks on one node that has a copy: this host, or else the first node that answers.

    Args:
        allocation: the nodes
        destination: the destination
        environ: the variables of the job
        transport: the name of one

    Raises:
        NodesFailed: no node has a copy.
        SmokeFailed: the Python of the copy does not start.
        TimedOut: the Python or the node does not answer.
        EzpzError: the copy cannot be examined.
    """
    local = allocation.local
    if local is not None:
        found = describe(os.fsencode(destination))
        if found is not None and found.receipt is not None:
            return find_local_leaks(local, destination, _original_directories(found.receipt), environ, NEVER)
    remote = tuple(node for node in allocation.nodes if not node.is_local)
    return run_async(_find_remote_leaks(remote, destination, environ, transport))


def find_local_leaks(
    node: Node, destination: str, known: Iterable[str], environ: Mapping[str, str], cancel: CancelToken
) -> LeakReport:
    """Find leaks on this host.

    Args:
        node: this host
        destination: the destination
        known: directories that count as shared: the source, its base Python, its editable installs
        environ: the variables of the job
        cancel: cancels the search

    Raises:
        EzpzError: the copy cannot be examined.
    """
    try:
        found = leaks.find_leaks(leaks_request(destination, known, environ), cancel)
    except AgentError as e:
        raise by_code(e.code)(e.message, hint=e.hint) from e
    return _leak_report(destination, node, found)


async def _find_remote_leaks(
    nodes: tuple[Node, ...], destination: str, environ: Mapping[str, str], transport: str
) -> LeakReport:
    async with _session_opener(nodes, transport) as open_session:
        session, receipt = await _first_with_copy(nodes, destination, open_session)
        try:
            request = leaks_request(destination, _original_directories(receipt), environ)
            found = await session.ask(request, timeout=leaks.TIMEOUT + ANSWER_TIMEOUT)
        finally:
            await session.close()
    return _leak_report(destination, session.node, found)


@contextlib.asynccontextmanager
async def _session_opener(nodes: tuple[Node, ...], transport: str) -> AsyncIterator[SessionOpener]:
    """Prepare a function that opens a session to a node.

    Some transports need a process for each node. Others start all agents at once, before the first session is opened.
    """
    method, limit = TRANSPORTS[transport], connection_limit()
    if not method.at_once:
        raise_open_files(len(nodes))

        async def connect(node: Node) -> AgentSession:
            async with limit:
                return await AgentSession.open(node)

        yield connect
        return
    from ezpz.remote.startup import FANOUT, ListenRequest

    invitation = ListenRequest(secrets.token_bytes(32), "this host", STALL, shared_pythons())
    startup = method.starter(invitation, limit, FANOUT)
    started: dict[Node, AgentSession | EzpzError] = {}

    async def take_started(node: Node) -> AgentSession:
        session = started[node]
        if isinstance(session, EzpzError):
            raise session
        return session

    try:
        started.update(await startup.open(nodes))
        yield take_started
    finally:
        await gather_or_cancel(session.close() for session in started.values() if isinstance(session, AgentSession))
        await startup.close()


async def _first_with_copy(
    nodes: tuple[Node, ...], destination: str, open_session: SessionOpener
) -> tuple[AgentSession, Receipt]:
    """Return the session to the first node that answers and has a copy, and its receipt. Raises NodesFailed."""
    queries = [asyncio.ensure_future(_read_receipt(node, destination, open_session)) for node in nodes]
    failures: list[EzpzError] = []
    chosen: AgentSession | None = None
    try:
        for answer in asyncio.as_completed(queries):
            try:
                session, receipt = await answer
            except EzpzError as e:
                failures.append(e)
                continue
            if receipt is not None:
                chosen = session
                return session, receipt
    finally:
        for each in queries:
            each.cancel()
        answered = await asyncio.gather(*queries, return_exceptions=True)
        others = [each[0] for each in answered if not isinstance(each, BaseException)]
        await gather_or_cancel(session.close() for session in others if session is not chosen)
    silent = f" ({len(failures)} of them did not answer: {failures[0].message})" if failures else ""
    raise NodesFailed(f"no node has a version at '{destination}'{silent}", hint="put it there first, with `ezpz yeet`")


async def _read_receipt(
    node: Node, destination: str, open_session: SessionOpener
) -> tuple[AgentSession, Receipt | None]:
    """Return the open session to a node, and the receipt of its copy, None if it has none. Raises EzpzError."""
    session = await open_session(node)
    answered = False
    try:
        found = (await session.ask(LookRequest(dst=destination), timeout=ANSWER_TIMEOUT)).standing
        answered = True
    finally:
        if not answered:
            await session.close()
    return session, None if found is None else found.receipt


def leaks_request(destination: str, known: Iterable[str], environ: Mapping[str, str]) -> LeaksRequest:
    """Return the request for leaks.

    Args:
        destination: the destination
        known: directories that count as shared
        environ: the variables of the job
    """
    return LeaksRequest(dst=destination, known=list(known), environ=leaks.job_environ(environ))


def _original_directories(receipt: Receipt) -> tuple[str, ...]:
    """Return the directories that a copy was made from."""
    return tuple(receipt.origins) or (receipt.source,)


def _leak_report(destination: str, node: Node, found: LeaksAnswer) -> LeakReport:
    return LeakReport(destination, node, found.python, tuple(Leak(**each.to_json()) for each in found.leaks))
