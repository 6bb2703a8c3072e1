"""Slurm's `srun`."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, ClassVar

from ezpz.cluster.hostnames import fold
from ezpz.cluster.schedulers.slurm import SLURM
from ezpz.errors import TimedOut, ToolMissing
from ezpz.launch.launchers.base import Invocation, Launcher, RankNames, Verdict, bound
from ezpz.launch.launchers.failure_signs import EXIT, FAULT, NODE, NODE_GROUP, SIGNAL, TIME, Sign, sign
from ezpz.launch.launchers.output_labels import Label
from ezpz.remote import transports
from ezpz.runtime import process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.launch.launchers.base import Job, Tools
    from ezpz.runtime.process import Running

PATIENCE = 5.0  # seconds for each of Slurm's commands

SRUN_EXIT = (  # the ranks that it then ends make its own status 143
    r"error: \S+: tasks? [\d,-]+: "
    r"(?:Exited with exit code (?P<code>\d+)|(?P<signal>Killed|Aborted|Segmentation fault|Bus error|Terminated))"
)
_SIGNALS = {
    "Hangup": 1, "Interrupt": 2, "Quit": 3, "Illegal instruction": 4, "Aborted": 6, "Bus error": 7,
    "Floating point exception": 8, "Killed": 9, "Out Of Memory": 9, "Segmentation fault": 11, "Terminated": 15,
}  # fmt: skip
_TASKS = rf"error: (?:{NODE_GROUP}|\S+): tasks? (?P<ranks>[\d,-]+): "


class Srun(Launcher):
    """Slurm's own; it also reaches into a job from outside, and out of a step that already runs."""

    name = "srun"
    order = 10
    ranks: ClassVar[RankNames | None] = RankNames(
        "SLURM_PROCID",
        "SLURM_NTASKS",
        "SLURM_LOCALID",
        node_rank="SLURM_NODEID",
        tasks="SLURM_STEP_TASKS_PER_NODE",
        has_devices=True,
    )
    # What slurmstepd says of a step comes with the label of one of its ranks.
    label: ClassVar[Label | None] = Label(
        ("--label",),
        re.compile(rb" *(?:(?P<rank>\d+): (?!slurmstepd)|\d+: (?=slurmstepd))"),
        frozenset(("-l", "--label")),
        longest=1024,
    )
    signs: ClassVar[tuple[Sign, ...]] = (
        sign(NODE, "Node failure on", r"error: Node failure on (?P<nodes>\S+)"),
        sign(NODE, "io error with slurmstepd", r"aborting, io error with slurmstepd on node (?P<index>\d+)"),
        sign(NODE, "Task launch for", rf"Task launch for StepId=\S+ failed on node {NODE_GROUP}:"),
        sign(FAULT, "slurmstepd-", rf"slurmstepd-{NODE_GROUP}: error: Detected \d+ oom.kill event", 9),
        sign(TIME, "CANCELLED AT", r"CANCELLED AT \S+ DUE TO (?:TIME LIMIT|PREEMPTION)"),
        sign(EXIT, "Exited with exit code", _TASKS + r"Exited with exit code (?P<status>\d+)"),
        *(sign(SIGNAL, f": {word}", _TASKS + word, number) for word, number in _SIGNALS.items()),
    )
    files = r"(-[oe]|--(output|error))"

    def judge(self, job: Job, tools: Tools, /) -> Verdict:
        if job.system is not SLURM:
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
            *bound("--cpu-bind={}", job.cpu_bind),
            *job.options,
            "--",
            *job.command,
        )  # fmt: skip
        return Invocation(argv, exit_line=SRUN_EXIT)

    def forward_signal(self, running: Running, number: int, job: Job) -> None:
        """Send a signal to the ranks, past srun, which ends them at once when it is asked to end.

        What only srun can tell them, and what cannot be told so, goes to srun.
        """
        past = number in (signal.SIGINT, signal.SIGTERM) and _tell_step(_slurm_job(job), running.pid, number)
        if not past:
            running.send_signal(number)

    def rank_status(self, status: int, told: Mapping[str, bytes | None]) -> int:
        """Return what its line about the first rank that failed says, which is better than its own status."""
        code, by = told.get("code"), told.get("signal")
        if status and code:
            return int(code) % 256 or status
        return 128 + _SIGNALS[by.decode()] if status and by else status

    def transport(self, environ: Mapping[str, str]) -> str:
        """Return srun inside of a job; from outside it reaches no nodes."""
        return transports.SrunTransport.name if SLURM.job_variable in environ else super().transport(environ)


def _slurm_job(job: Job) -> str:
    return job.allocation.job_id or job.environ.get("SLURM_JOB_ID", "")


def _tell_step(job: str, pid: int, number: int) -> bool:
    """Have Slurm send a signal to the step that the srun with this process id has started; False if it did not."""
    if not job:
        return False
    try:
        steps = process.run(("scontrol", "show", "step", job), timeout=PATIENCE)
        step = step_of(steps.out, pid)
        argv = ("scancel", f"--signal={signal.Signals(number).name.removeprefix('SIG')}", step)
        return bool(step) and process.run(argv, timeout=PATIENCE).returncode == 0
    except (ToolMissing, TimedOut):
        return False


def step_of(text: str, pid: int) -> str:
    """The step that the srun with this process id has started, as `scontrol show step` tells; "" for none. Pure."""
    for block in re.split(r"^(?=StepId=)", text, flags=re.MULTILINE):
        match = re.match(r"StepId=(\S+)", block)
        if match and re.search(rf"SrunHost:Pid=\S+:{pid}\s*$", block, re.MULTILINE):
            return match[1]
    return ""


CANDIDATES = (Srun(),)
