"""A source that changes during the run: the run ends with 13, the nodes keep what they had, and nothing is left."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.slowfs import slowfs
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from tests.cluster.conftest import Job

pytestmark = pytest.mark.cluster

DIRECTORIES, FILES = 10, 60
SLOW = 20_000  # microseconds for a metadata call, so that the source is read long enough to be changed meanwhile
HOSTS = ("n000", "n001", "n002", "n003")
ENGINES = pytest.mark.parametrize("engine", ["stream", "rsync"])


@pytest.fixture
def source(job: Job) -> Path:
    root = job.lab.shared / f"changing-{len(list(job.lab.shared.iterdir()))}"
    for number in range(DIRECTORIES):
        (root / f"d{number}").mkdir(parents=True)
    write(root, 1)
    return root


def write(root: Path, version: int, *, keep_time: bool = False) -> None:
    """Replace every file by one of the same size, as an installer does."""
    for number in range(DIRECTORIES * FILES):
        path = root / f"d{number % DIRECTORIES}" / f"f{number}.py"
        new = path.with_name(".new")
        new.write_text(f"V = {version}\n")
        if keep_time:
            before = path.stat()
            os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
        new.replace(path)


def versions(job: Job, host: str, root: Path) -> str:
    return job.sh(host, f"cat /tmp/{root.name}/*/*.py | sort | uniq -c").strip()


@ENGINES
@pytest.mark.parametrize("keep_time", [False, True], ids=["new times", "old times"])
def test_files_that_are_replaced_while_they_are_read(job: Job, source: Path, engine: str, *, keep_time: bool) -> None:
    job.report(source, "--engine", engine)
    write(source, 2)
    arguments = ("yeet", source, "--hostfile", job.hostfile, "--json", "--engine", engine)
    running = job.ezpz.popen(*arguments, env=slowfs(source, SLOW))
    try:
        staged = f"ls /tmp/.{source.name}.ezpz-*/tree/d* 2>/dev/null || true"
        wait_until(lambda: ".py" in job.sh("n000", staged), "the first staged file", process=running)
        write(source, 3, keep_time=keep_time)
        out, err = running.communicate(timeout=DEADLINE)
    finally:
        running.kill()
    assert running.returncode == 13, out + err
    error = json.loads(out)["error"]
    assert error["code"] == "source-changed"
    assert re.search(r"'d\d+/f\d+\.py' changed", error["message"])
    assert "run it again" in error["hint"]
    for host in HOSTS:
        assert versions(job, host, source) == f"{DIRECTORIES * FILES} V = 1"
        assert job.litter(host) == []
    job.report(source, "--engine", engine)
    assert {versions(job, host, source) for host in HOSTS} == {f"{DIRECTORIES * FILES} V = 3"}


def test_a_source_that_is_sent_from_where_it_stands(job: Job) -> None:
    make = "mkdir /tmp/source; cd /tmp/source; for n in $(seq 100 180); do echo V = 1 > f$n; done"
    job.sh("n000", make)
    arguments = ("yeet", "/tmp/source", "--dst", "/tmp/copy", "--hosts", "n001,n002", "--engine", "rsync", "--json")
    running = job.ezpz.popen(*arguments, env=slowfs(Path("/tmp/source"), SLOW))
    try:
        staged = "ls /tmp/.copy.ezpz-*/tree 2>/dev/null || true"
        wait_until(lambda: "f" in job.sh("n001", staged), "the first staged file", process=running)
        job.sh("n000", "cd /tmp/source; echo V = 2 > new; touch -r f180 new; mv new f180")
        out, err = running.communicate(timeout=DEADLINE)
    finally:
        running.kill()
    assert running.returncode == 13, out + err
    nodes = json.loads(out)["nodes"]
    assert {node["failure"]["code"] for node in nodes} == {"source-changed"}
    assert all("'f180' changed during the run" in node["failure"]["message"] for node in nodes)
    assert [node["attempts"] for node in nodes] == [1, 1]
    for host in ("n001", "n002"):
        assert job.sh(host, "ls -A /tmp") == ""
