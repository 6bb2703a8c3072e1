"""`ezpz yeet status --leaks` on real hosts: one of them is asked, and what it tells is shown with its remedy."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.environments import make_venv
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.conftest import Job

pytestmark = pytest.mark.cluster

DST = "/tmp/plain"
HANG = """
import os, signal, subprocess
open("/tmp/pids", "w").write("%d %d" % (os.getpid(), subprocess.Popen(["sleep", "600"]).pid))
signal.pause()
"""


@pytest.fixture
def plain(job: Job) -> Path:
    """A venv without packages, on the shared disk."""
    root = job.lab.shared / "plain"
    if not root.exists():
        make_venv(root, python=sys.executable, packages=(), cache=root)
    return root


def test_an_environment_that_looks_nowhere_else(job: Job, venv: Path) -> None:
    job.report(venv)
    done = job.yeet("status", "--leaks", "/tmp/numeric")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("/tmp/numeric on n000, Python 3")
    assert "nothing in it uses a shared filesystem" in done.stdout


def test_leaks_are_told_with_their_remedies_and_as_json(job: Job, plain: Path) -> None:
    job.report(plain)
    variables = {"PYTHONPATH": str(plain), "LD_LIBRARY_PATH": f"{plain}/lib"}
    done = job.yeet("status", "--leaks", DST, env=variables)
    assert done.returncode == 1, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.endswith("2 places on a shared filesystem")
    for name, path in variables.items():
        number = next(number for number, line in enumerate(rest) if line.startswith(f"{name}: "))
        assert rest[number + 1].split() == ["1", path]
    document = job.report("status", "--leaks", DST, env=variables, exit_code=1)
    assert (document["node"], document["exit_code"]) == ("n000", 1)
    assert {leak["what"]: leak["path"] for leak in document["leaks"]} == variables


def test_another_host_is_asked_when_this_one_has_it_not(job: Job, plain: Path) -> None:
    job.report(plain)
    job.sh("n000", f"rm -r {DST}")
    job.sh("n002", f"rm -r {DST}")
    job.lab.kill("n001")
    document = job.report("status", "--leaks", DST, env={"PYTHONPATH": str(plain)}, exit_code=1)
    assert (document["node"], [leak["what"] for leak in document["leaks"]]) == ("n003", ["PYTHONPATH"])


def test_nobody_has_it(job: Job) -> None:
    job.lab.kill("n002")
    done = job.yeet("status", "--leaks", "/tmp/nowhere", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "nodes-failed")
    assert "no node has a version at '/tmp/nowhere' (1 of them did not answer: n002: " in error["message"]
    assert "ezpz yeet" in error["hint"]


@pytest.mark.parametrize("host", ["n000", "n003"])
def test_a_python_that_does_not_work(job: Job, plain: Path, host: str) -> None:
    job.report(plain)
    for other in job.lab.hosts:
        broken = f"rm {DST}/bin/python*" if other.name == host else f"rm -r {DST}"
        job.sh(other.name, broken)
    done = job.yeet("status", "--leaks", DST)
    assert done.returncode == 28, done.stdout + done.stderr
    assert f"'{DST}' has no bin/python3" in done.stderr
    assert ("n003: " in done.stderr) == (host == "n003")


@pytest.mark.parametrize("host", ["n000", "n003"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_a_python_that_hangs(job: Job, plain: Path, host: str, number: int) -> None:
    job.report(plain)
    for other in job.lab.hosts:
        if other.name != host:
            job.sh(other.name, f"rm -r {DST}")
    site = job.lab.path(host, DST) / f"lib/python3.{sys.version_info[1]}/site-packages"
    (site / "sitecustomize.py").write_text(HANG)
    asked = job.ezpz.popen("yeet", "status", "--leaks", DST, "--hostfile", job.hostfile)
    job.sh(host, "while test ! -s /tmp/pids; do sleep 0.05; done")
    asked.send_signal(number)
    asked.communicate(timeout=DEADLINE)
    assert asked.returncode == 128 + number
    left = "for pid in $(cat /tmp/pids); do kill -0 $pid 2>/dev/null && echo $pid; done; true"
    wait_until(lambda: job.sh(host, left) == "", "the end of the python and of its child")


@pytest.mark.parametrize("hosts", ["n000,n001", "n001,n002"])
def test_a_yeet_ends_with_their_number(job: Job, plain: Path, hosts: str) -> None:
    """Also when this host is none of the nodes, and another has to be asked."""
    variables = {"PYTHONPATH": str(plain)}
    done = job.ezpz("yeet", str(plain), "--hosts", hosts, env=variables)
    assert done.returncode == 0, done.stderr
    assert f"it still uses 1 place on a shared filesystem: `ezpz yeet status --leaks {DST}` lists them" in done.stdout
    said = job.ezpz("yeet", str(plain), "--hosts", hosts, "--json", env=variables)
    assert json.loads(said.stdout)["leaks"] == 1
    without = job.ezpz("yeet", str(plain), "--hosts", hosts)
    assert "it still uses" not in without.stdout
