"""Action: what the course of a stream wants to be done."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

N = TypeVar("N", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Serve(Generic[N]):
    """`parent` is to send to `child`: from its position on, or only these chunks."""

    parent: N
    child: N
    chunks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Release(Generic[N]):
    """`parent` is to stop sending to `child`."""

    parent: N
    child: N


@dataclass(frozen=True, slots=True)
class GiveUp(Generic[N]):
    """Nobody could serve this node; `hangs`: it was reached and made no progress."""

    node: N
    why: str
    hangs: bool = False


Action: TypeAlias = "Serve[N] | Release[N] | GiveUp[N]"
