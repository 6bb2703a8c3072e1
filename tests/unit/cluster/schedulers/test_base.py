"""The contract of every scheduler's steps, ours and a third party's; and what `ask` makes of a program."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ezpz.cluster.detect_nodes import installed_steps
from ezpz.cluster.schedulers.base import JobCandidate, NodeDetector, NodesFound, NotFound, run_query, select_job
from ezpz.errors import SchedulerError
from ezpz.runtime import process
from tests.unit.cluster.fakes import STEPS, World

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.label)
def test_in_an_empty_world_a_step_declines_in_words_or_finds_this_host(step: NodeDetector) -> None:
    world = World("n1")
    answer = step.find(world.context())
    if isinstance(answer, NodesFound):
        assert answer.names == ("n1",)
        assert len(answer.warnings) == 1
    else:
        assert answer.why
        assert not answer.notable
        assert "\n" not in answer.why


def test_ranks_give_one_order() -> None:
    assert len({step.rank for step in STEPS}) == len(STEPS)
    assert [step.label for step in sorted(STEPS, key=lambda step: step.rank)] == [
        *("--hosts", "--hostfile", "PBS_NODEFILE", "HOSTFILE", "PBS spool", "qstat"),
        *("Slurm environment", "squeue", "this host"),
    ]


def test_the_installed_schedulers_are_these() -> None:
    evidence: list[str] = []
    assert set(installed_steps(evidence)) >= set(STEPS)
    assert evidence == []


def test_only() -> None:
    jobs = (JobCandidate("1", ("a",)), JobCandidate("2", ("b", "c")))
    assert select_job(jobs[:1], "", "X") is jobs[0]
    assert select_job(jobs[:1], "9", "X") is jobs[0]
    assert select_job(jobs, "2", "X") is jobs[1]
    with pytest.raises(SchedulerError, match="2 of your jobs are running: 1 on 1 node, 2 on 2 nodes"):
        select_job(jobs, "9", "X")


@pytest.mark.processes
def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    program = tmp_path / "qstat"
    program.write_text("#!/bin/sh\nsleep 600\n")
    program.chmod(0o755)
    context = World().context()
    context = replace(context, system=replace(context.system, run=process.run, timeout=0.2))
    assert run_query(context, str(program)) == NotFound("no answer within 0.2 s", notable=True)


@pytest.mark.processes
def test_a_program_that_is_not_executable_is_missing(tmp_path: Path) -> None:
    (tmp_path / "qstat").touch(0o644)
    context = World().context()
    context = replace(context, system=replace(context.system, run=process.run))
    assert run_query(context, os.fspath(tmp_path / "qstat")) == NotFound("not on PATH")
    assert run_query(context, "no-such-program") == NotFound("not on PATH")
