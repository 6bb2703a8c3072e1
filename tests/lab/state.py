"""The directory in which a lab keeps everything, who owns it, and how nothing of it is left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import network, procs
from tests.lab.model import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/var/tmp")
PREFIX = "ezpz-lab-"


class State:
    """A lab's directory, locked for as long as the process that made it lives.

    It lies on the disk that all hosts share: no host sees another's /tmp.
    """

    def __init__(self) -> None:
        """Make ``/var/tmp/ezpz-lab-ID`` with a ``shared`` and an ``ssh`` directory in it."""
        self.lab_id = secrets.token_hex(3)
        self.path = ROOT / f"{PREFIX}{self.lab_id}"
        self.path.mkdir()
        self._lock = os.open(self.path / "lock.new", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.path / "lock.new").rename(self.path / "lock")
        self.shared = self.path / "shared"
        self.ssh = self.path / "ssh"
        self.shared.mkdir()
        self.ssh.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the lab: its processes, its networks and its directory."""
        destroy(self.path)
        os.close(self._lock)


def labs(*, running: bool) -> Iterator[Path]:
    """Yield the labs of this user that nobody owns any more, or also the ``running`` ones."""
    for path in sorted(ROOT.glob(f"{PREFIX}*")):
        if path.stat().st_uid == os.getuid() and (running or _is_orphan(path)):
            yield path


def _is_orphan(path: Path) -> bool:
    try:
        lock = os.open(path / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def destroy(path: Path) -> None:
    """Remove what belongs to the lab of this directory, whoever made it and however it ended."""
    lab_id = path.name.removeprefix(PREFIX)
    networks = network.namespaces_of(lab_id)
    procs.kill_all({f"net:[{os.stat(network.NETNS / name).st_ino}]" for name in networks})
    procs.kill_all(_mount_namespaces(path))
    with contextlib.suppress(LabError):
        network.delete(networks)
    subprocess.run(["chmod", "-R", "u+rwX", str(path)], capture_output=True, check=False)
    shutil.rmtree(path)


def _mount_namespaces(path: Path) -> set[str]:
    """Return the mount namespaces, other than ours, of the processes that serve this lab."""
    servers = (pid for pid in procs.everyone() if any(str(path) in word for word in procs.argv(pid)))
    found = {procs.namespace_of(pid, "mnt") for pid in servers}
    return {name for name in found if name and name != procs.namespace_of("self", "mnt")}
