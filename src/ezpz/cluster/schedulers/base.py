"""What a scheduler is made of: ordered steps, each asked once for the nodes, and the ports to the world they may use.

A scheduler is one file with a tuple of `Step`s and one line in the entry-point group `ezpz.schedulers`:

    [project.entry-points."ezpz.schedulers"]
    lsf = "my_package.lsf:STEPS"

A tuple, and a rank on each step, because the order interleaves: PBS_NODEFILE comes before HOSTFILE, qstat after it.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ezpz.cluster import addresses, hostnames
from ezpz.errors import SchedulerError, TimedOut, ToolMissing
from ezpz.runtime import process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

READ_LIMIT = 1 << 26  # bytes; a nodefile of 10,000 nodes with 100 lines each is about 50 MB
PATIENCE = 10.0  # seconds for qstat or squeue to answer


class Run(Protocol):
    """`process.run`, as far as a step needs it."""

    def __call__(self, argv: Sequence[str], *, timeout: float | None = None) -> process.Completed: ...


def read_file(path: str) -> bytes:
    """The first 64 MiB of a file (also of a pipe, as from `<(...)`). Raises OSError."""
    with open(path, "rb") as file:
        return file.read(READ_LIMIT)


def list_directory(path: str) -> tuple[str, ...]:
    """The names in a directory, sorted. Raises OSError."""
    return tuple(sorted(os.listdir(path)))


@dataclass(frozen=True, slots=True)
class System:
    """The ports through which discovery sees the world; the defaults are the real ones."""

    run: Run = process.run
    hostname: Callable[[], str] = socket.gethostname
    local_names: Callable[[], frozenset[str]] = hostnames.local_names
    resolve: addresses.Resolve = addresses.resolve
    answers: addresses.Answers = addresses.is_reachable
    read: Callable[[str], bytes] = read_file
    listdir: Callable[[str], tuple[str, ...]] = list_directory
    sleep: Callable[[float], None] = time.sleep
    spool: tuple[str, ...] = ("/var/spool/pbs/aux", "/var/spool/PBS/aux")
    patience: float = PATIENCE


REAL = System()


@dataclass(frozen=True, slots=True)
class DetectionContext:
    """What a step is asked with.

    hosts, hostfile: the options as given, or None
    me: the canonical names of this host
    noted: what earlier steps found out that the user should know if this host alone remains
    """

    environ: Mapping[str, str]
    system: System
    me: frozenset[str]
    hosts: str | None = None
    hostfile: str | None = None
    noted: tuple[str, ...] = ()

    def variable(self, *names: str) -> tuple[str, str]:
        """The first of these environment variables that is set and not empty, with its value; ("", "") for none."""
        return next(((name, self.environ[name]) for name in names if self.environ.get(name)), ("", ""))

    def here(self, names: Sequence[str]) -> bool:
        """Whether this host is one of `names`."""
        return any(hostnames.is_me(name, self.me) for name in names)


@dataclass(frozen=True, slots=True)
class NodesFound:
    """A step's answer: these nodes (names as written, repeats allowed), and in words, why."""

    scheduler: str
    job_id: str | None
    names: tuple[str, ...]
    why: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotFound:
    """A step's other answer: in words, why not. `notable`: something was there, but it was of no use."""

    why: str
    notable: bool = False


Answer: TypeAlias = "NodesFound | NotFound"


@dataclass(frozen=True, slots=True)
class JobSystem:
    """What the rest of ezpz needs to know of a scheduler that runs jobs.

    name: what its steps answer as `Found.scheduler`; job_variable: set inside its jobs, to the id of the job
    keeps_order: ranks fill the nodes in the order of the job, whatever order the launcher names them in
    ranks, accelerators, cores: variables that say how many of each the job has on a node; "" for none
    again: variables for launchers that start ranks on nodes where the job has just lost some
    """

    name: str
    job_variable: str
    keeps_order: bool = False
    ranks: str = ""
    accelerators: str = ""
    cores: str = ""
    again: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class NodeDetector:
    """One way to find the nodes. Steps are asked in the order of their ranks until one finds them.

    rank: 10 --hosts, 20 --hostfile, 30 PBS_NODEFILE, 40 HOSTFILE, 50 and 60 PBS, 70 and 80 Slurm, 1000 this host alone
    label: begins the step's line of evidence
    find: the question; it may raise an EzpzError, which ends the search
    system: the scheduler that it finds jobs of, None where no job is found
    in_job: reads what the job itself says, and starts nothing
    """

    rank: int
    label: str
    find: Callable[[DetectionContext], Answer]
    system: JobSystem | None = None
    in_job: bool = False


@dataclass(frozen=True, slots=True)
class JobCandidate:
    """A running job of this user, as a scheduler lists it."""

    id: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.id} on {len(self.names)} node{'s' if len(self.names) != 1 else ''}"


def select_job(jobs: Sequence[JobCandidate], wanted: str, variable: str) -> JobCandidate:
    """The one job, or the one whose id is `wanted`. Raises SchedulerError that lists them when that leaves several."""
    chosen = [job for job in jobs if job.id == wanted] or list(jobs)
    if len(chosen) == 1:
        return chosen[0]
    raise SchedulerError(
        f"{len(chosen)} of your jobs are running: {', '.join(map(str, chosen))}",
        hint=f"pass --hosts, or set {variable} to one of them",
    )


def run_query(inquiry: DetectionContext, *argv: str) -> str | NotFound:
    """What a scheduler's command printed, or why it is of no use: it is missing, slow, or failed."""
    try:
        done = inquiry.system.run(argv, timeout=inquiry.system.patience)
    except ToolMissing:
        return NotFound("not on PATH")
    except TimedOut:
        return NotFound(f"no answer within {inquiry.system.patience:g} s", notable=True)
    if done.returncode != 0:
        said = "; ".join((done.err.strip() or done.out.strip() or "it said nothing").splitlines()[-2:])
        return NotFound(f"it failed with status {done.returncode}: {said}", notable=True)
    return done.out
