"""launch/launchers/srun.py: which step an srun has started, as Slurm 22.05 tells it."""

from __future__ import annotations

from ezpz.launch.launchers.srun import find_step

STEPS = """\
StepId=1.0 UserId=0 StartTime=2026-11-29T02:35:19 TimeLimit=UNLIMITED
   State=RUNNING Partition=lab NodeList=n[000-001]
   Nodes=2 CPUs=2 Tasks=2 Name=sleep Network=(null)
   Dist=Cyclic
   SrunHost:Pid=n000:1845

StepId=1.1 UserId=0 StartTime=2026-11-29T02:35:20 TimeLimit=UNLIMITED
   State=RUNNING Partition=lab NodeList=n[000-001]
   SrunHost:Pid=n000:18451

StepId=1.extern UserId=0 StartTime=2026-11-29T02:35:18 TimeLimit=UNLIMITED
"""


def test_the_step_of_an_srun() -> None:
    assert find_step(STEPS, 1845) == "1.0"
    assert find_step(STEPS, 18451) == "1.1"
    assert find_step(STEPS, 845) == ""
    assert find_step("", 1) == ""
