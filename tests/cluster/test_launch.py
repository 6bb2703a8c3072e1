"""`ezpz launch` through a real MPICH `mpiexec` over ssh, on hosts that only a hostfile names."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.conftest import Job

pytestmark = pytest.mark.cluster


@pytest.mark.skipif(shutil.which("mpiexec.hydra") is None, reason="MPICH is not installed")
def test_hydra_starts_the_ranks_on_every_host_and_hands_their_status_on(job: Job) -> None:
    plan = job.ezpz("launch", "--hostfile", job.hostfile, "--ppn", "2", "--dry-run", "--", "hostname")
    assert plan.returncode == 0, plan.stderr
    assert "mpiexec" in plan.stdout
    done = job.ezpz("launch", "--hostfile", job.hostfile, "--ppn", "2", "--", "hostname")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == [f"n00{number}" for number in range(4) for _ in range(2)]
    failed = job.ezpz("launch", "--hostfile", job.hostfile, "--", "sh", "-c", "exit 7")
    assert failed.returncode == 7, failed.stderr
