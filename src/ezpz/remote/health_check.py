"""Health checks of nodes, as requests to their agents."""

from __future__ import annotations

import resource
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ezpz.errors import EzpzError, Interrupted
from ezpz.remote.query import NodeQuery
from ezpz.runtime.async_process import gather_or_cancel
from ezpz.runtime.signals import NOTICED, run_async

if TYPE_CHECKING:
    from ezpz.agent.common.messages.queries import HealthCheckAnswer, HealthCheckRequest
    from ezpz.cluster.allocation import Node

CONNECT_TIMEOUT = 20.0  # seconds to reach a node, in addition to those that the checks take


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a node, and the two moments of this host's clock between which it was given (Unix time)."""

    answer: HealthCheckAnswer
    asked: float
    heard: float


ReplyOrError: TypeAlias = "Reply | EzpzError"


def check_health(
    nodes: tuple[Node, ...], request: HealthCheckRequest, *, transport: str, within: float
) -> dict[str, ReplyOrError]:
    """Run checks on all nodes at once and return the answers by the names of the nodes. A failure is an answer.

    Call it in the main thread only.

    Args:
        nodes: the nodes to check
        request: the checks
        transport: the name of one
        within: seconds that the checks may take on a node

    Raises:
        Interrupted: a signal asked to end, or announced that the time will soon be over
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return run_async(_check(nodes, request, transport, within), numbers=NOTICED)
    except Interrupted as e:
        name = signal.Signals(e.signal).name
        raise Interrupted(f"it was interrupted by {name} while it looked at the nodes", signal=e.signal) from None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)  # the ranks inherit it


async def _check(
    nodes: tuple[Node, ...], request: HealthCheckRequest, transport: str, within: float
) -> dict[str, ReplyOrError]:
    async with NodeQuery(nodes, transport, own_process=True, ready_within=CONNECT_TIMEOUT) as query:
        replies = await gather_or_cancel(_check_node(query, node, request, CONNECT_TIMEOUT + within) for node in nodes)
    return {node.name: reply for node, reply in zip(nodes, replies, strict=True)}


async def _check_node(query: NodeQuery, node: Node, request: HealthCheckRequest, within: float) -> ReplyOrError:
    asked = time.time()
    answer = await query.ask_node(node, request, within)
    return answer if isinstance(answer, EzpzError) else Reply(answer, asked, time.time())
