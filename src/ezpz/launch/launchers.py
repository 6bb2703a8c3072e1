"""The programs that can start ranks on nodes: each judges whether it can, and then is pure argv.

They are asked in the order of LAUNCHERS; the first that can is the one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ezpz.cluster.hostnames import fold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.cluster.model import Allocation

HOSTFILE = "HOSTFILE"  # the first one in an argv stands for the path of the hostfile, which execute() writes


class Tools(Protocol):
    """The programs on PATH of this host."""

    def path(self, name: str) -> str:
        """Where the program is, links resolved, or "" if it is not on PATH."""

    def version(self, name: str) -> str:
        """What `NAME --version` prints."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be started: `ranks` copies of `command`, `ppn` a node, on the nodes of `allocation` and no others."""

    command: tuple[str, ...]
    allocation: Allocation
    ranks: int
    ppn: int
    environ: Mapping[str, str]

    @property
    def scheduler(self) -> str:
        """Whose job we are in: "slurm", "pbs" or "" - also when --hosts or --hostfile chose among its nodes."""
        if self.allocation.scheduler in ("slurm", "pbs"):
            return self.allocation.scheduler
        if self.allocation.scheduler not in ("hosts", "hostfile"):
            return ""
        return "slurm" if self.environ.get("SLURM_JOB_ID") else "pbs" if self.environ.get("PBS_JOBID") else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a launcher can start this job here, and in words, why or why not."""

    able: bool
    why: str


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command line to run here.

    hostfile: the content of the file that HOSTFILE in `argv` stands for
    ranks: what each copy's environment gets, if this host starts the ranks itself; one copy otherwise
    """

    argv: tuple[str, ...]
    hostfile: str = ""
    ranks: tuple[Mapping[str, str], ...] = ({},)


class Launcher(Protocol):
    """One way to start ranks. `name` is what users call it."""

    name: str

    def judge(self, job: Job, tools: Tools, /) -> Verdict:
        """Whether it can start this job here."""

    def invocation(self, job: Job) -> Invocation:
        """The command line that does."""


class Srun:
    """Slurm's own; it also reaches into a job from outside, and out of a step that already runs."""

    name = "srun"

    def judge(self, job: Job, tools: Tools, /) -> Verdict:
        if job.scheduler != "slurm":
            return Verdict(able=False, why="this is no Slurm job")
        if not tools.path("srun"):
            return Verdict(able=False, why="srun is not on PATH")
        return Verdict(able=True, why=f"the nodes belong to Slurm's job {_slurm_job(job)}")

    def invocation(self, job: Job) -> Invocation:
        outside = _slurm_job(job) != job.environ.get("SLURM_JOB_ID")
        return Invocation((
            "srun",
            *((f"--jobid={_slurm_job(job)}",) if outside else ()),
            *(("--overlap",) if outside or "SLURM_STEP_ID" in job.environ else ()),
            "--quit-on-interrupt",  # one Ctrl-C ends it, not two
            *("-N", str(len(job.allocation.nodes))),
            *("-n", str(job.ranks)),
            f"--ntasks-per-node={job.ppn}",
            *("-w", fold((node.name for node in job.allocation.nodes), one_bracket=True)),
            "--",
            *job.command,
        ))  # fmt: skip


def _slurm_job(job: Job) -> str:
    return job.allocation.job_id or job.environ.get("SLURM_JOB_ID", "")


class Local:
    """No launcher: this host starts the ranks itself, and tells each which it is."""

    name = "local"

    def judge(self, job: Job, _tools: Tools, /) -> Verdict:
        if job.scheduler:
            return Verdict(able=False, why=f"this is a {job.scheduler.upper()} job")
        if any(not node.is_local for node in job.allocation.nodes):
            return Verdict(able=False, why="not all nodes are this host")
        return Verdict(able=True, why="this host is the only node, and no scheduler rules it")

    def invocation(self, job: Job) -> Invocation:
        size = str(job.ranks)
        return Invocation(
            job.command,
            ranks=tuple(
                {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
                for rank in range(job.ranks)
            ),
        )


class Pals:
    """HPE's `mpiexec` on PBS systems. It reads a bare list of the names that PBS gave, and knows no `slots=`."""

    name = "pals"

    def judge(self, job: Job, tools: Tools, /) -> Verdict:
        if job.scheduler != "pbs":
            return Verdict(able=False, why="this is no PBS job")
        if "/pals/" in tools.path("mpiexec"):
            return Verdict(able=True, why=f"the job is PBS's, and mpiexec is {tools.path('mpiexec')}")
        return _told_by_version(tools, "PALS")

    def invocation(self, job: Job) -> Invocation:
        argv = ("mpiexec", "-n", str(job.ranks), "--ppn", str(job.ppn), "--hostfile", HOSTFILE, "--envall")
        return Invocation((*argv, *job.command), "".join(f"{node.given}\n" for node in job.allocation.nodes))


class Hydra:
    """The `mpiexec` of MPICH and of what was made from it; it reaches nodes by ssh."""

    name = "hydra"

    def judge(self, _job: Job, tools: Tools, /) -> Verdict:
        return _told_by_version(tools, "HYDRA", "Intel(R) MPI")

    def invocation(self, job: Job) -> Invocation:
        argv = ("mpiexec", "-f", HOSTFILE, "-n", str(job.ranks), "-ppn", str(job.ppn))
        return Invocation((*argv, *job.command), "".join(f"{node.address}\n" for node in job.allocation.nodes))


class OpenMpi:
    """The `mpiexec` of Open MPI; its hostfile counts the ranks of each node."""

    name = "openmpi"

    def judge(self, _job: Job, tools: Tools, /) -> Verdict:
        return _told_by_version(tools, "Open MPI", "OpenRTE", "open-mpi")

    def invocation(self, job: Job) -> Invocation:
        argv = ("mpiexec", "--hostfile", HOSTFILE, "-n", str(job.ranks), "--map-by", f"ppr:{job.ppn}:node")
        lines = (f"{node.address} slots={job.ppn}\n" for node in job.allocation.nodes)
        return Invocation((*argv, *job.command), "".join(lines))


def _told_by_version(tools: Tools, *marks: str) -> Verdict:
    """A verdict about mpiexec: several programs have that name, and only what they print tells them apart."""
    path = tools.path("mpiexec")
    if not path:
        return Verdict(able=False, why="mpiexec is not on PATH")
    text = tools.version("mpiexec").strip()
    for mark in marks:
        if mark.lower() in text.lower():
            return Verdict(able=True, why=f"{path} --version says {mark}")
    said = text.splitlines()[0] if text else "nothing"
    return Verdict(able=False, why=f"{path} --version says {said!r}, not {' or '.join(marks)}")


LAUNCHERS: tuple[Launcher, ...] = (Srun(), Local(), Pals(), Hydra(), OpenMpi())
