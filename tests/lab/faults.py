"""What goes wrong with a host, on purpose, and how it is put right again."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from abc import abstractmethod
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests.lab import procs
from tests.lab.base import BaseLab
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.model import Host

FILLER = ".lab-filler"
SSH_PATH = "/usr/local/bin:/usr/bin:/bin"


class FaultyLab(BaseLab):
    """A lab whose hosts can be broken; ``reboot`` and ``clean`` undo each of these faults."""

    @abstractmethod
    def cut(self, host: Host | str, interface: str | None = None) -> None:
        """Take the cable (or the one of this interface) out: packets vanish, nobody is told."""

    @abstractmethod
    def reshape(self, host: Host | str, rate: str) -> None:
        """Give a host's cables another rate, in both directions, as ``tc`` spells it."""

    @abstractmethod
    def mend(self, host: Host | str, interface: str | None = None) -> None:
        """Put the cable back in."""

    def kill(self, host: Host | str) -> None:
        """End a host: SIGKILL for everything on it. Its /tmp is lost, and its ports refuse."""
        procs.kill_all(self._own(self._alter(host)))
        self._holders[self.host(host).name].wait()

    def freeze(self, host: Host | str) -> None:
        """Hang a host: SIGSTOP for everything on it, sshd too. Connections open and then say nothing."""
        procs.freeze_all(self._own(self._alter(host)))

    def thaw(self, host: Host | str) -> None:
        """Let a frozen host go on."""
        procs.send(procs.members(self._own(self.host(host))), signal.SIGCONT)

    def fill(self, host: Host | str, leave_bytes: int) -> None:
        """Fill a host's /tmp so that ``leave_bytes`` stay free (to a page); 0 leaves nothing."""
        filler = self.path(self._alter(host), f"/tmp/{FILLER}")
        filler.unlink(missing_ok=True)
        free = os.statvfs(filler.parent)
        size = free.f_bavail * free.f_frsize - leave_bytes
        if size > 0:
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)

    @contextmanager
    def on_disk(self, host: Host | str, size: int) -> Iterator[Path]:
        """Give a host an ext4 disk of its own in place of its /tmp, which `hang` can hang; within it.

        At the end the disk goes on, since nothing that waits for it can be ended before.
        """
        host = self._alter(host)
        image = self.state / host.name / "disk"
        with image.open("wb") as file:
            file.truncate(size)
        self._as_root(host, f"mkfs.ext4 -q -F {image}; mount -o loop {image} /tmp; chmod 1777 /tmp")
        try:
            yield self.path(host, "/tmp")
        finally:
            with suppress(subprocess.CalledProcessError):  # it does not hang
                self.run(host, ["fsfreeze", "--unfreeze", "/tmp"])
            self._as_root(host, "umount -l /tmp")  # the loop device goes with the last process that uses it
            image.unlink()

    def hang(self, host: Host | str) -> None:
        """Make every write to a disk of `on_disk` wait; reading goes on."""
        self.run(self.host(host), ["fsfreeze", "--freeze", "/tmp"])

    def mount_noexec(self, host: Host | str) -> None:
        """Forbid a host to execute what lies in its /tmp."""
        self._as_root(self._alter(host), "mount -o remount,bind,noexec /tmp")

    def bashrc(self, host: Host | str, text: str) -> None:
        """Give one host its own ~/.bashrc, which bash reads also for commands that come by ssh."""
        (self.state / self._alter(host).name / "bashrc").write_text(text)

    def cover(self, host: Host | str, path: str | os.PathLike[str], content: str) -> None:
        """Show other content in place of a file, on one host only."""
        host = self._alter(host)
        cover = self.state / host.name / f"cover-{os.path.basename(path)}"
        cover.write_text(content)
        self._as_root(host, f"mount --bind {shlex.quote(str(cover))} {shlex.quote(str(path))}")

    def without(self, host: Host | str, *tools: str) -> None:
        """Make programs vanish from where ssh finds them on one host, as if never installed; name all in one call."""
        host = self._alter(host)
        for number, directory in enumerate(sorted({os.path.realpath(place) for place in SSH_PATH.split(":")})):
            names = " ".join(tool for tool in tools if os.path.lexists(f"{directory}/{tool}"))
            # A bind mount could only make a tool fail to start; a whiteout makes it unknown.
            layer = self.state / host.name / f"without-{number}"
            script = (
                f"mkdir -p {layer}; mount -t tmpfs tmpfs {layer}; cd {layer}; mkdir upper work; "
                f"for tool in {names}; do mknod upper/$tool c 0 0; done; "
                f"mount -t overlay overlay -o lowerdir={directory},upperdir=upper,workdir=work {directory}"
            )
            if names:
                self._as_root(host, script)

    def _as_root(self, host: Host, script: str) -> None:
        self.run(host, ["sh", "-ec", script])

    def _alter(self, host: Host | str) -> Host:
        host = self.host(host)
        self._altered.add(host.name)
        return host

    def reboot(self, *hosts: Host | str) -> None:
        """Restart hosts from scratch: cables in, empty /tmp, nothing running but sshd."""
        chosen = [self.host(host) for host in hosts]
        for host in chosen:
            procs.kill_all(self._own(host))
            self._holders[host.name].wait()
            if host.name in self._altered:
                self.mend(host)
        self._boot(chosen)

    def clean(self, patience: float = DEADLINE) -> list[str]:
        """Make every host as new; return what still ran, after ``patience`` seconds, on hosts nobody broke."""
        whole = [host for host in self.hosts if host.name not in self._altered]
        deadline = time.monotonic() + patience
        while any(map(self.processes, whole)) and time.monotonic() < deadline:
            time.sleep(0.01)
        leaks = [(host, pid, argv) for host in whole for pid, argv in self.processes(host)]
        procs.send([pid for _, pid, _ in leaks], signal.SIGKILL)
        for host in whole:
            for private in ("/tmp", "/dev/shm"):
                _empty(self.path(host, private))
        self.reboot(*(host for host in self.hosts if host.name in self._altered))
        return [f"{host.name}: {pid} {' '.join(argv)}" for host, pid, argv in leaks]


def _empty(directory: Path) -> None:
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
