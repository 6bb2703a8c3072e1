"""The port that every launcher implements, what a launcher is given, and the registry that finds launchers.

A launcher is one file with a tuple of `Launcher`s and one line in the entry-point group `ezpz.launchers`:

    [project.entry-points."ezpz.launchers"]
    aprun = "my_package.aprun:CANDIDATES"

A tuple, because a launcher may be asked twice: `local` is the second candidate, and the last resort as well.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from ezpz.errors import PluginError, TimedOut, ToolMissing, UsageError
from ezpz.remote.transports import SshTransport
from ezpz.runtime import process
from ezpz.runtime.plugins import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ezpz.cluster.allocation import Allocation
    from ezpz.cluster.schedulers.base import JobSystem
    from ezpz.launch.launchers.failure_signs import Sign
    from ezpz.launch.launchers.output_labels import Label
    from ezpz.runtime.process import Running

HOSTFILE = "HOSTFILE"  # the first one in an argv stands for the path of the hostfile, which execute() writes
PATIENCE = 10.0  # seconds for `mpiexec --version`


class Tools(Protocol):
    """The programs on PATH of this host."""

    def path(self, name: str) -> str:
        """Where the program is, links resolved, or "" if it is not on PATH."""

    def version(self, name: str) -> str:
        """What `NAME --version` prints."""


@dataclass(frozen=True)
class PathTools:
    """The programs on PATH, each asked for its version at most once."""

    def path(self, name: str) -> str:
        """Where the program is, links resolved, or "" if it is not on PATH."""
        found = shutil.which(name)
        return os.path.realpath(found) if found else ""

    def version(self, name: str) -> str:
        """What `NAME --version` prints, on whatever stream; "" when it cannot say within 10 s."""
        return _version(name)


@functools.cache
def _version(name: str) -> str:
    try:
        done = process.run((name, "--version"), timeout=PATIENCE)
    except (ToolMissing, TimedOut):
        return ""
    return f"{done.out}\n{done.err}"


@dataclass(frozen=True, slots=True)
class RankNames:
    """The variables by which a launcher tells a rank who it is; "" for what it does not tell.

    tasks: one that lists the ranks of all nodes, as Slurm writes it: 12(x3),4
    has_devices: the launcher itself gives each rank its accelerators
    """

    rank: str
    size: str
    local_rank: str = ""
    local_size: str = ""
    node_rank: str = ""
    tasks: str = ""
    has_devices: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be started: `ranks` copies of `command`, `ppn` a node, on the nodes of `allocation` and no others.

    options: words for the launcher's own line, the site's first, then the user's
    cpu_bind: in the launcher's own words, or ""
    program: what the launcher is called here, if it has several names; chosen: the user wants no other
    system: the scheduler whose job has the nodes, also when --hosts or --hostfile chose among them; None for none
    """

    command: tuple[str, ...]
    allocation: Allocation
    ranks: int
    ppn: int
    environ: Mapping[str, str]
    options: tuple[str, ...] = ()
    cpu_bind: str = ""
    gpus_per_rank: int | None = None
    program: str = "mpiexec"
    chosen: bool = False
    system: JobSystem | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """What an mpiexec calls the nodes: in a job as the scheduler does, for it may ask that one; else by address."""
        return tuple(node.given if self.system else node.address for node in self.allocation.nodes)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a launcher can start this job here, and in words, why or why not. `program`: by which of its names."""

    able: bool
    why: str
    program: str = "mpiexec"


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command line to run here.

    hostfile: the content of the file that HOSTFILE in `argv` stands for
    ranks: what each copy's environment gets, if this host starts the ranks itself; one copy otherwise
    exit_line: what the launcher prints of a failure that its own status may not tell; the group `lost` is a node that
        has gone, every other group is for `Launcher.rank_status`
    lost_line: what is printed of a node that cannot be reached, if the launcher may then wait for its ranks for ever
    """

    argv: tuple[str, ...]
    hostfile: str = ""
    ranks: tuple[Mapping[str, str], ...] = field(default=({},))
    exit_line: str = ""
    lost_line: str = ""


