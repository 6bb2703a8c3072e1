"""The wires of a lab: a hub namespace with a bridge, and a shaped cable from it to each host."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.model import Host, LabError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NETNS = Path("/run/netns")
BURST = 50_000
SEGMENT = 32_768  # bytes; tbf cuts what is larger than its burst into packets, in software, at the cost of all cores


def address(lab_id: str, index: int, *, hsn: bool = False) -> str:
    """Return the address of host ``index`` in the lab's own 10.x network; the HSN has its upper half."""
    network = ipaddress.ip_address(f"10.{int(lab_id, 16) % 254 + 1}.{128 if hsn else 0}.1")
    return str(network + index)


@dataclass(frozen=True)
class Cable:
    """One network of the lab: the interface on a host, the bridge it leads to, its rate (None: unshaped)."""

    interface: str
    rate: str | None
    latency: str

    @property
    def bridge(self) -> str:
        """The bridge in the hub that joins this network."""
        return f"br-{self.interface}"

    def hub_end(self, host: Host) -> str:
        """The name of a host's cable in the hub."""
        return f"{host.name}-{self.interface}"

    def shaping(self, device: str) -> Iterator[str]:
        """Yield the tc commands that give a device this cable's rate."""
        if self.rate:
            tbf = f"tbf rate {self.rate} burst {BURST} latency {self.latency}"
            yield f"qdisc replace dev {device} root {tbf}"


@dataclass(frozen=True)
class Network:
    """The namespaces and cables of one lab; each name starts with the lab's id."""

    lab_id: str
    cables: tuple[Cable, ...]

    @property
    def hub(self) -> str:
        """The namespace that holds the bridges."""
        return f"ezpz-{self.lab_id}-hub"

    def namespace(self, host: Host) -> str:
        """The network namespace of one host."""
        return f"ezpz-{self.lab_id}-{host.name}"

    def identity(self, host: Host) -> str:
        """Return the namespace as /proc/PID/ns/net spells it."""
        return f"net:[{os.stat(NETNS / self.namespace(host)).st_ino}]"

    def create(self, hosts: Iterable[Host]) -> None:
        """Make every namespace, bridge and cable; each host still has to configure its own end."""
        hosts = tuple(hosts)
        names = (self.hub, *map(self.namespace, hosts))
        batch(("ip",), (f"netns add {name}" for name in names))
        batch(("ip", "-n", self.hub), self._hub_links(hosts))
        batch(
            ("tc", "-n", self.hub),
            (line for c in self.cables for host in hosts for line in c.shaping(c.hub_end(host))),
        )

    def _hub_links(self, hosts: tuple[Host, ...]) -> Iterator[str]:
        for cable in self.cables:
            yield f"link add {cable.bridge} type bridge"
            yield f"link set {cable.bridge} up"
            for host in hosts:
                end, peer = cable.hub_end(host), f"{cable.interface} netns {self.namespace(host)}"
                yield f"link add {end} type veth peer name {peer}"
                yield f"link set {end} master {cable.bridge} gso_max_size {SEGMENT} up"

    def host_lines(self, host: Host) -> tuple[list[str], list[str]]:
        """Return the ip and the tc commands of a host's own end; they may be run again."""
        addresses = zip(self.cables, (host.address, host.hsn_address), strict=False)
        links = ["link set lo up"]
        for cable, number in addresses:
            links += [
                f"addr replace {number}/17 dev {cable.interface}",
                f"link set {cable.interface} gso_max_size {SEGMENT} up",
            ]
        return links, [line for cable in self.cables for line in cable.shaping(cable.interface)]

    def switch(self, host: Host, to: str, interface: str | None = None) -> None:
        """Turn a host's cables (or the one of this interface) up or down, at the hub's end."""
        chosen = (c for c in self.cables if interface in (None, c.interface))
        batch(("ip", "-n", self.hub), (f"link set {c.hub_end(host)} {to}" for c in chosen))

    def forget_neighbors(self, hosts: Iterable[Host]) -> None:
        """Have hosts look up each other's hardware address anew.

        A look-up that began while a cable was cut fails three seconds later, and every connection with it.
        """
        for host in hosts:
            batch(("ip", "-n", self.namespace(host)), ("neigh flush all",))

    def reshape(self, host: Host, rate: str) -> None:
        """Give both ends of a host's cables another rate."""
        cables = [replace(cable, rate=rate) for cable in self.cables]
        batch(("tc", "-n", self.hub), (line for c in cables for line in c.shaping(c.hub_end(host))))
        batch(("tc", "-n", self.namespace(host)), (line for c in cables for line in c.shaping(c.interface)))


def batch(tool: tuple[str, ...], lines: Iterable[str]) -> None:
    """Feed commands to one ``ip`` or ``tc`` process; raise LabError at the first that fails."""
    text = "".join(f"{line}\n" for line in lines)
    if not text:
        return
    done = subprocess.run((*tool, "-batch", "-"), input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(tool)}: {done.stderr.strip()}")


def namespaces_of(lab_id: str) -> list[str]:
    """List the network namespaces that a lab has left on this machine."""
    return sorted(path.name for path in NETNS.glob(f"ezpz-{lab_id}-*"))


def delete(names: Iterable[str]) -> None:
    """Delete network namespaces; the links inside them go with them."""
    batch(("ip",), (f"netns del {name}" for name in names))
