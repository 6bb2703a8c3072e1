"""The interface that every launcher implements, its arguments and results, and the registry of launchers.

A launcher is one file with a tuple of `Launcher`s and one line in the entry-point group `ezpz.launchers`:

    [project.entry-points."ezpz.launchers"]
    aprun = "my_package.aprun:CANDIDATES"

It is a tuple because a launcher can have two places in the order: `local` is second, and it is last.
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
    from ezpz.launch.launchers.failure_lines import FailurePattern
    from ezpz.launch.launchers.output_labels import LabelFormat
    from ezpz.runtime.process import Running

HOSTFILE = "HOSTFILE"
"""The first such word of a command line is replaced by the path of the hostfile when the command starts."""
VERSION_TIMEOUT = 10.0  # seconds for `mpiexec --version`


class Tools(Protocol):
    """The programs on PATH of this host."""

    def path(self, name: str) -> str:
        """Return the path of a program with links resolved, "" if it is not on PATH."""

    def version(self, name: str) -> str:
        """Return what `NAME --version` prints."""


@dataclass(frozen=True)
class PathTools:
    """The real programs on PATH. The version of each is queried at most once."""

    def path(self, name: str) -> str:
        """Return the path of a program with links resolved, "" if it is not on PATH."""
        found = shutil.which(name)
        return os.path.realpath(found) if found else ""

    def version(self, name: str) -> str:
        """Return what `NAME --version` prints on stdout and stderr, "" if it does not end within 10 s."""
        return _version(name)


@functools.cache
def _version(name: str) -> str:
    try:
        done = process.run((name, "--version"), timeout=VERSION_TIMEOUT)
    except (ToolMissing, TimedOut):
        return ""
    return f"{done.out}\n{done.err}"


@dataclass(frozen=True, slots=True)
class RankVariables:
    """The variables that a launcher sets for each rank; "" for those that it does not set.

    Attributes:
        tasks_per_node: The variable that lists the number of ranks of each node as Slurm writes it: 12(x3),4
        assigns_devices: Whether the launcher itself assigns accelerators to ranks.
    """

    rank: str
    size: str
    local_rank: str = ""
    local_size: str = ""
    node_rank: str = ""
    tasks_per_node: str = ""
    assigns_devices: bool = False


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What a launcher starts: `ranks` copies of `command`, `ppn` per node, on exactly the nodes of `allocation`.

    Attributes:
        options: Words for the launcher's command line: those of the site, then those of the user.
        cpu_bind: The binding in the launcher's own words, or "".
        program: The name of the launcher's program on this host, if it can have several.
        chosen: Whether the user asked for this launcher by name.
        system: The scheduler whose job the nodes belong to, also if --hosts or --hostfile selects some of them. None
            outside of a job.
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
        """The names of the nodes for an mpiexec: in a job those of the scheduler, which it may ask; else addresses."""
        return tuple(node.given if self.system else node.address for node in self.allocation.nodes)


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a launcher can start these ranks on this host, why, and by which of its names."""

    is_available: bool
    why: str
    program: str = "mpiexec"


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command line to run on this host.

    Attributes:
        hostfile: The content of the file whose path replaces HOSTFILE in `argv`.
        rank_environments: One mapping per process to start, with the variables to add to its environment. More than one
            only if this host starts the ranks itself.
        exit_pattern: A regular expression for a failure that the launcher prints and its status does not tell. The
            group `lost` is a lost node. All other groups are for `Launcher.rank_status`.
        unreachable_pattern: A regular expression for the line about an unreachable node, if the launcher can wait
            forever for its ranks.
    """

    argv: tuple[str, ...]
    hostfile: str = ""
    rank_environments: tuple[Mapping[str, str], ...] = field(default=({},))
    exit_pattern: str = ""
    unreachable_pattern: str = ""


class Launcher(ABC):
    """A way to start ranks. The defaults fit a program like `mpiexec`.

    Attributes:
        name: The name that users type.
        order: The first launcher in this order that can start the ranks is used: 10 srun, 20 local, 30 pals, 40 hydra,
            50 openmpi, 1000 local again.
        is_local: Whether its processes are the ranks themselves.
        rank_variables: The variables that it sets for each rank; None if the ranks need no wrapper.
        label: How it labels output with the rank; None if it cannot.
        failure_patterns: What it prints when a rank or a node fails.
        output_file_options: A regular expression for the options that make it write the output of ranks to files. The
            startup markers of ranks do not reach ezpz then.
    """

    name: ClassVar[str]
    order: int
    is_local: ClassVar[bool] = False
    rank_variables: ClassVar[RankVariables | None] = None
    label: ClassVar[LabelFormat | None] = None
    failure_patterns: ClassVar[tuple[FailurePattern, ...]] = ()
    output_file_options: ClassVar[str] = ""

    @abstractmethod
    def check_availability(self, spec: LaunchSpec, tools: Tools, /) -> Availability:
        """Return whether it can start these ranks on this host."""

    @abstractmethod
    def invocation(self, spec: LaunchSpec) -> Invocation:
        """Return the command line that starts the ranks. The command in `spec` is already wrapped."""

    def writes_output_files(self, options: Sequence[str]) -> bool:
        """Return whether these options make it write the output of ranks to files."""
        pattern = self.output_file_options
        return bool(pattern) and any(re.fullmatch(pattern, word.partition("=")[0]) for word in options)

    def label_for(self, options: Sequence[str]) -> LabelFormat | None:
        """Return how it can label output; None if it cannot, or if these options of the user already do it."""
        return self.label if self.label is not None and self.label.user_options.isdisjoint(options) else None

    def forward_signal(self, running: Running, number: int, _spec: LaunchSpec) -> None:
        """Send a signal to the ranks. By default it goes to the launcher alone, which forwards it.

        If the ssh processes of an mpiexec got it as well, they would end before the ranks are told.
        """
        running.send_signal(number)

    def exit_status(self, status: int, signals: Sequence[int]) -> int:
        """Return the status as a shell reports it, after these signals that ask to end were forwarded.

        The status of MPICH can be the bare number of one of the signals, or 255.
        """
        return 128 + signals[0] if signals and status in (*signals, 255) else status

    def rank_status(self, status: int, _groups: Mapping[str, bytes | None]) -> int:
        """Return the status of the first failed rank from the groups of `Invocation.exit_pattern`."""
        return status

    def transport(self, _environ: Mapping[str, str]) -> str:
        """Return the name of the transport for queries to nodes that it starts ranks on."""
        return SshTransport.name


LAUNCHERS: Registry[tuple[Launcher, ...]] = Registry("ezpz.launchers", "launcher")


def installed_launchers(evidence: list[str]) -> tuple[Launcher, ...]:
    """Return the launchers in order. Append a line to `evidence` for each plugin that cannot be loaded."""
    found = [launcher for name in LAUNCHERS.names() for launcher in _load(name, evidence)]
    return tuple(sorted(found, key=lambda launcher: (launcher.order, launcher.name)))


def _load(name: str, evidence: list[str]) -> tuple[Launcher, ...]:
    try:
        return LAUNCHERS.load(name)
    except PluginError as e:
        evidence.append(e.message)
        return ()


def parse_binding(text: str, where: str) -> str:
    """Return a binding in the launcher's own words without the name of its option.

    Args:
        text: The binding, such as `cores` or `--cpu-bind=cores`.
        where: The option or file that it comes from, for the message.

    Raises:
        UsageError: A quote is open.
    """
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise UsageError(f"{where} {text!r}: {e}", hint="close the quote") from e
    first = _BIND_OPTION.sub("", words[0]) if words else ""
    return shlex.join(((first,) if first else ()) + tuple(words[1:]))


_BIND_OPTION = re.compile(r"--?(cpu[-_]bind|bind-to)(=|$)")


def binding_words(option: str, value: str) -> tuple[str, ...]:
    """Return the words for a binding. A value such as "depth --depth=8" adds an option of its own."""
    first, *more = shlex.split(value) or [""]
    return (*(word.format(first) for word in option.split()), *more) if first else ()


def check_version(tools: Tools, *texts: str) -> Availability:
    """Return whether mpiexec or mpirun is the program whose version has one of these texts.

    Several programs have these names. Only the output of `--version` tells them apart.
    """
    program = next((name for name in ("mpiexec", "mpirun") if tools.path(name)), "")
    if not program:
        return Availability(is_available=False, why="neither mpiexec nor mpirun is on PATH")
    path, version = tools.path(program), tools.version(program).strip()
    for text in texts:
        if text.lower() in version.lower():
            return Availability(is_available=True, why=f"{path} --version says {text}", program=program)
    first_line = version.splitlines()[0] if version else "nothing"
    return Availability(is_available=False, why=f"{path} --version says {first_line!r}, not {' or '.join(texts)}")