class Launcher(ABC):
    """One way to start ranks; the members that a launcher leaves out fit a program like `mpiexec`.

    name: what users call it
    order: launchers are asked in this order, and the first that can start the job is taken: 10 srun, 20 local, 30 pals,
        40 hydra, 50 openmpi, 1000 local again
    is_local: its processes are the ranks themselves
    ranks: the variables by which its ranks know who they are; None if they need no wrapper for that
    label: how it can be asked to tell which rank says what; None if it cannot
    signs: what it prints when a rank or a node fails
    files: the options, as a regular expression, by which it writes what ranks say into files: what they report does not
        come here then
    """

    name: ClassVar[str]
    order: int
    is_local: ClassVar[bool] = False
    ranks: ClassVar[RankNames | None] = None
    label: ClassVar[Label | None] = None
    signs: ClassVar[tuple[Sign, ...]] = ()
    files: ClassVar[str] = ""

    @abstractmethod
    def judge(self, job: Job, tools: Tools, /) -> Verdict:
        """Return whether it can start this job here."""

    @abstractmethod
    def invocation(self, job: Job) -> Invocation:
        """Return the command line that does; `command` is already the wrapped one."""

    def writes_files(self, options: Sequence[str]) -> bool:
        """Return whether these options have it write what ranks say into files."""
        return bool(self.files) and any(re.fullmatch(self.files, word.partition("=")[0]) for word in options)

    def label_for(self, options: Sequence[str]) -> Label | None:
        """Return how it can label what ranks say; None if it cannot, or if these options of the user do so already."""
        return self.label if self.label is not None and self.label.users.isdisjoint(options) else None

    def forward_signal(self, running: Running, number: int, _job: Job) -> None:
        """Send a signal to the ranks: by default to the launcher alone, which tells them.

        An mpiexec whose ssh processes are ended together with it could tell them nothing.
        """
        running.send_signal(number)

    def exit_status(self, status: int, signals: Sequence[int]) -> int:
        """Return the status of a launcher that got these signals, which ask to end, as a shell would tell it. Pure.

        MPICH's own may be the bare number of one of them, or 255.
        """
        return 128 + signals[0] if signals and status in (*signals, 255) else status

    def rank_status(self, status: int, _told: Mapping[str, bytes | None]) -> int:
        """Return the status of the first rank that failed; `told`: the groups of `Invocation.exit_line`. Pure."""
        return status

    def transport(self, _environ: Mapping[str, str]) -> str:
        """Return the name of the transport by which nodes that it starts ranks on are asked something."""
        return SshTransport.name


LAUNCHERS: Registry[tuple[Launcher, ...]] = Registry("ezpz.launchers", "launcher")


def installed(evidence: list[str]) -> tuple[Launcher, ...]:
    """Return the candidates in order; a plugin that cannot be loaded becomes a line of evidence."""
    found = [launcher for name in LAUNCHERS.names() for launcher in _candidates(name, evidence)]
    return tuple(sorted(found, key=lambda launcher: (launcher.order, launcher.name)))


def _candidates(name: str, evidence: list[str]) -> tuple[Launcher, ...]:
    try:
        return LAUNCHERS.load(name)
    except PluginError as e:
        evidence.append(e.message)
        return ()


def binding(text: str, where: str) -> str:
    """A binding in the launcher's own words, its option's name left out. Raises UsageError for an open quote."""
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise UsageError(f"{where} {text!r}: {e}", hint="close the quote") from e
    first = _BIND_OPTION.sub("", words[0]) if words else ""
    return shlex.join(((first,) if first else ()) + tuple(words[1:]))


_BIND_OPTION = re.compile(r"--?(cpu[-_]bind|bind-to)(=|$)")


def bound(option: str, value: str) -> tuple[str, ...]:
    """A binding as words; "depth --depth=8" brings its own further option along."""
    first, *more = shlex.split(value) or [""]
    return (*(word.format(first) for word in option.split()), *more) if first else ()


def told_by_version(tools: Tools, *marks: str) -> Verdict:
    """A verdict about mpiexec, or mpirun: several programs have these names, and only what they print tells which."""
    program = next((name for name in ("mpiexec", "mpirun") if tools.path(name)), "")
    if not program:
        return Verdict(able=False, why="neither mpiexec nor mpirun is on PATH")
    path, text = tools.path(program), tools.version(program).strip()
    for mark in marks:
        if mark.lower() in text.lower():
            return Verdict(able=True, why=f"{path} --version says {mark}", program=program)
    said = text.splitlines()[0] if text else "nothing"
    return Verdict(able=False, why=f"{path} --version says {said!r}, not {' or '.join(marks)}")
