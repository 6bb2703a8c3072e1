"""The `srun` of Slurm."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, ClassVar

from ezpz.cluster.hostnames import fold
from ezpz.cluster.schedulers.slurm import SLURM
from ezpz.errors import TimedOut, ToolMissing
from ezpz.launch.launchers.base import Availability, Invocation, Launcher, RankVariables, binding_words
from ezpz.launch.launchers.failure_lines import EXIT, FAULT, NODE, NODE_GROUP, SIGNAL, TIME, FailurePattern
from ezpz.launch.launchers.output_labels import LabelFormat
from ezpz.remote import transports
from ezpz.runtime import process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.launch.launchers.base import LaunchSpec, Tools
    from ezpz.runtime.process import Running

SLURM_TIMEOUT = 5.0  # seconds for each of Slurm's commands

EXIT_PATTERN = (  # srun's own status is 143 then, from the ranks that it ends
    r"error: \S+: tasks? [\d,-]+: "
    r"(?:Exited with exit code (?P<code>\d+)|(?P<signal>Killed|Aborted|Segmentation fault|Bus error|Terminated))"
)
_SIGNALS = {
    "Hangup": 1, "Interrupt": 2, "Quit": 3, "Illegal instruction": 4, "Aborted": 6, "Bus error": 7,
    "Floating point exception": 8, "Killed": 9, "Out Of Memory": 9, "Segmentation fault": 11, "Terminated": 15,
}  # fmt: skip
_TASK_PREFIX = rf"error: (?:{NODE_GROUP}|\S+): tasks? (?P<ranks>[\d,-]+): "


class SrunLauncher(Launcher):
    """The launcher of Slurm. It also works from outside of the job, and inside of a running step."""

    name = "srun"
    order = 10
    rank_variables: ClassVar[RankVariables | None] = RankVariables(
        "SLURM_PROCID",
        "SLURM_NTASKS",
        "SLURM_LOCALID",
        node_rank="SLURM_NODEID",
        tasks_per_node="SLURM_STEP_TASKS_PER_NODE",
        assigns_devices=True,
    )
    # Messages of slurmstepd have the label of one of the ranks.
    label: ClassVar[LabelFormat | None] = LabelFormat(
        ("--label",),
        re.compile(rb" *(?:(?P<rank>\d+): (?!slurmstepd)|\d+: (?=slurmstepd))"),
        frozenset(("-l", "--label")),
        max_line=1024,
    )
    failure_patterns: ClassVar[tuple[FailurePattern, ...]] = (
        FailurePattern(NODE, "Node failure on", r"error: Node failure on (?P<nodes>\S+)"),
        FailurePattern(NODE, "io error with slurmstepd", r"aborting, io error with slurmstepd on node (?P<index>\d+)"),
        FailurePattern(NODE, "Task launch for", rf"Task launch for StepId=\S+ failed on node {NODE_GROUP}:"),
        FailurePattern(FAULT, "slurmstepd-", rf"slurmstepd-{NODE_GROUP}: error: Detected \d+ oom.kill event", 9),
        FailurePattern(TIME, "CANCELLED AT", r"CANCELLED AT \S+ DUE TO (?:TIME LIMIT|PREEMPTION)"),
        FailurePattern(EXIT, "Exited with exit code", _TASK_PREFIX + r"Exited with exit code (?P<status>\d+)"),
        *(FailurePattern(SIGNAL, f": {word}", _TASK_PREFIX + word, number) for word, number in _SIGNALS.items()),
    )
    output_file_options = r"(-[oe]|--(output|error))"

    def check_availability(self, spec: LaunchSpec, tools: Tools, /) -> Availability:
        if spec.system is not SLURM:
            return Availability(is_available=False, why="this is no Slurm job")
        if not tools.path("srun"):
            return Availability(is_available=False, why="srun is not on PATH")
        return Availability(is_available=True, why=f"the nodes belong to Slurm's job {_slurm_job(spec)}")

    def invocation(self, spec: LaunchSpec) -> Invocation:
        outside = _slurm_job(spec) != spec.environ.get("SLURM_JOB_ID")
        argv = (
            "srun",
            *((f"--jobid={_slurm_job(spec)}",) if outside else ()),
            *(("--overlap",) if outside or "SLURM_STEP_ID" in spec.environ else ()),
            "--quit-on-interrupt",  # one Ctrl-C ends it instead of two
            *("-N", str(len(spec.allocation.nodes))),
            *("-n", str(spec.ranks)),
            f"--ntasks-per-node={spec.ppn}",
            *("-w", fold((node.given for node in spec.allocation.nodes), one_bracket=True)),
            *((f"--gpus-per-task={spec.gpus_per_rank}",) if spec.gpus_per_rank else ()),
            *binding_words("--cpu-bind={}", spec.cpu_bind),
            *spec.options,
            "--",
            *spec.command,
        )  # fmt: skip
        return Invocation(argv, exit_pattern=EXIT_PATTERN)

    def forward_signal(self, running: Running, number: int, spec: LaunchSpec) -> None:
        """Send a signal to the ranks.

        SIGINT and SIGTERM go to the step through Slurm: srun itself would kill the ranks at once. Every other signal,
        and one that Slurm cannot deliver, goes to srun.
        """
        is_sent = number in (signal.SIGINT, signal.SIGTERM) and _signal_step(_slurm_job(spec), running.pid, number)
        if not is_sent:
            running.send_signal(number)

    def rank_status(self, status: int, groups: Mapping[str, bytes | None]) -> int:
        """Return the status from srun's line about the first failed rank. srun's own is less exact."""
        code, name = groups.get("code"), groups.get("signal")
        if status and code:
            return int(code) % 256 or status
        return 128 + _SIGNALS[name.decode()] if status and name else status

    def transport(self, environ: Mapping[str, str]) -> str:
        """Return srun inside of a job, and ssh outside, where srun reaches no nodes."""
        return transports.SrunTransport.name if SLURM.job_variable in environ else super().transport(environ)


def _slurm_job(spec: LaunchSpec) -> str:
    return spec.allocation.job_id or spec.environ.get("SLURM_JOB_ID", "")


def _signal_step(job_id: str, pid: int, number: int) -> bool:
    """Have Slurm send a signal to the step of the srun with this process id. Return whether it did."""
    if not job_id:
        return False
    try:
        steps = process.run(("scontrol", "show", "step", job_id), timeout=SLURM_TIMEOUT)
        step = find_step(steps.out, pid)
        argv = ("scancel", f"--signal={signal.Signals(number).name.removeprefix('SIG')}", step)
        return bool(step) and process.run(argv, timeout=SLURM_TIMEOUT).returncode == 0
    except (ToolMissing, TimedOut):
        return False


def find_step(text: str, pid: int) -> str:
    """Return the step of the srun with this process id from `scontrol show step`, "" if there is none."""
    for block in re.split(r"^(?=StepId=)", text, flags=re.MULTILINE):
        match = re.match(r"StepId=(\S+)", block)
        if match and re.search(rf"SrunHost:Pid=\S+:{pid}\s*$", block, re.MULTILINE):
            return match[1]
    return ""


CANDIDATES = (SrunLauncher(),)
