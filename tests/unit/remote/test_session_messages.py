"""What an agent sends is checked: a bad message is the failure of its node, and of no other part of a run."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common.messages.answers import LookAnswer
from ezpz.agent.common.messages.requests import LookRequest
from ezpz.agent.query_server import READY
from ezpz.cluster.allocation import Node
from ezpz.errors import EzpzError, NodeLost
from ezpz.remote.session import AgentSession

if TYPE_CHECKING:
    from collections.abc import Callable

NODE = Node("n001", "n001", "n001")


class Agent:
    """The channel to an agent that answers each request with a line of a test."""

    is_open = True

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self.answer = answer
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.lines.put_nowait(json.dumps({"ready": READY, "host": "n001", "python": "3.6.15"}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        request = json.loads(data)
        if request["op"] != "heartbeat":
            self.lines.put_nowait(self.answer(request["id"]) + b"\n")

    async def drain(self) -> None: ...

    async def readline(self) -> bytes:
        return await self.lines.get()

    async def failure(self) -> EzpzError:
        return NodeLost("lost", node="n001")

    async def end(self, grace: float) -> None: ...


def ask(answer: Callable[[int], bytes]) -> LookAnswer:
    async def asked() -> LookAnswer:
        session = await AgentSession(NODE, Agent(answer)).started()
        try:
            return await session.ask(LookRequest(dst="/tmp/x"), timeout=30)
        finally:
            await session.close()

    return asyncio.run(asked())


def test_a_good_answer_has_a_type() -> None:
    found = ask(lambda number: json.dumps({"id": number, "result": {"standing": None}}).encode())
    assert found == LookAnswer(standing=None)


@pytest.mark.parametrize(
    "message",
    [
        '{"id": %d}', '{"id": %d, "result": []}', '{"id": %d, "result": {"standing": 1}}',
        '{"id": %d, "result": {"standing": null, "more": 1}}', '{"id": %d, "error": "no"}',
        '{"id": %d, "error": {"code": [], "message": "", "hint": ""}}', '{"id": %d, "event": {"stream": "sung"}}',
        '{"id": %d, "event": 7}',
    ],
)  # fmt: skip
def test_a_bad_one_is_the_failure_of_the_node(message: str) -> None:
    with pytest.raises(NodeLost, match=r"^n001: its agent sent an invalid message: "):
        ask(lambda number: (message % number).encode())


def test_an_event_that_nobody_knows_ends_the_session() -> None:
    with pytest.raises(NodeLost, match=r"^n001: its agent sent an invalid message: unknown event 'sung'$"):
        ask(lambda _: b'{"event": {"stream": "sung"}}')
