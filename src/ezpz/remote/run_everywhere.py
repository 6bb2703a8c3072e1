"""Have a small program run on every node at once, over ssh or one srun, and hear its answers. Nothing is installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ezpz.agent.health_check import MARK
from ezpz.cluster.hostnames import short
from ezpz.cluster.ssh_errors import classify_failure
from ezpz.cluster.transports import TRANSPORTS
from ezpz.errors import EzpzError, Interrupted, NodeLost, TimedOut
from ezpz.remote.bootstrap import BOOTSTRAP, MISSING, PYTHONS, bundle
from ezpz.runtime.async_process import AsyncProcess, gather_or_cancel
from ezpz.runtime.signals import NOTICED, run_async

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.cluster.allocation import Node
    from ezpz.cluster.transports import Transport

AT_ONCE = 64  # ssh sessions that are being opened
CONNECTING = 20.0  # seconds to reach a node, beside those that the program takes
GRACE = 0.3  # seconds
_ANSWER = re.compile(rb"%b(?P<host>\S*) (?P<part>.*)" % MARK.encode())


@dataclass(frozen=True, slots=True)
class Reply:
    """What a node answered, and between which two moments of this host's clock (seconds since 1970)."""

    answer: Mapping[str, Any]
    asked: float
    heard: float


ReplyOrError: TypeAlias = "Reply | EzpzError"


def remote_command() -> str:
    """The command for a login shell (sh, csh or fish) that runs the program with the first python3 there is."""
    each = f'command -v $p >/dev/null 2>&1 && exec $p -IS -c "{BOOTSTRAP}"'
    return f"exec /bin/sh -c 'for p in {PYTHONS}; do {each}; done; echo {MISSING} >&2; exit 127'"


def run_on_nodes(
    nodes: tuple[Node, ...], request: Mapping[str, Any], *, transport: str, within: float
) -> dict[str, ReplyOrError]:
    """What each node answers to the request (see `ezpz.agent.health_check`), by its name. A failure is an answer.

    transport: the name of one. within: seconds that the program may take there. For the main thread only. Raises
    Interrupted when a signal comes that asks to end, or that the time will soon be over.
    """
    try:
        return run_async(_consult(nodes, json.dumps(request).encode() + b"\n", transport, within), numbers=NOTICED)
    except Interrupted as e:
        name = signal.Signals(e.signal).name
        raise Interrupted(f"it was interrupted by {name} while it looked at the nodes", signal=e.signal) from None


async def _consult(nodes: tuple[Node, ...], request: bytes, transport: str, within: float) -> dict[str, ReplyOrError]:
    gate = asyncio.Semaphore(AT_ONCE)
    remote = tuple(node for node in nodes if not node.is_local)
    acts = [_here(node, request, within) for node in nodes if node.is_local]
    way = TRANSPORTS[transport]
    if way.at_once and remote:
        acts.append(_all_at_once(way, remote, request, within, gate))
    else:
        acts += [_alone(way, node, request, within, gate) for node in remote]
    found: dict[str, ReplyOrError] = {}
    for answers in await gather_or_cancel(acts):
        found.update(answers)
    return found


async def _here(node: Node, request: bytes, within: float) -> dict[str, ReplyOrError]:
    argv = (sys.executable, "-IS", "-c", BOOTSTRAP)
    return {node.name: _only(await _ask(argv, request, within, (node,)), node)}


async def _alone(
    way: Transport, node: Node, request: bytes, within: float, gate: asyncio.Semaphore
) -> dict[str, ReplyOrError]:
    """Ask one node, in one way after another until it answers."""
    heard: ReplyOrError = NodeLost("it was not asked", node=node.name)
    async with gate:
        for argv in way.argvs((node,), remote_command()):
            heard = _only(await _ask(argv, request, within, (node,)), node)
            if isinstance(heard, Reply):
                break
    return {node.name: heard}


async def _all_at_once(
    way: Transport, nodes: tuple[Node, ...], request: bytes, within: float, gate: asyncio.Semaphore
) -> dict[str, ReplyOrError]:
    """Ask all nodes by one process; each alone if there is no answer at all: a dead node may keep it from starting."""
    argv, *_ = way.argvs(nodes, remote_command())
    found = await _ask(argv, request, within, nodes)
    if len(nodes) == 1 or any(isinstance(heard, Reply) for heard in found.values()):
        return found
    for each in await gather_or_cancel(_alone(way, node, request, within, gate) for node in nodes):
        found.update(each)
    return found


def _only(found: Mapping[str, ReplyOrError], node: Node) -> ReplyOrError:
    """The answer of the one node that was asked, by whatever name it calls itself."""
    return next(iter(found.values()), NodeLost("no answer", node=node.name))


async def _ask(
    argv: tuple[str, ...], request: bytes, within: float, nodes: tuple[Node, ...]
) -> dict[str, ReplyOrError]:
    """Run one command line that reaches these nodes; who does not answer in time has failed."""
    asked = time.time()
    try:
        child = await AsyncProcess.start(argv)
    except EzpzError as e:
        return {node.name: e for node in nodes}
    found: dict[str, ReplyOrError] = {}
    overdue = False
    try:
        with contextlib.suppress(ConnectionError):
            child.writer.write(bundle("health_check") + request)
            child.writer.write_eof()
        try:
            await asyncio.wait_for(_hear(child, asked, nodes, found), CONNECTING + within)
        except asyncio.TimeoutError:
            overdue = True
        status = 0 if overdue or len(found) == len(nodes) else await child.wait()
    finally:
        await child.end(GRACE)
    for node in nodes:
        if node.name not in found:
            found[node.name] = _silence(node, overdue, within, child.err, status)
    return found


async def _hear(child: AsyncProcess, asked: float, nodes: tuple[Node, ...], found: dict[str, ReplyOrError]) -> None:
    names = {node.name for node in nodes}
    parts: defaultdict[str, bytes] = defaultdict(bytes)
    with contextlib.suppress(ConnectionError):
        while len(found) < len(nodes) and (line := await child.reader.readline()):
            told = _ANSWER.match(line)
            if told is None:
                continue
            name = nodes[0].name if len(nodes) == 1 else short(told["host"].decode(errors="replace"))
            parts[name] += told["part"]
            with contextlib.suppress(ValueError):  # there is more to come
                answer = json.loads(parts[name])
                if name in names:
                    found[name] = Reply(answer, asked, time.time())


def _silence(node: Node, overdue: bool, within: float, err: str, status: int) -> EzpzError:  # noqa: FBT001
    if overdue:
        return TimedOut(f"no answer within {CONNECTING + within:g} s", node=node.name)
    if status == 0:
        return NodeLost("it said nothing", node=node.name)
    return classify_failure(err, status, node.name)
