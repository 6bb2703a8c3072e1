"""Slurm: a job's environment, heterogeneous jobs, and squeue on a login node."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ezpz.cluster.schedulers.base import NodesFound, NotFound
from ezpz.cluster.schedulers.slurm import from_environment, from_squeue, parse_squeue
from ezpz.errors import BadHostName, SchedulerError
from ezpz.runtime import process
from tests.unit.cluster.fakes import World, recorded

if TYPE_CHECKING:
    from pytest_subprocess import FakeProcess

SQUEUE = ("squeue", "--me", "-h", "-t", "R", "-o", "%A %N")


@pytest.mark.parametrize("suffix", ["JOB_NODELIST", "NODELIST"])
@pytest.mark.parametrize("job", ["SLURM_JOB_ID", "SLURM_JOBID"])
def test_environment_old_and_new(suffix: str, job: str) -> None:
    answer = from_environment(World().context({f"SLURM_{suffix}": "nid[001234-001235,001300]", job: "77"}))
    assert isinstance(answer, NodesFound)
    assert answer.names == ("nid001234", "nid001235", "nid001300")
    assert (answer.scheduler, answer.job_id) == ("slurm", "77")


def test_heterogeneous_job() -> None:
    environ = {
        "SLURM_JOB_ID": "5",
        "SLURM_JOB_NODELIST": "a[1-2]",
        "SLURM_HET_SIZE": "2",
        "SLURM_JOB_NODELIST_HET_GROUP_0": "a[1-2]",
        "SLURM_JOB_NODELIST_HET_GROUP_1": "b7",
    }
    answer = from_environment(World().context(environ))
    assert isinstance(answer, NodesFound)
    assert answer.names == ("a1", "a2", "b7")


@pytest.mark.parametrize("size", ["2", "x", "", "99999999999", "-1", "²"])
def test_a_het_size_without_its_groups_is_ignored(size: str) -> None:
    answer = from_environment(World().context({"SLURM_JOB_NODELIST": "a1", "SLURM_HET_SIZE": size}))
    assert isinstance(answer, NodesFound)
    assert answer.names == ("a1",)


def test_no_environment_and_a_broken_one() -> None:
    assert from_environment(World().context({"SLURM_JOB_ID": "5"})) == NotFound("SLURM_JOB_NODELIST is not set")
    with pytest.raises(SchedulerError, match="SLURM_JOB_NODELIST"):
        from_environment(World().context({"SLURM_JOB_NODELIST": "a[1-"}))
    with pytest.raises(BadHostName, match="SLURM_JOB_NODELIST"):
        from_environment(World().context({"SLURM_JOB_NODELIST": "-x"}))


def test_squeue_with_one_job() -> None:
    world = World("login07").says("squeue", recorded("squeue-frontier"))
    answer = from_squeue(world.context())
    assert isinstance(answer, NodesFound)
    assert answer.names == ("frontier00001", "frontier00002", "frontier00003", "frontier00128")
    assert answer.job_id == "2061745"
    assert world.asked == [SQUEUE]


def test_squeue_with_several_jobs_refuses_and_lists_them() -> None:
    with pytest.raises(SchedulerError) as caught:
        from_squeue(World().says("squeue", recorded("squeue-perlmutter")).context())
    assert "21345678 on 4 nodes, 21345699 on 1 node" in caught.value.message
    assert caught.value.hint == "pass --hosts, or set SLURM_JOB_ID to one of them"


def test_squeue_with_several_jobs_and_a_choice() -> None:
    world = World().says("squeue", recorded("squeue-perlmutter"))
    answer = from_squeue(world.context({"SLURM_JOB_ID": "21345699"}))
    assert isinstance(answer, NodesFound)
    assert answer.names == ("nid005512",)
    world = World("nid001300").says("squeue", recorded("squeue-perlmutter"))
    answer = from_squeue(world.context())
    assert isinstance(answer, NodesFound)
    assert answer.job_id == "21345678"


def test_squeue_with_nothing() -> None:
    assert from_squeue(World().context()) == NotFound("not on PATH")
    assert from_squeue(World().says("squeue").context()) == NotFound("you have no running job")
    answer = from_squeue(World().says("squeue", err="unrecognized option '--me'", returncode=1).context())
    assert isinstance(answer, NotFound)
    assert answer.notable


def test_parse_squeue_of_nonsense() -> None:
    assert parse_squeue("slurm_load_jobs error\n12 (null)\n13\n14 \n\n") == ()
    with pytest.raises(SchedulerError, match="job 15"):
        parse_squeue("15 n[1-\n")


def test_a_real_squeue_that_fails(fp: FakeProcess) -> None:
    fp.register(SQUEUE, stderr="slurm_load_jobs error: Unable to contact slurm controller", returncode=1)
    context = World().context()
    answer = from_squeue(replace(context, system=replace(context.system, run=process.run)))
    assert isinstance(answer, NotFound)
    assert "Unable to contact" in answer.why
