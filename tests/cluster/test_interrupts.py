"""Ctrl-C, SIGTERM and kill -9 in the middle of a run: nothing half, nothing left, and soon."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.lab.environments import make_tree
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.cluster.conftest import Job

pytestmark = pytest.mark.cluster


@pytest.fixture
def large(job: Job) -> Path:
    root = job.lab.shared / "large"
    if not root.exists():
        make_tree(root, files=800, total_bytes=600_000_000, seed=8)
    return root


def started(job: Job, tree: Path, *options: str) -> subprocess.Popen[str]:
    """A run that has begun to send."""
    running = job.ezpz.popen("yeet", tree, "--hostfile", job.hostfile, *options)
    staged = f"ls -d /tmp/.{tree.name}.ezpz-*/tree/lib 2>/dev/null || true"
    wait_until(lambda: job.sh("n003", staged), "its first file on n003", process=running)
    return running


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_stops_everything_everywhere(job: Job, large: Path, number: signal.Signals, status: int) -> None:
    running = started(job, large)
    running.send_signal(number)
    out, err = running.communicate(timeout=DEADLINE)
    assert running.returncode == status, err
    assert "interrupted: not done on " in out
    assert [job.litter(host.name) for host in job.lab.hosts] == [[]] * 4
    assert [job.lab.processes(host) for host in job.lab.hosts] == [[]] * 4


def test_an_interrupted_run_leaves_previous_versions_and_says_who_has_what(job: Job, large: Path, data: Path) -> None:
    job.report(data, "--dst", "/tmp/large")
    before = job.files("n003", "/tmp/large")
    running = started(job, large, "--json", "--engine", "rsync")  # which lands here before it sends
    running.send_signal(signal.SIGINT)
    report = json.loads(running.communicate(timeout=DEADLINE)[0])
    assert report["interrupted"] == signal.SIGINT
    assert report["exit_code"] == 130
    outcomes = {node["node"]: node["outcome"] for node in report["nodes"]}
    assert outcomes["n000"] == "ok"
    assert outcomes["n003"] == "skipped"
    assert job.files("n003", "/tmp/large") == before


def test_when_the_launching_process_is_killed_the_nodes_clean_up_by_themselves(job: Job, large: Path) -> None:
    running = started(job, large)
    running.kill()
    running.communicate(timeout=DEADLINE)
    remote = job.lab.hosts[1:]
    wait_until(lambda: not any(job.lab.processes(host) or job.litter(host.name) for host in remote), "a clean host")
    assert job.report(large)["succeeded"] == 4
    assert [job.litter(host.name) for host in job.lab.hosts] == [[]] * 4


@pytest.mark.parametrize("command", [("yeet", "/usr/share/doc/bash"), ("yeet", "status", "/tmp/x")])
def test_an_interrupt_while_nodes_are_being_reached_leaves_no_process(job: Job, command: tuple[str, ...]) -> None:
    for host in job.lab.hosts[1:]:
        job.lab.freeze(host)
    running = job.ezpz.popen(*command, "--hostfile", job.hostfile)

    def is_reaching_all() -> bool:
        return sum(argv[0] == "ssh" for _, argv in job.lab.processes("n000")) == 3

    wait_until(is_reaching_all, "an ssh to each node", process=running)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=DEADLINE)
    assert running.returncode == 130, err
    assert "bug" not in err
    assert job.lab.processes("n000") == []
