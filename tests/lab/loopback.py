"""Hosts made of user namespaces, without root: 127.0.0.x and a port instead of wires of their own."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

from tests.lab import keys, procs
from tests.lab.faults import FaultyLab
from tests.lab.model import Host, LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

PARENT = "user-namespace"
ENTER = ("unshare", "-U", "-r", "-m", "-u")


class LoopbackLab(FaultyLab):
    """``count`` hosts with their own name, /tmp and sshd, on the loopback addresses of this machine.

    They share one network: there are no rates, no second interface, and no cable to cut.
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
        """Describe the lab; raises LabUnavailable for what needs cables."""
        if rate or hsn or hsn_rate:
            raise LabUnavailable("rates and high-speed interfaces need network namespaces, so root")
        super().__init__(count, domain=domain, tmp_size=tmp_size, python=python)
        self._namespaces: dict[str, str] = {}

    def _prepare(self) -> None:
        base = int(self._live.lab_id, 16) % 250 + 2
        self.hosts = tuple(
            Host(index, f"n{index:03d}", f"n{index:03d}.{self.domain}", f"127.{base}.{index // 250}.{index % 250 + 2}")
            for index in range(self.count)
        )
        self._port = _free_port(self.hosts[0].address)
        self._write_keys()
        keys.write_user(self._live.ssh, self.hosts, self.state, port=self._port)
        for host in self.hosts:
            keys.write_sshd(host, self.state, address=host.address, port=self._port, python=self.python)
            (self.state / host.name / "boot").write_text("".join(f"{line}\n" for line in self._boot_lines(host)))

    def _boot_lines(self, host: Host) -> Iterator[str]:
        yield "set -e"
        yield f"hostname {host.name}"
        yield f"touch {self.state}/{host.name}/{PARENT}"
        yield f"mount --bind /proc/self/ns/user {self.state}/{host.name}/{PARENT}"
        yield f"mount -t tmpfs -o mode=1777,size={self.tmp_size} tmpfs /tmp"
        yield "mount -t tmpfs -o mode=1777 tmpfs /dev/shm"
        yield f"mount --bind {self.state}/hosts /etc/hosts"
        yield from self._home_lines(host)
        yield f"exec {shlex.join(_as_user())} {keys.SSHD} -D -e -f {self.state}/{host.name}/sshd_config"

    def _boot_argv(self, host: Host) -> list[str]:
        return [*ENTER, "--", "sh", str(self.state / host.name / "boot")]

    def _enter_argv(self, host: Host) -> list[str]:
        return [*self._enter_as_root(host), *_as_user()]

    def _enter_as_root(self, host: Host) -> list[str]:
        # The sshd lives one user namespace deeper, where it is a plain user; the mounts belong to its parent's.
        parent = self.path(host, self.state / host.name / PARENT)
        target = str(self._holders[host.name].pid)
        return ["nsenter", f"--user={parent}", "--preserve-credentials", "-t", target, "-m", "-u", "--"]

    def _as_root(self, host: Host, script: str) -> None:
        subprocess.run([*self._enter_as_root(host), "sh", "-ec", script], check=True, capture_output=True)

    def _namespace(self, host: Host) -> str | None:
        return self._namespaces.get(host.name)

    def _is_up(self, host: Host) -> bool:
        namespace = procs.namespace_of(self._holders[host.name].pid, "mnt")
        if namespace is None or namespace == procs.namespace_of("self", "mnt"):
            return False
        self._namespaces[host.name] = namespace
        with socket.socket() as probe:
            return probe.connect_ex((host.address, self._port)) == 0

    def cut(self, host: Host | str, interface: str | None = None) -> None:
        """Raise LabUnavailable: there is no cable."""
        raise LabUnavailable("a cable to cut needs network namespaces, so root")

    def reshape(self, host: Host | str, rate: str) -> None:
        """Raise LabUnavailable: there is no cable."""
        raise LabUnavailable("a cable with a rate needs network namespaces, so root")

    def mend(self, host: Host | str, interface: str | None = None) -> None:
        """Do nothing: no cable was cut."""


def _as_user() -> list[str]:
    return ["unshare", "-U", f"--map-user={os.getuid()}", f"--map-group={os.getgid()}", "--"]


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def why_not() -> str | None:
    """Return why this machine cannot have such hosts; None when it can."""
    missing = [tool for tool in ("ssh", "ssh-keygen", "nsenter", "unshare", keys.SSHD) if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    tried = subprocess.run([*ENTER, "--", *_as_user(), "true"], capture_output=True, text=True, check=False)
    return f"user namespaces: {tried.stderr.strip()}" if tried.returncode else None
