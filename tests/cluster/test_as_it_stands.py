"""A source on this host's own disk that cannot be sent as it stands: what it leads to, and its setuid bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.conftest import Job

pytestmark = pytest.mark.cluster

MAKE = """
mkdir -p /tmp/source/sub /tmp/elsewhere
echo one > /tmp/source/one; echo two > /tmp/elsewhere/two
cp /bin/true /tmp/source/program; chmod 4755 /tmp/source/program
ln -s /tmp/source/one /tmp/source/sub/inside
ln -s /tmp/elsewhere/two /tmp/source/outside
"""
LOOK = "cd {}; stat -c %a program; readlink sub/inside; cat outside; test ! -L outside && echo followed"


def test_to_others_from_a_host_that_is_none_of_the_nodes(job: Job) -> None:
    job.sh("n000", MAKE)
    done = job.ezpz("yeet", "/tmp/source", "--dst", "/tmp/copy", "--hosts", "n001,n002")
    assert done.returncode == 0, done.stderr
    for host in ("n001", "n002"):
        assert job.sh(host, LOOK.format("/tmp/copy")).split() == ["755", "../one", "two", "followed"]
    assert job.sh("n000", "stat -c %a /tmp/source/program; readlink /tmp/source/outside").split() == [
        "4755",
        "/tmp/elsewhere/two",
    ]
    assert all(job.litter(host) == [] for host in ("n000", "n001", "n002"))


def test_one_that_stands_at_the_destination_stays_here_and_arrives_whole(job: Job) -> None:
    job.sh("n000", MAKE)
    done = job.ezpz("yeet", "/tmp/source", "--dst", "/tmp/source", "--hosts", "n000,n001")
    assert done.returncode == 0, done.stderr
    assert job.sh("n001", LOOK.format("/tmp/source")).split()[:1] == ["755"]
    assert job.sh("n001", "cd /tmp/source; cat outside; cat sub/inside; test ! -L outside").split() == ["two", "one"]
    assert job.sh("n000", "stat -c %a /tmp/source/program; readlink /tmp/source/outside").split() == [
        "4755",
        "/tmp/elsewhere/two",
    ]
    assert job.litter("n000") == job.litter("n001") == []
