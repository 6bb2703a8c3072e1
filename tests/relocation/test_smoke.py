"""The environment's python is tried on every node before it is published; a node where it fails keeps what it had."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.conftest import Job
from tests.lab.pythons import copy_python, python
from tests.relocation.moves import venv

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Ezpz

pytestmark = pytest.mark.cluster

DST = "/tmp/tried"
KEEP = ("--dst", DST, "--base", "keep")
BROKEN = "raise ImportError('broken on purpose')\n"
WHY = "n002: the environment does not work there: 'bin/python3': `import sqlite3` fails: broken on purpose"


@pytest.fixture
def job(ezpz: Ezpz) -> Job:
    return Job(ezpz.lab, ezpz, ezpz.lab.write_hostfile(ezpz.lab.shared / "hostfile"))


@pytest.fixture
def source(job: Job) -> Path:
    """A venv whose base every host has, so that it can be broken for one of them."""
    base, source = job.lab.shared / "base", job.lab.shared / "tried"
    if not source.exists():
        venv(copy_python(python("3.11"), base), source)
    return source


def library(job: Job, module: str) -> Path:
    return job.lab.shared / "base" / "lib" / "python3.11" / module


def receipt(job: Job, host: str) -> dict[str, str]:
    said: dict[str, str] = json.loads(job.sh(host, f"cat {DST}/.ezpz-yeet-receipt.json"))
    return said


def test_a_node_where_it_fails_keeps_what_it_had_and_the_others_go_on(job: Job, source: Path) -> None:
    first = job.report(source, *KEEP)
    assert first["succeeded"] == 4
    job.lab.cover("n002", library(job, "sqlite3/__init__.py"), BROKEN)
    (source / "new.txt").write_text("new\n")
    second = job.report(source, *KEEP, "--min-success-nodes", "3")
    (source / "new.txt").unlink()
    outcomes = {
        node["node"]: node["failure"] and (node["failure"]["code"], node["outcome"]) for node in second["nodes"]
    }
    assert outcomes == {"n000": None, "n001": None, "n002": ("smoke-failed", "failed"), "n003": None}
    assert next(node["failure"]["message"] for node in second["nodes"] if node["failure"]) == WHY
    assert (second["status"], second["version"] == first["version"]) == ("partial", False)
    versions = {host.name: receipt(job, host.name)["version"] for host in job.lab.hosts}
    assert versions == {host: first["version"] if host == "n002" else second["version"] for host in versions}
    assert job.sh("n002", f"{DST}/bin/where; ls {DST}").split()[0] == DST
    assert "new.txt" not in job.sh("n002", f"ls {DST}")
    assert all(job.litter(host.name) == [] for host in job.lab.hosts)


def test_without_a_threshold_the_node_is_a_failed_node_and_so_is_the_run(job: Job, source: Path) -> None:
    job.lab.cover("n003", library(job, "sqlite3/__init__.py"), BROKEN)
    report = job.report(source, *KEEP, exit_code=28)
    assert [(node["node"], node["failure"]["code"]) for node in report["nodes"] if node["failure"]] == [
        ("n003", "smoke-failed")
    ]
    assert job.sh("n003", "ls -A /tmp") == ""
    assert job.sh("n001", f"{DST}/bin/where") == f"{DST}\n"


def test_where_the_source_fails_too_nothing_is_asked_for(job: Job, source: Path) -> None:
    """What it cannot import at the source is no failure."""
    path = library(job, "sqlite3/__init__.py")
    text = path.read_text()
    path.write_text(BROKEN)
    try:
        assert job.report(source, *KEEP)["succeeded"] == 4
    finally:
        path.write_text(text)


def test_where_it_fails_on_the_launching_host_nothing_is_published(job: Job, source: Path) -> None:
    """A module that cannot be imported once the environment is staged, whatever relocation did."""
    pth = source / "lib" / "python3.11" / "site-packages" / "staged.pth"
    pth.write_text("import sys; sys.modules.update({'ssl': None} if '.ezpz-' in sys.prefix else {})\n")
    done = job.yeet(source, *KEEP, "--json")
    pth.unlink()
    assert done.returncode == 28, done.stdout + done.stderr
    error = json.loads(done.stdout)["error"]
    assert (error["code"], "`import ssl` fails" in error["message"]) == ("smoke-failed", True)
    assert all(job.sh(host.name, "ls -A /tmp") == "" for host in job.lab.hosts)
