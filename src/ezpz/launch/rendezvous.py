"""Where the ranks of a run meet: the fast name of the first node, and a port that is free there."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.cluster import network

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.cluster.model import Node

LOOPBACK = "127.0.0.1"
PORTS = range(20000, 32000)  # below those that Linux gives to outgoing connections


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """MASTER_ADDR and MASTER_PORT, and why."""

    address: str = LOOPBACK
    port: int = 29500
    evidence: tuple[str, ...] = ()


def rendezvous(
    nodes: Sequence[Node],
    environ: Mapping[str, str],
    chance: random.Random,
    *,
    hsn: str = network.AUTO,
    dial: Callable[[str, str], str] | None = None,
    is_free: Callable[[int], bool] | None = None,
) -> Rendezvous:
    """Where the ranks on these nodes meet: what MASTER_ADDR and MASTER_PORT say, else the first node.

    A port of this host is known to be free; one of another host is only likely to be.
    """
    master, free = nodes[0], is_free or port_is_free
    alone = all(node.is_local for node in nodes)
    address, port = environ.get("MASTER_ADDR", ""), environ.get("MASTER_PORT", "")
    evidence = [f"MASTER_ADDR {address}: as in the environment"] if address else []
    if not address:
        address = LOOPBACK if alone else (dial or fast_name)(master.given, hsn) if master.is_local else master.address
        evidence.append(f"MASTER_ADDR {address}: {'this host is the only node' if alone else 'the first node'}")
    if port.isascii() and port.isdigit():
        return Rendezvous(address, int(port), (*evidence, f"MASTER_PORT {port}: as in the environment"))
    tries = [chance.choice(PORTS) for _ in range(64)]
    chosen = next((each for each in tries if free(each)), tries[0]) if master.is_local else tries[0]
    known = "free on this host" if master.is_local else f"drawn, for {master.name} is another host"
    return Rendezvous(address, chosen, (*evidence, f"MASTER_PORT {chosen}: {known}"))


def fast_name(given: str, hsn: str) -> str:
    """The name of this host by which others reach it over the fast network, or its own where there is none."""
    name = socket.gethostname() if given == "localhost" or given in (LOOPBACK, "::1") else given
    return network.dial_addresses([name], hsn=hsn)[name].address


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of this host."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
