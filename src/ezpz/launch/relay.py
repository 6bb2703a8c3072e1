"""How a signal gets to the ranks: to their own processes, or in the way of the launcher that started them."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from ezpz.errors import TimedOut, ToolMissing
from ezpz.runtime import process
from ezpz.runtime.process import to_group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.launch.plan import LaunchPlan
    from ezpz.runtime.process import Running

PATIENCE = 5.0  # seconds for each of Slurm's commands


def relay_of(plan: LaunchPlan, environ: Mapping[str, str]) -> Callable[[Running, int], None]:
    """What passes signals on to the ranks of this plan."""
    if plan.launcher == "local":
        return to_group
    job = plan.job.allocation.job_id or environ.get("SLURM_JOB_ID", "")
    return StepRelay(job) if plan.launcher == "srun" and job else to_launcher


def to_launcher(launcher: Running, number: int) -> None:
    """To the launcher alone, which tells the ranks: an mpiexec whose ssh are ended with it could tell them nothing."""
    launcher.send_signal(number)


class StepRelay:
    """To the ranks of a step of Slurm's job, past `srun`, which ends them at once when it is asked to end."""

    def __init__(self, job: str) -> None:
        self.job = job

    def __call__(self, srun: Running, number: int) -> None:
        """What only srun can tell them, and what cannot be told so, goes to srun."""
        told = number in (signal.SIGINT, signal.SIGTERM) and self._tell(srun.pid, number)
        if not told:
            srun.send_signal(number)

    def _tell(self, pid: int, number: int) -> bool:
        try:
            steps = process.run(("scontrol", "show", "step", self.job), timeout=PATIENCE)
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
