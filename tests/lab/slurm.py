"""Slurm for a lab: a real controller on the first host, a real daemon on each, so that salloc and srun work there."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.hosts import Lab
from tests.lab.model import Host, LabError, LabUnavailable
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from tests.lab.faults import FaultyLab

CONFIG = """\
ClusterName=lab
SlurmctldHost={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
PropagateResourceLimits=NONE
KillWait=2
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.%n.log
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldParameters=enable_configless
NodeName={names} CPUs=8 RealMemory=1000 State=UNKNOWN
PartitionName=lab Nodes={names} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
"""


class Slurm:
    """Slurm on the ``hosts`` of a lab (all, when not said), for as long as the context lasts.

    The clients are run through ``lab.run("n000", ...)`` and find their configuration in /etc/slurm, as anywhere.
    A host that is rebooted by the lab rejoins by itself. ``more`` is added to its configuration.
    """

    def __init__(self, lab: FaultyLab, hosts: Sequence[Host] = (), *, more: str = "") -> None:
        """Describe Slurm on a lab that is up; raise LabUnavailable where it cannot be."""
        if not isinstance(lab, Lab):
            raise LabUnavailable("Slurm's daemons need hosts made of network namespaces, so root")
        missing = [tool for tool in ("slurmctld", "slurmd", "munged", "srun") if shutil.which(tool) is None]
        if missing:
            raise LabUnavailable(f"not installed: {', '.join(missing)}")
        self.lab = lab
        self.hosts = tuple(hosts) or lab.hosts
        self.more = more
        self.directory = lab.state / "slurm"
        self._daemons: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Slurm:
        """Start the daemons; return once every node is idle."""
        self._write()
        try:
            for host in self.lab.hosts:
                self._join(host)
            self.lab.after_boot.append(self._join)
            self._await(self._idle, "slurmctld and slurmd")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the daemons."""
        self.close()

    def close(self) -> None:
        """Stop the daemons; the jobs end with their hosts."""
        if self._join in self.lab.after_boot:
            self.lab.after_boot.remove(self._join)
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()
        self.lab.services.difference_update(daemon.pid for daemon in self._daemons)

    def _write(self) -> None:
        self.directory.mkdir(mode=0o755)
        (self.directory / "state").mkdir()
        for host in self.hosts:
            (self.directory / f"spool.{host.name}").mkdir()
        key = self.directory / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        etc = self.directory / "etc"
        etc.mkdir()
        names = ",".join(host.name for host in self.hosts)
        controller = self.lab.hosts[0].name
        config = CONFIG.format(controller=controller, directory=self.directory, names=names)
        (etc / "slurm.conf").write_text(config + self.more)
        (etc / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def _join(self, host: Host) -> None:
        """Give a host its configuration and start what belongs on it."""
        self.lab.run(host, ["mount", "--bind", self.directory / "etc", "/etc/slurm"])
        if host == self.lab.hosts[0]:
            self._start_munge(host)
            self._start(host, ["slurmctld", "-D"])
        if host in self.hosts:
            self._start(host, ["slurmd", "-D", "-N", host.name])

    def _start_munge(self, host: Host) -> None:
        socket = self.directory / "munge.socket"
        socket.unlink(missing_ok=True)
        files = [f"--{what}-file={self.directory}/munge.{what}" for what in ("key", "log", "pid", "seed")]
        self._start(host, ["munged", "--foreground", "--force", f"--socket={socket}", *files])
        self._await(socket.exists, "munged")

    def _start(self, host: Host, argv: list[str]) -> None:
        with open(self.directory / "daemons.log", "ab") as log:
            daemon = self.lab.popen(host, argv, cwd=Path("/"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._daemons.append(daemon)
        self.lab.services.add(daemon.pid)

    def _idle(self) -> bool:
        shown = self.lab.run("n000", ["sinfo", "--noheader", "-o", "%t %D"], check=False, env=dict(os.environ))
        return shown.stdout.split() == ["idle", str(len(self.hosts))]

    def _await(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-2000:] for path in sorted(self.directory.glob("*.log")))
                raise LabError(f"{what} not ready after {DEADLINE} s:\n{logs}")
            time.sleep(0.05)
