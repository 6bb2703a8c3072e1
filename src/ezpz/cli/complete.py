"""Completions for shells: hosts, strategies, engines. Nothing is started, and failures are silent.

`scripts/completions` writes the files for the shells in `completions/`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.errors import EzpzError, ToolMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import click

    from ezpz.runtime import process


def complete_hosts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
    """Return the hosts of the hostfile on the line, or of the current job, also after a comma, each once."""
    done, comma, word = incomplete.rpartition(",")
    listed = set(done.split(","))
    hosts = _hosts(ctx.params.get("hostfile"))
    return [f"{done}{comma}{host}" for host in hosts if host.startswith(word) and host not in listed]


def complete_names(group: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a completer for the names in an entry-point group, such as "ezpz.yeet.strategies". Nothing is loaded."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
        from ezpz.runtime.plugins import Registry

        try:
            names = Registry[object](group, "name").names()
        except EzpzError:
            return []
        return [name for name in names if name.startswith(incomplete)]

    return complete


complete_strategies = complete_names("ezpz.yeet.strategies")
complete_engines = complete_names("ezpz.yeet.engines")


def _hosts(hostfile: str | None) -> tuple[str, ...]:
    from ezpz.cluster.detect_nodes import detect_nodes
    from ezpz.cluster.schedulers.base import System

    try:
        allocation = detect_nodes(hostfile=hostfile, hsn="off", environ=os.environ, system=System(run=_start_nothing))
    except (EzpzError, OSError):
        return ()
    return tuple(node.given for node in allocation.nodes)


def _start_nothing(argv: Sequence[str], *, timeout: float | None = None) -> process.Completed:  # noqa: ARG001 - a port
    raise ToolMissing(f"{argv[0]} is not asked while a shell completes")
