"""Have a small program run on every node at once, over ssh or one srun, and hear its answers. Nothing is installed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import signal
import sys
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ezpz.child import Child, all_of, run_until_signal
from ezpz.cluster.hostnames import short
from ezpz.cluster.remote import explain, srun_argv, ssh_argv
from ezpz.errors import EzpzError, Interrupted, NodeLost, TimedOut
from ezpz.launch.agent.checkup import MARK
from ezpz.process import NOTICED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.cluster.model import Node

AT_ONCE = 64  # ssh sessions that are being opened
CONNECTING = 20.0  # seconds to reach a node, beside those that the program takes
GRACE = 0.3  # seconds
PYTHONS = "/usr/bin/python3 python3 /usr/libexec/platform-python"
MISSING = "python3: not found"
_ANSWER = re.compile(rb"%b(?P<host>\S*) (?P<part>.*)" % MARK.encode())
BOOTSTRAP = "import sys,zlib;b=sys.stdin.buffer;program=b.read(int(b.readline()));exec(zlib.decompress(program))"


@dataclass(frozen=True, slots=True)
class Said:
    """What a node answered, and between which two moments of this host's clock (seconds since 1970)."""

    answer: Mapping[str, Any]
    asked: float
    heard: float


Heard: TypeAlias = "Said | EzpzError"


@functools.cache
def program() -> bytes:
    """The program, packed, behind its length."""
    with open(os.path.join(os.path.dirname(__file__), "agent", "checkup.py"), "rb") as file:
        packed = zlib.compress(file.read() + b"main()\n")
    return b"%d\n%b" % (len(packed), packed)


def remote_command() -> str:
    """The command for a login shell (sh, csh or fish) that runs the program with the first python3 there is."""
    each = f'command -v $p >/dev/null 2>&1 && exec $p -IS -c "{BOOTSTRAP}"'
    return f"exec /bin/sh -c 'for p in {PYTHONS}; do {each}; done; echo {MISSING} >&2; exit 127'"


def consult(nodes: tuple[Node, ...], request: Mapping[str, Any], *, transport: str, within: float) -> dict[str, Heard]:
    """What each node answers to the request (see `ezpz.launch.agent.checkup`), by its name. A failure is an answer.

    transport: "ssh" or "srun". within: seconds that the program may take there. For the main thread only. Raises
    Interrupted when a signal comes that asks to end, or that the time will soon be over.
    """
    act = _consult(nodes, json.dumps(request).encode() + b"\n", transport, within)
    try:
        return run_until_signal(act, NOTICED)
    except Interrupted as e:
        name = signal.Signals(e.signal).name
        raise Interrupted(f"it was interrupted by {name} while it looked at the nodes", signal=e.signal) from None


async def _consult(nodes: tuple[Node, ...], request: bytes, transport: str, within: float) -> dict[str, Heard]:
    gate = asyncio.Semaphore(AT_ONCE)
    remote = tuple(node for node in nodes if not node.is_local)
    acts = [_here(node, request, within) for node in nodes if node.is_local]
    if transport == "srun" and remote:
        acts.append(_by_srun(remote, request, within, gate))
    else:
        acts += [_by_ssh(node, request, within, gate) for node in remote]
    found: dict[str, Heard] = {}
    for answers in await all_of(acts):
        found.update(answers)
    return found


async def _here(node: Node, request: bytes, within: float) -> dict[str, Heard]:
    argv = (sys.executable, "-IS", "-c", BOOTSTRAP)
    return {node.name: _only(await _ask(argv, request, within, (node,)), node)}


async def _by_ssh(node: Node, request: bytes, within: float, gate: asyncio.Semaphore) -> dict[str, Heard]:
    """By the node's address, and by its plain name if that fails."""
    heard: Heard = NodeLost(f"{node.name}: it was not asked")
    async with gate:
        for address in dict.fromkeys((node.address, node.given)):
            heard = _only(await _ask(ssh_argv(address, remote_command()), request, within, (node,)), node)
            if isinstance(heard, Said):
                break
    return {node.name: heard}


async def _by_srun(nodes: tuple[Node, ...], request: bytes, within: float, gate: asyncio.Semaphore) -> dict[str, Heard]:
    """One step for all of them; one for each if that gives no answer at all: a dead node may keep it from starting."""
    found = await _ask(srun_argv(nodes, ("/bin/sh", "-c", remote_command())), request, within, nodes)
    if len(nodes) == 1 or any(isinstance(heard, Said) for heard in found.values()):
        return found

    async def alone(node: Node) -> dict[str, Heard]:
        async with gate:
            return await _ask(srun_argv((node,), ("/bin/sh", "-c", remote_command())), request, within, (node,))

    for each in await all_of(alone(node) for node in nodes):
        found.update(each)
    return found


def _only(found: Mapping[str, Heard], node: Node) -> Heard:
    """The answer of the one node that was asked, by whatever name it calls itself."""
    return next(iter(found.values()), NodeLost(f"{node.name}: no answer"))


async def _ask(argv: tuple[str, ...], request: bytes, within: float, nodes: tuple[Node, ...]) -> dict[str, Heard]:
    """Run one command line that reaches these nodes; who does not answer in time has failed."""
    asked = time.time()
    try:
        child = await Child.start(argv)
    except EzpzError as e:
        return {node.name: e for node in nodes}
    found: dict[str, Heard] = {}
    overdue = False
    try:
        with contextlib.suppress(ConnectionError):
            child.writer.write(program() + request)
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


async def _hear(child: Child, asked: float, nodes: tuple[Node, ...], found: dict[str, Heard]) -> None:
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
                    found[name] = Said(answer, asked, time.time())


def _silence(node: Node, overdue: bool, within: float, err: str, status: int) -> EzpzError:  # noqa: FBT001
    if overdue:
        return TimedOut(f"{node.name}: no answer within {CONNECTING + within:g} s")
    if status == 0:
        return NodeLost(f"{node.name}: it said nothing")
    return explain(err, status, node.name)
