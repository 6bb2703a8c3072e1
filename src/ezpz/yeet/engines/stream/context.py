"""What a stream needs of the engine that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping

    from ezpz.agent.common.messages.parts import PeerAddress
    from ezpz.cluster.allocation import Node
    from ezpz.remote.session import AgentSession
    from ezpz.yeet.engines.base import EngineOptions
    from ezpz.yeet.model.events import Emit


@dataclass(frozen=True, slots=True)
class StreamContext:
    """Access to the nodes, and facts of the run.

    Attributes:
        options: Options of the engine.
        emit: Takes events.
        rng: Breaks ties.
        secret: Secret of the run, which every connection is authenticated by.
        rate: Bytes per second that the network carries, 0 for unknown.
        sessions: Sessions by node; a restarted node has a new one.
        listening: Where each node's agent listens, and what it can decompress.
        peer_address: Returns how another host connects to a node.
        restart: Starts a node's agent again, with nothing. Raises EzpzError.
        elapsed: Returns the seconds since the start of the run.
    """

    options: EngineOptions
    emit: Emit
    rng: random.Random
    secret: bytes
    rate: float
    sessions: Mapping[Node, AgentSession]
    listening: Mapping[Node, PeerAddress]
    peer_address: Callable[[Node], PeerAddress]
    restart: Callable[[Node], Awaitable[None]]
    elapsed: Callable[[], float]
