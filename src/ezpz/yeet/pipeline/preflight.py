"""Check a request before anything is counted: the source, the nodes, the strategy and the transport."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.cluster.detect_nodes import detect_nodes
from ezpz.errors import UsageError
from ezpz.remote.transports import usable
from ezpz.yeet.engines.base import ENGINES
from ezpz.yeet.model.plan import Choice, Request, destination_of, engine_choice, threshold, transport_choice
from ezpz.yeet.source.inspect import active_environment, inspect_source
from ezpz.yeet.source.link_policy import SHARED_PREFIXES
from ezpz.yeet.strategies.base import STRATEGIES, choose_strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.cluster.allocation import Allocation
    from ezpz.yeet.model.source import Source


@dataclass(frozen=True, slots=True)
class Preflight:
    """The source, the nodes, and how the source is read and agents are started."""

    source: Source
    allocation: Allocation
    strategy: Choice
    transport: Choice


def check_request(request: Request, environ: Mapping[str, str]) -> Preflight:
    """Inspect the source and the allocation, and choose strategy and transport. Raise EzpzError."""
    source = inspect_source(active_environment(environ) if request.src is None else request.src)
    strategy = Choice(*choose_strategy(source, request.strategy))
    engine = ENGINES.load(engine_choice(request).name)
    if STRATEGIES.load(strategy.name).reads_archives != source.is_archive:
        what = "an archive" if source.is_archive else "a directory"
        raise UsageError(
            f"--strategy {strategy.name} cannot read '{source.path}', which is {what}", hint="leave --strategy out"
        )
    if source.is_archive and request.exclude:
        raise UsageError(
            f"--exclude {request.exclude[0]} cannot be used with an archive", hint="make the archive without it"
        )
    allocation = detect_nodes(hosts=request.hosts, hostfile=request.hostfile, hsn=request.hsn, environ=environ)
    if request.orig_prefix is not None:
        refuse_prefix(request.orig_prefix)
    destination_of(request, source)  # raises before any node is contacted
    threshold(request, len(allocation.nodes))
    transport = transport_choice(request, allocation, engine.transports, usable(environ))
    return Preflight(source, allocation, strategy, transport)


def refuse_prefix(prefix: str) -> None:
    """Raise UsageError for an --orig-prefix that cannot be the path of one environment."""
    deep = prefix.startswith("/") and len([part for part in prefix.split("/") if part]) > 1
    if not deep or os.path.normpath(prefix) != prefix.rstrip("/") or os.fsencode(prefix.rstrip("/")) in SHARED_PREFIXES:
        raise UsageError(
            f"--orig-prefix '{prefix}' is no full path of an environment",
            hint="pass where it stood when it was packed, as in --orig-prefix /lus/me/envs/torch",
        )
