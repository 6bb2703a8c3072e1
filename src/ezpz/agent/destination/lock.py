"""The lock of a destination: who may change what stands there."""

import fcntl
import json
import os
import signal
import stat
import time
from contextlib import suppress
from typing import Any, Dict

from ezpz.agent.common.errors import AgentError
from ezpz.agent.common.filesystem import beside, user_name
from ezpz.agent.common.text import printable_path

PATIENCE = 3.0  # seconds for a process that is killed to go


class Lock:
    """The right to change what stands at a destination on this host; it ends with the process that holds it.

    A file `.NAME.ezpz-lock` beside the destination, locked with flock(2), says who holds it.
    """

    def __init__(self, dst: bytes, run: str) -> None:
        self.path = beside(dst, b".ezpz-lock")
        self.run = run
        self.fd = -1
        self.host = host = os.uname().nodename
        self.content = json.dumps(
            {
                "run": run,
                "host": host,
                "user": user_name(os.geteuid()),
                "pid": os.getpid(),
                "since": int(time.time()),
            }
        ).encode()

    def acquire(self) -> None:
        """Raise Refusal when another run holds the destination, or when another host of this run already does."""
        while True:
            fd = self._open()
            holder = self._holder(fd)
            if holder.get("run") == self.run and holder.get("host") != self.host:
                os.close(fd)
                message = "the destination is shared with node {}: '{}' is not node-local".format(
                    holder.get("host"), printable_path(os.path.dirname(self.path))
                )
                raise AgentError(
                    "destination-refused", message, "choose a place on node-local disk, as in --dst /tmp/NAME"
                )
            if holder.get("run") == self.run and not _lock(fd):
                self._end_predecessor(int(holder.get("pid", 0)))
                _lock(fd, patience=PATIENCE)
            if not _lock(fd):
                os.close(fd)
                raise AgentError(
                    "destination-busy",
                    "another run holds the destination: {}".format(_describe(holder)),
                    "wait for it to end, or choose another place with --dst",
                )
            if self._still_there(fd):
                self.fd = fd
                os.ftruncate(fd, 0)
                os.pwrite(fd, self.content, 0)
                return
            os.close(fd)

    @staticmethod
    def _end_predecessor(pid: int) -> None:
        """End an agent of this very run on this host that hangs: somebody gave it up, and started this one."""
        if pid > 1 and pid != os.getpid():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(self.path, flags, 0o600)
        except OSError:
            if not os.path.lexists(self.path):
                raise
            raise self._not_ours(os.lstat(self.path))
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            os.close(fd)
            raise self._not_ours(status)
        return fd

    def _not_ours(self, status: os.stat_result) -> AgentError:
        sound = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        whose = user_name(status.st_uid) + ("" if sound else ", and is no lock of ours")
        message = "the lock '{}' belongs to {}".format(printable_path(self.path), whose)
        return AgentError("destination-not-ours", message, "choose another name with --dst")

    def release(self) -> None:
        """Give the destination up; harmless when it is not held."""
        if self.fd >= 0:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
            os.close(self.fd)
            self.fd = -1

    def _still_there(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.path))
        except FileNotFoundError:
            return False

    @staticmethod
    def _holder(fd: int) -> Dict[str, Any]:
        try:
            found = json.loads(os.pread(fd, 4096, 0).decode("utf-8"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _lock(fd: int, patience: float = 0.0) -> bool:
    """Whether the lock could be had within so many seconds."""
    deadline = time.monotonic() + patience
    while not _try_lock(fd):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _describe(holder: Dict[str, Any]) -> str:
    if not holder:
        return "it has not said who it is yet"
    since = time.strftime("%H:%M:%S", time.localtime(float(holder.get("since", 0))))
    return "run {run} of {user} on {host}, process {pid}, since {since}".format(**dict(holder, since=since))
