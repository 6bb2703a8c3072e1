"""What is mounted below a destination on a node stays, whichever engine comes, and the other nodes are served."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.destination.remove_tree import remove_tree
from tests.unit.agent.destination.test_remove_tree import make_deep

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.conftest import Job

pytestmark = pytest.mark.cluster

MOUNTS = {
    "tmpfs": "mount -t tmpfs none PLACE/home; echo precious >PLACE/home/thesis",
    "bind": "mkdir /tmp/home; echo precious >/tmp/home/thesis; mount --bind /tmp/home PLACE/home",
}


@pytest.mark.parametrize("host", ["n000", "n002"])  # the launching host, and a node
@pytest.mark.parametrize(("kind", "engine"), [("tmpfs", "stream"), ("bind", "stream"), ("bind", "rsync")])
def test_a_mount_below_the_destination_stays(job: Job, data: Path, host: str, kind: str, engine: str) -> None:
    place = f"/tmp/{data.name}"
    job.report(data)
    job.sh(host, "mkdir PLACE/home; ".replace("PLACE", place) + MOUNTS[kind].replace("PLACE", place))
    try:
        (data / "new").write_text("new")
        told = f"'{place}/home' is mounted in '{place}'"
        report = job.report(data, "--engine", engine, "--min-success-nodes", "1")
        failures = {each["node"]: each["failure"] for each in report["nodes"] if each["failure"]}
        assert set(failures) == {host}
        assert failures[host]["code"] == "destination-refused"
        assert told in failures[host]["message"]
        assert failures[host]["hint"] == f"unmount it first: `umount {place}/home`"
        cleaned = job.yeet("clean", place, "--yes")
        assert cleaned.returncode == 20, cleaned.stdout
        assert told in cleaned.stdout
        assert job.sh(host, f"cat {place}/home/thesis") == "precious\n"
        assert [job.litter(each.name) for each in job.lab.hosts] == [[]] * 4
        assert [each.name for each in job.lab.hosts if job.sh(each.name, f"ls -d {place} || true")] == [host]
    finally:
        job.sh(host, f"umount {place}/home")
    assert job.yeet("clean", place, "--yes").returncode == 0
    assert job.sh(host, f"ls -d {place} || true") == ""


def test_a_deep_tree_comes_again_and_again_and_goes(job: Job) -> None:
    source = job.lab.shared / "deep"
    make_deep(source, 1100)
    try:
        for content in ("1", "2", "3"):
            (source / "top").write_text(content)
            job.report(source)
            assert [job.litter(each.name) for each in job.lab.hosts] == [[]] * 4
        assert [job.sh(each.name, "cat /tmp/deep/top") for each in job.lab.hosts] == ["3"] * 4
        assert job.yeet("clean", "/tmp/deep", "--yes").returncode == 0
        assert "".join(job.sh(each.name, "ls -A /tmp") for each in job.lab.hosts) == ""
    finally:
        remove_tree(os.fsencode(source))  # which shutil.rmtree cannot
