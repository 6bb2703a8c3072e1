"""Real hosts on one machine, for every test of what crosses a network."""

from __future__ import annotations

from typing import Any

from tests.lab import hosts, loopback
from tests.lab.faults import FaultyLab
from tests.lab.model import Host, LabError, LabUnavailable

__all__ = ["FaultyLab", "Host", "LabError", "LabUnavailable", "choose", "make_lab"]


def choose() -> tuple[type[FaultyLab], str]:
    """Return the best kind of lab that this machine can have, and why it is that one."""
    no_namespaces = hosts.why_not()
    if no_namespaces is None:
        return hosts.Lab, "network namespaces, as root"
    no_loopback = loopback.why_not()
    if no_loopback is None:
        return loopback.LoopbackLab, f"loopback addresses, as {no_namespaces}"
    raise LabUnavailable(f"no hosts can be made here: {no_namespaces}; {no_loopback}")


def make_lab(count: int = 4, **options: Any) -> FaultyLab:
    """Return the best lab that this machine can have, not yet entered; see `hosts.Lab` for the options."""
    kind, _ = choose()
    return kind(count, **options)
