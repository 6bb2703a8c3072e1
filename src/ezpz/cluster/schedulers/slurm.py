"""Detectors for Slurm: the environment of a job, and squeue on a login node.

Sources: the manual pages of sbatch ("OUTPUT ENVIRONMENT VARIABLES"), squeue and "Heterogeneous Job Support".
"""

from __future__ import annotations

from ezpz.cluster.hostnames import expand
from ezpz.cluster.schedulers.base import (
    Answer,
    DetectionContext,
    JobCandidate,
    JobSystem,
    NodeDetector,
    NodesFound,
    NotFound,
    run_query,
    select_job,
)
from ezpz.errors import SchedulerError, UsageError

HOW = "set by salloc, sbatch or srun"
SLURM = JobSystem(
    "slurm",
    "SLURM_JOB_ID",
    keeps_order=True,
    ranks="SLURM_NTASKS_PER_NODE",
    accelerators="SLURM_GPUS_ON_NODE",
    cores="SLURM_JOB_CPUS_PER_NODE",
    # A step that lost a node holds what it had until Slurm gives the node up: later steps overlap it.
    again=(("SLURM_OVERLAP", "1"),),
)


def from_environment(context: DetectionContext) -> Answer:
    """Find the job that this process is part of. Raises SchedulerError if its node list cannot be parsed."""
    _, job_id = context.variable("SLURM_JOB_ID", "SLURM_JOBID")
    variables = _group_variables(context)
    if not variables:
        return NotFound("SLURM_JOB_NODELIST is not set")
    names = tuple(name for variable in variables for name in _expand(context.environ[variable], variable))
    return NodesFound(SLURM.name, job_id or None, names, f"{' and '.join(variables)}, {HOW}")


def _group_variables(context: DetectionContext) -> tuple[str, ...]:
    """Return the variables that name the nodes: one for each component of a heterogeneous job, or else one."""
    size = context.environ.get("SLURM_HET_SIZE", "")
    components = range(int(size)) if size.isascii() and size.isdigit() and len(size) < 6 else range(0)
    groups = tuple(f"SLURM_JOB_NODELIST_HET_GROUP_{number}" for number in components)
    if groups and all(context.environ.get(group) for group in groups):
        return groups
    variable, _ = context.variable("SLURM_JOB_NODELIST", "SLURM_NODELIST")
    return (variable,) if variable else ()


def _expand(nodelist: str, where: str) -> tuple[str, ...]:
    try:
        return expand(nodelist, where)
    except UsageError as e:
        raise SchedulerError(e.message, hint="name the nodes with --hosts or --hostfile") from e


def from_squeue(context: DetectionContext) -> Answer:
    """Find the only running job of this user, as seen from a login node.

    Of several jobs, choose the one that has this host, or the one that SLURM_JOB_ID names. Otherwise, raise
    SchedulerError, which lists them.
    """
    text = run_query(context, "squeue", "--me", "-h", "-t", "R", "-o", "%A %N")
    if isinstance(text, NotFound):
        return text
    jobs = parse_squeue(text)
    if not jobs:
        return NotFound("you have no running job")
    here = [job for job in jobs if context.here(job.names)]
    _, wanted = context.variable("SLURM_JOB_ID", "SLURM_JOBID")
    job = select_job(here or jobs, wanted, "SLURM_JOB_ID")
    return NodesFound(SLURM.name, job.id, job.names, f"job {job.id} is your running job")


def parse_squeue(text: str) -> tuple[JobCandidate, ...]:
    """Return the jobs in the output of `squeue -h -t R -o '%A %N'`: on each line, an id and a compressed node list."""
    jobs = []
    for line in text.splitlines():
        job_id, _, nodelist = line.strip().partition(" ")
        if job_id.isdigit() and nodelist and not nodelist.startswith("("):
            jobs.append(JobCandidate(job_id, _expand(nodelist, f"squeue, job {job_id}")))
    return tuple(jobs)


STEPS = (
    NodeDetector(70, "Slurm environment", from_environment, SLURM, in_job=True),
    NodeDetector(80, "squeue", from_squeue, SLURM),
)
