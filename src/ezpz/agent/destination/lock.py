"""The lock of a destination."""

import fcntl
import json
import os
import signal
import stat
import time
from contextlib import suppress
from typing import Any, Dict

from ..common.errors import AgentError
from ..common.filesystem import beside, user_name
from ..common.text import printable_path
from .lock_holder import CONTENT_LIMIT

KILL_TIMEOUT = 3.0  # seconds for a process that is killed to end


class Lock:
    """The right to change a destination on this host, which ends with the process that holds it.

    A file `.NAME.ezpz-lock` next to the destination, locked with flock(2), names the holder.
    """

    def __init__(self, dst: bytes, run: str) -> None:
        """Take the destination, and the ID of the run."""
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
        """Take the lock. Raise AgentError if another run holds it, or another host of this run does."""
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
                _lock(fd, timeout=KILL_TIMEOUT)
            if not _lock(fd):
                os.close(fd)
                raise AgentError(
                    "destination-busy",
                    "another run holds the destination: {}".format(_describe(holder)),
                    "wait for it to end, or choose another place with --dst",
                )
            if self._is_in_place(fd):
                self.fd = fd
                os.ftruncate(fd, 0)
                os.pwrite(fd, self.content, 0)
                return
            os.close(fd)

    @staticmethod
    def _end_predecessor(pid: int) -> None:
        """End an agent of the same run on this host: it hung, was abandoned, and this one was started instead."""
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
        """Give up the lock, if it is held."""
        if self.fd >= 0:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
            os.close(self.fd)
            self.fd = -1

    def _is_in_place(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.path))
        except FileNotFoundError:
            return False

    @staticmethod
    def _holder(fd: int) -> Dict[str, Any]:
        try:
            found = json.loads(os.pread(fd, CONTENT_LIMIT, 0).decode("utf-8"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _lock(fd: int, timeout: float = 0.0) -> bool:
    """Lock a file within a timeout in seconds. Return whether that succeeded."""
    deadline = time.monotonic() + timeout
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
