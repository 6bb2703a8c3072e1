"""Hosts made of network namespaces, as root: real wires, real sshd, private /tmp, one common disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import keys, network, procs
from tests.lab.faults import FaultyLab
from tests.lab.model import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTENING = "0A"
SSH_PORT = "0016"


class Lab(FaultyLab):
    """``count`` hosts on one bridge; with ``hsn`` each has a second, faster name ``nXXX-hsn0``.

    ``rate`` and ``hsn_rate`` shape both ends of every cable as ``tc`` spells rates (``100mbit``); None does not.
    ``latency`` is how long a packet may queue for that rate. ``python`` is what ``python3`` means in an ssh session.
    """

    def __init__(
        self,
        count: int = 4,
        *,
        rate: str | None = None,
        latency: str = "50ms",
        hsn: bool = False,
        hsn_rate: str | None = None,
        domain: str = "lab.ezpz",
        tmp_size: str = "2g",
        python: str = "/usr/bin/python3",
    ) -> None:
        """Describe the lab; entering it starts the hosts."""
        super().__init__(count, domain=domain, tmp_size=tmp_size, python=python)
        cables = (network.Cable("eth0", rate, latency),)
        self._cut: set[str] = set()
        self._cables = (*cables, network.Cable("hsn0", hsn_rate, latency)) if hsn else cables

    def _prepare(self) -> None:
        self.hosts = tuple(self._describe(index) for index in range(self.count))
        self._network = network.Network(self._live.lab_id, self._cables)
        self._network.create(self.hosts)
        self._write_keys()
        keys.write_user(self._live.ssh, self.hosts, self.state)
        shadow = self.state / "shadow"
        shadow.write_text("root:*:19000:0:99999:7:::\n")
        shadow.chmod(0o600)
        Path("/run/sshd").mkdir(exist_ok=True)
        for host in self.hosts:
            keys.write_sshd(host, self.state, python=self.python)
            script = self.state / host.name / "boot"
            script.write_text("".join(f"{line}\n" for line in self._boot_lines(host)))

    def _describe(self, index: int) -> Host:
        name, lab_id = f"n{index:03d}", self._live.lab_id
        hsn = network.address(lab_id, index, hsn=True) if len(self._cables) > 1 else None
        return Host(index, name, f"{name}.{self.domain}", network.address(lab_id, index), hsn)

    def _boot_lines(self, host: Host) -> Iterator[str]:
        ip, tc = self._network.host_lines(host)
        yield "set -e"
        yield f"hostname {host.name}"
        yield "mount --make-rprivate /"
        # Else this host keeps the networks of every other lab alive until it ends itself.
        yield f"umount -l {network.NETNS}"
        yield from ("ip -batch - <<'.'", *ip, ".")
        yield from ("tc -batch - <<'.'", *tc, ".") if tc else ()
        yield f"mount -t tmpfs -o mode=1777,size={self.tmp_size} tmpfs /tmp"
        yield "mount -t tmpfs -o mode=1777 tmpfs /dev/shm"
        yield f"mount --bind {self.state}/hosts /etc/hosts"
        # Without PAM, sshd turns away a root whose password is locked, as it is on Ubuntu.
        yield f"mount --bind {self.state}/shadow /etc/shadow"
        yield from self._home_lines(host)
        yield f"exec {keys.SSHD} -D -e -f {self.state}/{host.name}/sshd_config"

    def _boot_argv(self, host: Host) -> list[str]:
        namespace = network.NETNS / self._network.namespace(host)
        boot = self.state / host.name / "boot"
        return ["nsenter", f"--net={namespace}", "unshare", "-m", "-u", "--", "sh", str(boot)]

    def _enter_argv(self, host: Host) -> list[str]:
        return ["nsenter", "-t", str(self._holders[host.name].pid), "-n", "-m", "-u", "--"]

    def _namespace(self, host: Host) -> str:
        return self._network.identity(host)

    def _is_up(self, host: Host) -> bool:
        pid = self._holders[host.name].pid
        if procs.namespace_of(pid, "net") != self._namespace(host):
            return False
        with open(f"/proc/{pid}/net/tcp") as table:
            rows = [line.split() for line in table]
        return any(row[1].endswith(f":{SSH_PORT}") and row[3] == LISTENING for row in rows)

    def cut(self, host: Host | str, interface: str | None = None) -> None:
        """Take the cable (or the one of this interface) out: packets vanish, nobody is told."""
        host = self._alter(host)
        self._cut.add(host.name)
        self._network.switch(host, "down", interface)

    def reshape(self, host: Host | str, rate: str) -> None:
        """Give a host's cables another rate, in both directions."""
        self._network.reshape(self._alter(host), rate)

    def mend(self, host: Host | str, interface: str | None = None) -> None:
        """Put the cable back in."""
        host = self.host(host)
        self._network.switch(host, "up", interface)
        if host.name in self._cut:
            self._cut.discard(host.name)
            self._network.forget_neighbors(self.hosts)


def why_not() -> str | None:
    """Return why this machine cannot have such hosts; None when it can."""
    if os.geteuid():
        return "network namespaces need root"
    return None
