"""The programs that can start ranks on nodes: each judges whether it can, and then is pure argv.

They are asked in the order of LAUNCHERS; the first that can is the one, of those that the user would have.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ezpz.cluster.hostnames import fold
from ezpz.errors import UsageError
from ezpz.launch.wrapper import RankNames

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.cluster.model import Allocation

SRUN_EXIT = (  # the ranks that it then ends make its own status 143
    r"error: \S+: tasks? [\d,-]+: "
    r"(?:Exited with exit code (?P<code>\d+)|(?P<signal>Killed|Aborted|Segmentation fault|Bus error|Terminated))"
)
SSH_LOST = (
    r"ssh: (?:connect to host|Could not resolve hostname) .*|.*: Permission denied \(.*|Host key verification failed.*"
    r"|(?:kex_exchange_identification|Connection (?:closed|reset) by \S+ port \d+).*"
)
LOST = (  # Open MPI's own status may be 0 then
    r"(?:Remote daemon: +\[\S+\] on node |Connection to (?=\S+ closed by remote host))(?P<lost>[A-Za-z0-9_.-]+)"
)
HOSTFILE = "HOSTFILE"  # the first one in an argv stands for the path of the hostfile, which execute() writes


class Tools(Protocol):
    """The programs on PATH of this host."""

    def path(self, name: str) -> str:
        """Where the program is, links resolved, or "" if it is not on PATH."""

    def version(self, name: str) -> str:
        """What `NAME --version` prints."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be started: `ranks` copies of `command`, `ppn` a node, on the nodes of `allocation` and no others.

    options: words for the launcher's own line, the site's first, then the user's
    cpu_bind: in the launcher's own words, or ""
    program: what the launcher is called here, if it has several names; chosen: the user wants no other
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

    @property
    def scheduler(self) -> str:
        """Whose job we are in: "slurm", "pbs" or "" - also when --hosts or --hostfile chose among its nodes."""
        return scheduler_of(self.allocation, self.environ)

    @property
    def hosts(self) -> tuple[str, ...]:
        """What an mpiexec calls the nodes: in a job as the scheduler does, for it may ask that one; else by address."""
        return tuple(node.given if self.scheduler else node.address for node in self.allocation.nodes)


def scheduler_of(allocation: Allocation, environ: Mapping[str, str]) -> str:
    """Whose job these nodes belong to: "slurm", "pbs" or ""."""
    if allocation.scheduler in ("slurm", "pbs"):
        return allocation.scheduler
    if allocation.scheduler not in ("hosts", "hostfile"):
        return ""
    return "slurm" if environ.get("SLURM_JOB_ID") else "pbs" if environ.get("PBS_JOBID") else ""


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
    exit_line: what the launcher prints of a failure that its own status may not tell; the group `code` is the status of
        a rank, or `signal` its signal in words, or `lost` a node that has gone
    lost_line: what is printed of a node that cannot be reached, if the launcher may then wait for its ranks for ever
    """

    argv: tuple[str, ...]
    hostfile: str = ""
    ranks: tuple[Mapping[str, str], ...] = field(default=({},))
    exit_line: str = ""
    lost_line: str = ""


class Launcher(Protocol):
    """One way to start ranks. `name` is what users call it.

    ranks: the variables by which its ranks know who they are; None if they need no wrapper for that
    """

    name: str
    ranks: RankNames | None

    def judge(self, job: Job, tools: Tools, /) -> Verdict:
        """Whether it can start this job here."""

    def invocation(self, job: Job) -> Invocation:
        """The command line that does; `command` is already the wrapped one."""


class Srun:
    """Slurm's own; it also reaches into a job from outside, and out of a step that already runs."""

    name = "srun"
    ranks: RankNames | None = RankNames(
        "SLURM_PROCID",
        "SLURM_NTASKS",
        "SLURM_LOCALID",
        node_rank="SLURM_NODEID",
        tasks="SLURM_STEP_TASKS_PER_NODE",
        has_devices=True,
    )

    def judge(self, job: Job, tools: Tools, /) -> Verdict:
        if job.scheduler != "slurm":
            return Verdict(able=False, why="this is no Slurm job")
        if not tools.path("srun"):
            return Verdict(able=False, why="srun is not on PATH")
        return Verdict(able=True, why=f"the nodes belong to Slurm's job {_slurm_job(job)}")

    def invocation(self, job: Job) -> Invocation:
        outside = _slurm_job(job) != job.environ.get("SLURM_JOB_ID")
        argv = (
            "srun",
            *((f"--jobid={_slurm_job(job)}",) if outside else ()),
            *(("--overlap",) if outside or "SLURM_STEP_ID" in job.environ else ()),
            "--quit-on-interrupt",  # one Ctrl-C ends it, not two
            *("-N", str(len(job.allocation.nodes))),
            *("-n", str(job.ranks)),
            f"--ntasks-per-node={job.ppn}",
            *("-w", fold((node.given for node in job.allocation.nodes), one_bracket=True)),
            *((f"--gpus-per-task={job.gpus_per_rank}",) if job.gpus_per_rank else ()),
            *_bound("--cpu-bind={}", job.cpu_bind),
            *job.options,
            "--",
            *job.command,
        )  # fmt: skip
        return Invocation(argv, exit_line=SRUN_EXIT)


def _slurm_job(job: Job) -> str:
    return job.allocation.job_id or job.environ.get("SLURM_JOB_ID", "")


def binding(text: str, where: str) -> str:
    """A binding in the launcher's own words, its option's name left out. Raises UsageError for an open quote."""
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise UsageError(f"{where} {text!r}: {e}", hint="close the quote") from e
    first = _BIND_OPTION.sub("", words[0]) if words else ""
    return shlex.join(((first,) if first else ()) + tuple(words[1:]))


