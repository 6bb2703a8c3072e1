"""Interface of schedulers: ordered detectors of nodes, and the programs and files that they may use.

A scheduler is one file with a tuple of `NodeDetector`s and one line in the entry-point group `ezpz.schedulers`:

    [project.entry-points."ezpz.schedulers"]
    lsf = "my_package.lsf:STEPS"

Each detector has a rank, because the orders interleave: PBS_NODEFILE comes before HOSTFILE, qstat after it.
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
TIMEOUT = 10.0  # seconds for qstat or squeue to answer


class Run(Protocol):
    """The part of the signature of `process.run` that detectors need."""

    def __call__(self, argv: Sequence[str], *, timeout: float | None = None) -> process.Completed: ...


def read_file(path: str) -> bytes:
    """Return the first 64 MiB of a file (also of a pipe, as from `<(...)`). Raises OSError."""
    with open(path, "rb") as file:
        return file.read(READ_LIMIT)


def list_directory(path: str) -> tuple[str, ...]:
    """Return the names in a directory, sorted. Raises OSError."""
    return tuple(sorted(os.listdir(path)))


@dataclass(frozen=True, slots=True)
class System:
    """The programs, files, and network that detection uses. The defaults are the real ones."""

    run: Run = process.run
    hostname: Callable[[], str] = socket.gethostname
    local_names: Callable[[], frozenset[str]] = hostnames.local_names
    resolve: addresses.Resolve = addresses.resolve
    answers: addresses.Answers = addresses.is_reachable
    read: Callable[[str], bytes] = read_file
    listdir: Callable[[str], tuple[str, ...]] = list_directory
    sleep: Callable[[float], None] = time.sleep
    spool: tuple[str, ...] = ("/var/spool/pbs/aux", "/var/spool/PBS/aux")
    timeout: float = TIMEOUT


REAL = System()


@dataclass(frozen=True, slots=True)
class DetectionContext:
    """The input of a detector.

    Attributes:
        environ: the environment of this process
        system: the programs and files to use
        me: the canonical names of this host
        hosts: the option --hosts, or None
        hostfile: the option --hostfile, or None
        noted: lines of earlier detectors that the user should see if only this host remains
    """

    environ: Mapping[str, str]
    system: System
    me: frozenset[str]
    hosts: str | None = None
    hostfile: str | None = None
    noted: tuple[str, ...] = ()

    def variable(self, *names: str) -> tuple[str, str]:
        """Return the first of these variables that is set and not empty, with its value, or ("", "")."""
        return next(((name, self.environ[name]) for name in names if self.environ.get(name)), ("", ""))

    def here(self, names: Sequence[str]) -> bool:
        """Return whether this host is one of `names`."""
        return any(hostnames.is_me(name, self.me) for name in names)


@dataclass(frozen=True, slots=True)
class NodesFound:
    """The nodes that a detector found (names as written, repeats allowed), and the reason in words."""

    scheduler: str
    job_id: str | None
    names: tuple[str, ...]
    why: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotFound:
    """The reason, in words, why a detector found no nodes. `notable`: it found something that could not be used."""

    why: str
    notable: bool = False


Answer: TypeAlias = "NodesFound | NotFound"


@dataclass(frozen=True, slots=True)
class JobSystem:
    """What the rest of ezpz needs to know about a scheduler that runs jobs.

    Attributes:
        name: what its detectors answer as `NodesFound.scheduler`
        job_variable: set inside its jobs, to the id of the job
        keeps_order: ranks fill the nodes in the order of the job, in whatever order the launcher names them
        ranks: the variable with the number of ranks on a node, or ""
        accelerators: the variable with the number of accelerators on a node, or ""
        cores: the variable with the number of cores on a node, or ""
        again: variables for launchers that start ranks where an earlier attempt in the job has lost nodes
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
    """One way to find the nodes. Detectors are tried in the order of their ranks until one finds nodes.

    Attributes:
        rank: 10 --hosts, 20 --hostfile, 30 PBS_NODEFILE, 40 HOSTFILE, 50 and 60 PBS, 70 and 80 Slurm, 1000 this host
        label: the start of the detector's line of evidence
        find: finds the nodes; it may raise an EzpzError, which ends the search
        system: the scheduler whose jobs it finds, or None if it finds no jobs
        in_job: it reads only what the job provides, and starts nothing
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
    """Return the only job, or the one whose id is `wanted`. Raises SchedulerError, with a list, if several remain."""
    chosen = [job for job in jobs if job.id == wanted] or list(jobs)
    if len(chosen) == 1:
        return chosen[0]
    raise SchedulerError(
        f"{len(chosen)} of your jobs are running: {', '.join(map(str, chosen))}",
        hint=f"pass --hosts, or set {variable} to one of them",
    )


def run_query(context: DetectionContext, *argv: str) -> str | NotFound:
    """Return what a scheduler's command printed, or why it cannot be used: it is missing, slow, or failed."""
    try:
        done = context.system.run(argv, timeout=context.system.timeout)
    except ToolMissing:
        return NotFound("not on PATH")
    except TimedOut:
        return NotFound(f"no answer within {context.system.timeout:g} s", notable=True)
    if done.returncode != 0:
        said = "; ".join((done.err.strip() or done.out.strip() or "it said nothing").splitlines()[-2:])
        return NotFound(f"it failed with status {done.returncode}: {said}", notable=True)
    return done.out
