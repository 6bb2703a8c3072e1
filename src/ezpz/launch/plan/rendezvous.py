"""Rendezvous of the ranks of a run: the high-speed address of the first node, and a free port on it."""

from __future__ import annotations

import functools
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.cluster import addresses
from ezpz.cluster.hostnames import is_address, short

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.cluster.allocation import Node

LOOPBACK = "127.0.0.1"
PORTS = range(20000, 32000)  # below the ephemeral ports of Linux
MAX_TRIES = 64
CONNECT_TIMEOUT = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """MASTER_ADDR and MASTER_PORT, and the evidence for them."""

    address: str = LOOPBACK
    port: int = 29500
    evidence: tuple[str, ...] = ()


def choose_rendezvous(
    nodes: Sequence[Node],
    environ: Mapping[str, str],
    rng: random.Random,
    *,
    hsn: str = addresses.AUTO,
    address_of: Callable[[str, str], str] | None = None,
    is_free: Callable[[int], bool] | None = None,
    is_free_at: Callable[[str, int], bool | None] | None = None,
) -> Rendezvous:
    """Return MASTER_ADDR and MASTER_PORT of the environment, else the first node and a port.

    A MASTER_ADDR that is not the first node is ignored, because rank 0 does not run there.

    Args:
        nodes: The nodes that run ranks.
        environ: The environment.
        rng: The source of random ports.
        hsn: The high-speed network.
        address_of: Returns the address of this host from its name and `hsn`; by default `fast_address`.
        is_free: Returns whether a port of this host is free; by default `port_is_free`.
        is_free_at: Returns whether a port of another host is free; by default `port_is_free_at`.
    """
    master = nodes[0]
    address, evidence = _choose_address(
        nodes, environ.get("MASTER_ADDR", ""), lambda name: (address_of or fast_address)(name, hsn)
    )
    given = environ.get("MASTER_PORT", "")
    if given.isascii() and given.isdigit() and 0 < int(given) < 65536:
        return Rendezvous(address, int(given), (*evidence, f"MASTER_PORT {given}: as in the environment"))
    ask = (is_free or port_is_free) if master.is_local else functools.partial(is_free_at or port_is_free_at, address)
    port, free = _draw_port(ask, rng)
    why = (
        f"free on {'this host' if master.is_local else master.name}" if free else f"drawn, {master.name} does not tell"
    )
    return Rendezvous(address, port, (*evidence, f"MASTER_PORT {port}: {why}"))


def _choose_address(nodes: Sequence[Node], given: str, address_of: Callable[[str], str]) -> tuple[str, tuple[str, ...]]:
    master, alone = nodes[0], all(node.is_local for node in nodes)
    if given and _may_name(given, master, alone=alone):
        return given, (f"MASTER_ADDR {given}: as in the environment",)
    ignored = (f"MASTER_ADDR {given} of the environment is not the first node, {master.name}",) if given else ()
    address = LOOPBACK if alone else address_of(master.given) if master.is_local else master.address
    return address, (*ignored, f"MASTER_ADDR {address}: {'this host is the only node' if alone else 'the first node'}")


def _may_name(address: str, node: Node, *, alone: bool) -> bool:
    """Return whether an address that the user has set can be this node. A numeric address always can."""
    host = short(address)
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return alone
    return is_address(host) or host == node.name or host.startswith(f"{node.name}-")


def _draw_port(ask: Callable[[int], bool | None], rng: random.Random) -> tuple[int, bool]:
    """Return a random port, and whether it is known to be free. It can be unknown for another host."""
    for _ in range(MAX_TRIES):
        port = rng.choice(PORTS)
        free = ask(port)
        if free is not False:
            return port, bool(free)
    return port, False


def fast_address(given: str, hsn: str) -> str:
    """Return the name of this host on the high-speed network, or its own name if there is none."""
    name = socket.gethostname() if given == "localhost" or given in (LOOPBACK, "::1") else given
    return addresses.choose_addresses([name], hsn=hsn)[name].address


def port_is_free(port: int) -> bool:
    """Return whether a server can listen on this port of this host."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def port_is_free_at(address: str, port: int) -> bool | None:
    """Return whether no server listens on this port of another host; None if there is no answer."""
    try:
        socket.create_connection((address, port), CONNECT_TIMEOUT).close()
    except ConnectionRefusedError:
        return True
    except (OSError, UnicodeError):  # UnicodeError: the name is not a valid IDNA name
        return None
    return False