_BIND_OPTION = re.compile(r"--?(cpu[-_]bind|bind-to)(=|$)")


def _bound(option: str, value: str) -> tuple[str, ...]:
    """A binding as words; "depth --depth=8" brings its own further option along."""
    first, *more = shlex.split(value) or [""]
    return (*(word.format(first) for word in option.split()), *more) if first else ()


class Local:
    """No launcher: this host starts the ranks itself, and tells each which it is."""

    name = "local"
    ranks: RankNames | None = None

    def __init__(self, *, in_job: bool = False) -> None:
        """in_job: also where a scheduler rules, for a job of this host alone that nothing else can start ranks of."""
        self.in_job = in_job

    def judge(self, job: Job, tools: Tools, /) -> Verdict:
        if job.scheduler and not self.in_job:
            return Verdict(able=False, why=f"this is a {job.scheduler.upper()} job")
        if any(not node.is_local for node in job.allocation.nodes):
            return Verdict(able=False, why="not all nodes are this host")
        if not self.in_job:
            return Verdict(able=True, why="this host is the only node, and no scheduler rules it")
        there = next(filter(tools.path, ("srun", "mpiexec", "mpirun")), "")
        if there and not job.chosen:  # else an MPI program would be so many programs of one rank
            return Verdict(able=False, why=f"there is {there}, and --launcher does not say local")
        return Verdict(able=True, why="this host is the only node, and no launcher is needed")

    def invocation(self, job: Job) -> Invocation:
        size = str(job.ranks)
        shared = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "NODE_RANK": "0"}
        return Invocation(
            job.command,
            ranks=tuple({"RANK": str(rank), "LOCAL_RANK": str(rank), **shared} for rank in range(job.ranks)),
        )


class Pals:
    """HPE's `mpiexec` on PBS systems. It reads a bare list of the names that PBS gave, and knows no `slots=`."""

    name = "pals"
    ranks: RankNames | None = RankNames(
        "PALS_RANKID", "PMI_SIZE", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE", "PALS_NODEID"
    )

    def judge(self, job: Job, tools: Tools, /) -> Verdict:
        if job.scheduler != "pbs":
            return Verdict(able=False, why="this is no PBS job")
        if "/pals/" in tools.path("mpiexec"):
            return Verdict(able=True, why=f"the job is PBS's, and mpiexec is {tools.path('mpiexec')}")
        return _told_by_version(tools, "PALS")

    def invocation(self, job: Job) -> Invocation:
        argv = (job.program, "-n", str(job.ranks), "--ppn", str(job.ppn), "--hostfile", HOSTFILE, *job.options)
        argv = (*argv, *_bound("--cpu-bind={}", job.cpu_bind))
        return Invocation((*argv, *job.command), "".join(f"{node.given}\n" for node in job.allocation.nodes))


class Hydra:
    """The `mpiexec` of MPICH and of what was made from it; it reaches nodes by ssh."""

    name = "hydra"
    ranks: RankNames | None = RankNames("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")

    def judge(self, _job: Job, tools: Tools, /) -> Verdict:
        return _told_by_version(tools, "HYDRA", "Intel(R) MPI")

    def invocation(self, job: Job) -> Invocation:
        argv = (job.program, "-f", HOSTFILE, "-n", str(job.ranks), "-ppn", str(job.ppn))
        bind = _bound("-bind-to {}", job.cpu_bind)
        lines = (f"{host}\n" for host in job.hosts)
        words = (*argv, *bind, *job.options, *job.command)
        return Invocation(words, "".join(lines), exit_line=LOST, lost_line=SSH_LOST)


class OpenMpi:
    """The `mpiexec` of Open MPI; its hostfile counts the ranks of each node.

    It hands nothing of our environment on to other nodes, so each variable is named.
    """

    name = "openmpi"
    ranks: RankNames | None = RankNames(
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
    )

    def judge(self, _job: Job, tools: Tools, /) -> Verdict:
        return _told_by_version(tools, "Open MPI", "OpenRTE", "open-mpi")

    def invocation(self, job: Job) -> Invocation:
        argv = (job.program, "--hostfile", HOSTFILE, "-n", str(job.ranks), "--map-by", f"ppr:{job.ppn}:node")
        bind = _bound("--bind-to {}", job.cpu_bind)
        remote = any(not node.is_local for node in job.allocation.nodes)
        names = sorted(name for name in job.environ if _is_handed_on(name)) if remote else ()
        handed = (word for name in names for word in ("-x", name))
        lines = (f"{host} slots={job.ppn}\n" for host in job.hosts)
        words = (*argv, *bind, *handed, *job.options, *job.command)
        return Invocation(words, "".join(lines), exit_line=LOST)


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OF_THIS_HOST = re.compile(
    r"_|HOME|HOSTNAME|LOGNAME|LS_COLORS|MAIL|OLDPWD|PWD|SHELL|SHLVL|TERM|TMPDIR|USER|DISPLAY|XAUTHORITY|WINDOWID"
    r"|(SSH|XDG|DBUS|OMPI|PMIX|PRTE|PMI|BASH_FUNC|SLURM|PBS|TMUX|STY).*"
)


def _is_handed_on(name: str) -> bool:
    """Whether a variable means the same on another host."""
    return _VARIABLE.fullmatch(name) is not None and _OF_THIS_HOST.fullmatch(name) is None


def _told_by_version(tools: Tools, *marks: str) -> Verdict:
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


LAUNCHERS: tuple[Launcher, ...] = (Srun(), Local(), Pals(), Hydra(), OpenMpi(), Local(in_job=True))
