"""`--base auto`, the default, asks the nodes together whether they have the same interpreter; `keep` asks nobody."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.conftest import Job
from tests.lab.pythons import about, python
from tests.relocation.moves import venv

if TYPE_CHECKING:
    from tests.conftest import Ezpz

pytestmark = pytest.mark.cluster

SYSTEM = Path("/usr/bin/python3.11")


@pytest.fixture
def job(ezpz: Ezpz) -> Job:
    return Job(ezpz.lab, ezpz, ezpz.lab.write_hostfile(ezpz.lab.shared / "hostfile"))


AUTO = "/tmp/auto"
OTHER = """#!/bin/sh
printf '3.11.0 (another)'
"""


@pytest.fixture
def of_all(job: Job) -> Path:
    """A venv of the system's python, which every host has."""
    source = job.lab.shared / "auto"
    if not SYSTEM.exists():
        pytest.skip(f"no {SYSTEM} here")
    return source if source.exists() else venv(SYSTEM, source)


def test_case_07_a_base_that_all_nodes_have_stays(job: Job, of_all: Path) -> None:
    report = job.report(of_all)
    assert report["relocation"]["base"] == {
        "mode": "kept", "reason": "every node has it", "path": "/usr", "bytes": 0, "site_packages_bytes": 0,
    }  # fmt: skip
    for host in job.lab.hosts:
        assert job.sh(host.name, f"{AUTO}/bin/where; ls -A {AUTO}").split()[0] == AUTO
        assert ".python" not in job.sh(host.name, f"ls -A {AUTO}")


def test_case_07_one_node_without_it_is_enough(job: Job, of_all: Path) -> None:
    other = Path(python("3.8")).parent
    job.lab.without("n002", "python3.11")
    job.lab.bashrc("n002", f"export PATH={other}:$PATH\n")  # for the agent
    base = job.report(of_all, "--compile", "never")["relocation"]["base"]
    assert (base["mode"], base["reason"]) == ("embedded", f"n002: '{SYSTEM}' is not there")
    assert base["bytes"] > 10_000_000
    for host in job.lab.hosts:
        ask = f"{AUTO}/bin/where; {AUTO}/bin/python -c 'import ssl, sys; print(sys.base_prefix)'"
        assert job.sh(host.name, ask).split() == [AUTO, f"{AUTO}/.python"]


def test_case_07_one_node_with_another_build_is_enough(job: Job) -> None:
    executable = Path(about(python("3.12"))["executable"])
    source = venv(executable, job.lab.shared / "auto-build")
    job.lab.cover("n003", executable, OTHER)
    (job.lab.state / "n003" / f"cover-{executable.name}").chmod(0o755)
    base = job.report(source, "--dst", AUTO, "--compile", "never")["relocation"]["base"]
    assert (base["mode"], base["reason"]) == ("embedded", f"n003: '{executable}' is '3.11.0 (another)'")
    assert job.sh("n003", f"{AUTO}/bin/where") == f"{AUTO}\n"


def test_keep_asks_nobody(job: Job, of_all: Path) -> None:
    job.lab.without("n002", "python3.11")
    job.lab.bashrc("n002", f"export PATH={Path(python('3.8')).parent}:$PATH\n")
    report = job.report(of_all, "--base", "keep", "--min-success-nodes", "3")
    assert (report["relocation"]["base"]["mode"], report["relocation"]["base"]["reason"]) == ("kept", "asked for")
    assert [(node["node"], node["failure"]["code"]) for node in report["nodes"] if node["failure"]] == [
        ("n002", "smoke-failed")
    ]
