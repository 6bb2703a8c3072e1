"""What every kind of lab can do with its hosts, over the few verbs that each kind supplies."""

from __future__ import annotations

import atexit
import os
import shlex
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.lab import keys, procs
from tests.lab.model import Host, LabError
from tests.lab.state import State
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

Kind = TypeVar("Kind", bound="BaseLab")


class BaseLab(ABC):
    """Hosts ``n000`` ... that reach one another by ssh; a context manager that leaves nothing behind.

    A host is given by itself or by its short name. ``shared`` is a fresh directory that every host sees.
    ``after_boot`` holds what to call with a host each time it has come up.
    """

    def __init__(self, count: int, *, domain: str, tmp_size: str, python: str) -> None:
        """Describe a lab of ``count`` hosts; nothing is started before it is entered."""
        self.count = count
        self.domain = domain
        self.tmp_size = tmp_size
        self.python = python
        self.hosts: tuple[Host, ...] = ()
        self.after_boot: list[Callable[[Host], None]] = []
        self.services: set[int] = set()
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._altered: set[str] = set()
        self._state: State | None = None

    # What a kind of lab supplies.

    @abstractmethod
    def _prepare(self) -> None:
        """Set ``hosts`` and make what outlives a reboot: networks, keys, configuration."""

    @abstractmethod
    def _boot_argv(self, host: Host) -> list[str]:
        """Return what becomes the host's sshd, inside its own namespaces."""

    @abstractmethod
    def _enter_argv(self, host: Host) -> list[str]:
        """Return what a command on this host begins with; each word of it replaces itself by the next."""

    @abstractmethod
    def _namespace(self, host: Host) -> str | None:
        """Return the identity of the namespace that only this host's processes are in; None: it has none."""

    @abstractmethod
    def _is_up(self, host: Host) -> bool:
        """Tell whether the host's sshd listens."""

    # From nothing to running hosts and back.

    def __enter__(self: Kind) -> Kind:
        """Bring every host up; return once each one's sshd listens."""
        self._state, self._owner = State(), os.getpid()
        atexit.register(self.close)
        try:
            self._prepare()
            self._boot(self.hosts)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove every trace of the lab."""
        self.close()

    def close(self) -> None:
        """Remove every trace of the lab; safe to call again, and harmless in a forked child."""
        if self._state is None or self._owner != os.getpid():
            return
        state, self._state = self._state, None
        atexit.unregister(self.close)
        state.remove()
        for holder in self._holders.values():
            holder.wait()

    @property
    def state(self) -> Path:
        """The lab's own directory: keys, configuration, a log for each host."""
        return self._live.path

    @property
    def shared(self) -> Path:
        """A directory on the disk that all hosts have in common."""
        return self._live.shared

    @property
    def _live(self) -> State:
        if self._state is None:
            raise LabError("the lab is not up")
        return self._state

    def _boot(self, hosts: Iterable[Host]) -> None:
        hosts = tuple(hosts)
        for host in hosts:
            (self.state / host.name / "bashrc").write_text("")
            with open(self.state / host.name / "log", "ab") as log:
                self._holders[host.name] = subprocess.Popen(
                    self._boot_argv(host), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        deadline = time.monotonic() + DEADLINE
        for host in hosts:
            while not self._is_up(host):
                if self._holders[host.name].poll() is not None or time.monotonic() > deadline:
                    raise LabError(f"{host.name} did not come up:\n{(self.state / host.name / 'log').read_text()}")
                time.sleep(0.005)
        self._altered.difference_update(host.name for host in hosts)
        for host in hosts:
            for hook in self.after_boot:
                hook(host)

    def _write_keys(self) -> None:
        """Make each host's directory, key and sshd_config, and the ~/.ssh that all of them mount."""
        for host in self.hosts:
            (self.state / host.name).mkdir()
        user = self._live.ssh / "id_ed25519"
        keys.generate([user, *(keys.host_key(host, self.state) for host in self.hosts)])
        (self.state / "bin").mkdir()
        (self.state / "bin" / "python3").symlink_to(self.python)
        rows = "".join(f"{address} {' '.join(names)}\n" for host in self.hosts for address, names in host.names)
        (self.state / "hosts").write_text(f"127.0.0.1 localhost\n{rows}")
        (Path.home() / ".ssh").mkdir(mode=0o700, exist_ok=True)
        (Path.home() / ".bashrc").touch()

    def _home_lines(self, host: Host) -> Iterator[str]:
        """Yield the shell commands that hide the developer's own ssh and bash configuration from a host."""
        for private, name in ((self._live.ssh, ".ssh"), (self.state / host.name / "bashrc", ".bashrc")):
            yield f"mount --bind {private} {shlex.quote(str(Path.home() / name))}"

    # Commands on a host.

    def host(self, host: Host | str) -> Host:
        """Return the host of this short name."""
        return host if isinstance(host, Host) else next(h for h in self.hosts if h.name == host)

    def argv(self, host: Host | str, argv: Sequence[str | os.PathLike[str]], cwd: Path | None = None) -> list[str]:
        """Return the command that runs ``argv`` on a host, in ``cwd`` as that host sees it (else ``shared``)."""
        words = [os.fspath(word) for word in argv]
        return [*self._enter_argv(self.host(host)), "env", "-C", str(cwd or self.shared), *words]

    def run(
        self,
        host: Host | str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = DEADLINE,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run gives it
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host as a shell there would, and return what it printed.

        ``env`` replaces the environment. Raises LabError with the output when it fails, unless ``check`` is off.
        """
        done = subprocess.run(
            self.argv(host, argv, cwd),
            env=env,
            timeout=timeout,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise LabError(f"{list(argv)} on {host}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def popen(
        self, host: Host | str, argv: Sequence[str | os.PathLike[str]], *, cwd: Path | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command on a host; its pid is the command's own, so signals arrive. Options are Popen's."""
        return subprocess.Popen(self.argv(host, argv, cwd), text=True, **options)

    def path(self, host: Host | str, path: str | os.PathLike[str]) -> Path:
        """Return where this process finds a host's own file, such as its /tmp/x; follow no absolute link there."""
        holder = self._holders[self.host(host).name]
        return Path(f"/proc/{holder.pid}/root") / os.fspath(path).lstrip("/")

    def write_hostfile(self, path: Path, *, fqdn: bool = False, slots: int = 1) -> Path:
        """Write every host's name, ``slots`` lines each, as schedulers do; return the path."""
        names = (host.fqdn if fqdn else host.name for host in self.hosts)
        path.write_text("".join(f"{name}\n" * slots for name in names))
        return path

    def processes(self, host: Host | str) -> list[tuple[int, tuple[str, ...]]]:
        """List pid and argv of what runs on a host besides sshd's listener, ``services`` and what they forked."""
        host = self.host(host)
        ours = {self._holders[host.name].pid, *self.services}
        found = [pid for pid in procs.members(self._own(host)) if pid not in ours]
        rest = ((pid, procs.argv(pid)) for pid in found if procs.parent(pid) not in self.services)
        return [(pid, argv) for pid, argv in rest if argv]

    def _own(self, host: Host) -> set[str]:
        namespace = self._namespace(host)
        return {namespace} if namespace else set()
