"""Sessions through a tree of agents, on the launching host: run by test_startup.py with the fan and the nodes' names.

First it prints what came of each node: the kind of its line, or the code of its failure; and where agents listen. Then
it takes lines: "ping" prints the nodes that answer, "close" ends everything, and so does the end of stdin.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys

from ezpz.agent.common.messages.envelope import Done
from ezpz.agent.common.messages.queries import HeartbeatRequest
from ezpz.cluster.allocation import Node
from ezpz.errors import EzpzError
from ezpz.remote.limits import connection_limit
from ezpz.remote.session import AgentSession
from ezpz.remote.startup import ListenRequest, SshStarter
from ezpz.runtime.async_process import gather_or_cancel, run_in_thread

STALL = 10.0  # seconds
ANSWER_WITHIN = 20.0  # seconds


async def main(fan: int, names: list[str]) -> None:
    nodes = tuple(Node(name, address=name, given=name) for name in names)
    startup = SshStarter(ListenRequest(secrets.token_bytes(32), "this host", STALL), connection_limit(), fan)
    found = await startup.open(nodes)
    sessions = [session for session in found.values() if isinstance(session, AgentSession)]
    came = {
        node.given: type(result.line).__name__ if isinstance(result, AgentSession) else result.code
        for node, result in found.items()
    }
    tell({"came": came, "where": {node.given: where.to_json() for node, where in startup.where.items()}})
    while (await run_in_thread(sys.stdin.readline)).strip() == "ping":
        answers = await gather_or_cancel(_answers(session) for session in sessions)
        tell({"here": [session.node.given for session, here in zip(sessions, answers, strict=True) if here]})
    await asyncio.gather(*(session.close() for session in sessions))
    await startup.close()
    tell({"closed": True})


async def _answers(session: AgentSession) -> bool:
    try:
        return await session.ask(HeartbeatRequest(), timeout=ANSWER_WITHIN) == Done()
    except EzpzError:
        return False


def tell(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
