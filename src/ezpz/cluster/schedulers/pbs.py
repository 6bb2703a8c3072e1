"""Detectors for PBS Pro and OpenPBS: the nodefile, the spool directories, and qstat.

Sources: PBS Professional User's Guide ("The Job's Node File", "Viewing Job Status"); ALCF's Aurora, Sunspot, Polaris.
"""

from __future__ import annotations

import os
import re

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
from ezpz.cluster.schedulers.hostfile import read_hostfile
from ezpz.errors import HostfileError

PBS = JobSystem("pbs", "PBS_JOBID")
RETRY_WAITS = (1.0, 2.0, 4.0)  # seconds before each retry of qstat

_JOB_ID = re.compile(r"\d+(\[\d*\])?(\.[A-Za-z0-9][A-Za-z0-9._-]*)?", re.ASCII)
_TRANSIENT = re.compile(r"communication failure|cannot connect to server", re.IGNORECASE)
_JOB_LINE = re.compile(
    r"(?P<id>\d+(\[\d*\])?)(\.\S*)?(\s+\S+){8}\s+(?P<state>[A-Z])\s+\S+(\s+(?P<hosts>\S+))?", re.ASCII
)


def from_nodefile(context: DetectionContext) -> Answer:
    """Find the nodes in PBS_NODEFILE, with one line for each rank slot. If it is missing, its job has ended."""
    _, path = context.variable("PBS_NODEFILE")
    if not path:
        return NotFound("not set")
    try:
        names = read_hostfile(path, context.system.read)
    except HostfileError as e:
        return NotFound(e.message, notable=True)
    return NodesFound(PBS.name, context.environ.get("PBS_JOBID") or None, names, path)


def from_spool(context: DetectionContext) -> Answer:
    """Find the nodefile of PBS_JOBID in the spool directories, as after an ssh into a compute node.

    The id may be stale (exported manually, or from another job's shell). It is trusted only if the file has this host.
    """
    _, job_id = context.variable("PBS_JOBID")
    if not job_id:
        return NotFound("PBS_JOBID is not set")
    if not _JOB_ID.fullmatch(job_id):
        return NotFound(f"PBS_JOBID {job_id!r} is not a job id", notable=True)
    stale = ""
    for path in _nodefiles(job_id, context):
        try:
            names = read_hostfile(path, context.system.read)
        except HostfileError as e:
            stale = e.message
            continue
        if context.here(names):
            return NodesFound(PBS.name, job_id, names, f"{path}, which lists this host")
        stale = f"{path} does not list this host, so PBS_JOBID is stale"
    if stale:
        return NotFound(stale, notable=True)
    return NotFound(f"no nodefile of job {job_id} in {' or '.join(context.system.spool)}")


def _nodefiles(job_id: str, context: DetectionContext) -> list[str]:
    number = _number(job_id)
    found = []
    for directory in context.system.spool:
        try:
            names = context.system.listdir(directory)
        except OSError:
            continue
        ours = [name for name in names if name == number or name.startswith(f"{number}.")]
        ours.sort(key=lambda name: name != job_id)
        found += [os.path.join(directory, name) for name in ours]
    return found


def _number(job_id: str) -> str:
    return job_id.partition(".")[0]


def from_qstat(context: DetectionContext) -> Answer:
    """Find the running job of this user whose hosts contain this one, by `qstat -fn1wru $USER`.

    Raises SchedulerError if several do and PBS_JOBID does not choose one.
    """
    _, user = context.variable("USER", "LOGNAME")
    if not user:
        return NotFound("neither USER nor LOGNAME is set")
    text = _query_with_retries(context, user)
    if isinstance(text, NotFound):
        return text
    running = parse_qstat(text)
    here = [job for job in running if context.here(job.names)]
    if here:
        job = select_job(here, _number(context.environ.get("PBS_JOBID", "")), "PBS_JOBID")
        return NodesFound(PBS.name, job.id, job.names, f"job {job.id} of {user} runs on this host")
    if running:
        return NotFound(f"no running job of {user} has this host ({', '.join(map(str, running))})", notable=True)
    return NotFound(f"{user} has no running job")


def _query_with_retries(context: DetectionContext, user: str) -> str | NotFound:
    answer: str | NotFound = NotFound("")
    for wait in (0.0, *RETRY_WAITS):
        if wait:
            context.system.sleep(wait)
        answer = run_query(context, "qstat", "-fn1wru", user)
        if not isinstance(answer, NotFound) or not _TRANSIENT.search(answer.why):
            break
    return answer


def parse_qstat(text: str) -> tuple[JobCandidate, ...]:
    """Return the running jobs in the output of `qstat -fn1wru USER`, by number, with their hosts in order, each once.

    One line for each job: id, user, queue, name, session, nodes, tasks, memory, time, state, elapsed,
    host/cpu+host/cpu+... The id is cut to the column's width ("337374.polaris-pbs-01.hsn.cm.*"). Only its number is
    kept.
    """
    jobs = []
    for line in text.splitlines():
        match = _JOB_LINE.fullmatch(line.strip())
        if match and match["state"] == "R" and match["hosts"]:
            hosts = (slot.partition("/")[0] for slot in match["hosts"].split("+"))
            jobs.append(JobCandidate(match["id"], tuple(dict.fromkeys(host for host in hosts if host))))
    return tuple(jobs)


STEPS = (
    NodeDetector(30, "PBS_NODEFILE", from_nodefile, PBS, in_job=True),
    NodeDetector(50, "PBS spool", from_spool, PBS, in_job=True),
    NodeDetector(60, "qstat", from_qstat, PBS),
)
