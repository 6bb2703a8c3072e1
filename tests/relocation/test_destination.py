"""What a destination must be is asked on every node before a byte moves: numbers 55 to 62, on the hosts of the lab."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.conftest import Job
from tests.contract.support import needs_root
from tests.lab.environments import make_tree
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Ezpz

pytestmark = pytest.mark.cluster
HOSTS = ("n000", "n001", "n002", "n003")


@pytest.fixture
def job(ezpz: Ezpz) -> Job:
    return Job(ezpz.lab, ezpz, ezpz.lab.write_hostfile(ezpz.lab.shared / "hostfile"))


@pytest.fixture
def data(job: Job) -> Path:
    """A plain directory of 60 files, 600 kB, on the shared disk."""
    root = job.lab.shared / f"data-{len(list(job.lab.shared.iterdir()))}"
    make_tree(root, files=60, total_bytes=600_000, seed=1)
    return root


@pytest.fixture
def environment(data: Path) -> Path:
    """What passes for an environment, as far as disks are concerned."""
    (data / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    return data


def failures(report: dict[str, Any]) -> dict[str, str]:
    return {node["node"]: node["failure"]["code"] for node in report["nodes"] if node["failure"]}


def message(report: dict[str, Any], node: str) -> str:
    (found,) = (each["failure"]["message"] for each in report["nodes"] if each["node"] == node)
    return str(found)


def standing(job: Job) -> dict[str, str]:
    """The names in each host's /tmp."""
    return {host: job.sh(host, "ls -A /tmp") for host in HOSTS}


def nothing_moved(report: dict[str, Any]) -> bool:
    return "read" not in report["phases"] and not any(node["sent_bytes"] for node in report["nodes"])


def test_case_55_an_environment_is_refused_on_noexec_and_data_is_not(job: Job, environment: Path) -> None:
    for host in HOSTS:
        job.lab.mount_noexec(host)
    report = job.report(environment, exit_code=24)
    assert failures(report) == dict.fromkeys(HOSTS, "noexec")
    assert "'/tmp' (tmpfs) is mounted noexec" in message(report, "n002")
    assert nothing_moved(report)
    assert standing(job) == dict.fromkeys(HOSTS, "")
    (environment / "pyvenv.cfg").unlink()
    assert job.report(environment)["succeeded"] == 4


def test_case_56_room_is_asked_for_on_every_node(job: Job, data: Path) -> None:
    for host in HOSTS:
        job.lab.fill(host, 300_000)
    report = job.report(data, exit_code=23)
    assert failures(report) == dict.fromkeys(HOSTS, "no-space")
    assert "free" in message(report, "n003")
    assert nothing_moved(report)
    assert standing(job) == dict.fromkeys(HOSTS, ".lab-filler\n")


@needs_root
def test_case_56_so_are_inodes(job: Job, data: Path) -> None:
    job.lab.mount_noexec("n002")  # has it made anew afterwards
    job.sh("n002", "mount -t tmpfs -o nr_inodes=50 few /tmp")
    report = job.report(data, exit_code=23)
    assert failures(report) == {"n002": "no-space"}
    assert "inodes free" in message(report, "n002")
    assert job.sh("n002", "ls -A /tmp") == ""
    assert report["succeeded"] == 3


@needs_root
def test_case_56_so_is_memory_where_files_live_in_it(job: Job, data: Path) -> None:
    job.lab.cover("n001", "/proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 300 kB\n")
    report = job.report(data, exit_code=23)
    assert failures(report) == {"n001": "no-space"}
    assert "lives in memory" in message(report, "n001")
    assert job.sh("n001", "ls -A /tmp") == ""


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ("mkdir {}; chown 65534 {}", "destination-not-ours"),
        ("mkdir {}; chown 65534 {}; cp /proc/version {}/.ezpz-yeet-receipt.json", "destination-not-ours"),
        ("mkdir /tmp/mine; ln -s mine {}", "destination-refused"),
        ("ln -s nothing {}", "destination-refused"),
        ("mkfifo {}", "destination-not-ours"),
        ("touch {}", "destination-not-ours"),
        ("mkdir {}", "destination-not-ours"),
    ],
    ids=["somebody's", "somebody's with a receipt", "a link", "a link to nothing", "a FIFO", "a file", "no receipt"],
)
@needs_root
def test_case_57_what_is_not_ours_on_one_node_is_refused_before_any_has_it(
    job: Job, data: Path, made: str, code: str
) -> None:
    place = f"/tmp/{data.name}"
    job.sh("n002", made.replace("{}", place))
    before = job.sh("n002", "ls -lAR --time-style=+%s.%N /tmp")
    report = job.report(data, exit_code=20 if code == "destination-refused" else 21)
    assert failures(report) == {"n002": code}
    assert place in message(report, "n002")
    assert nothing_moved(report)
    assert job.sh("n002", "ls -lAR --time-style=+%s.%N /tmp") == before
    assert {host: names for host, names in standing(job).items() if names and host != "n002"} == {}


@needs_root
@pytest.mark.parametrize("mode", ["777", "775"])
def test_case_57_nor_where_others_could_replace_it(job: Job, data: Path, mode: str) -> None:
    job.sh("n002", f"mkdir -m {mode} /tmp/open; [ {mode} = 777 ] || chown 65534 /tmp/open")
    report = job.report(data, "--dst", "/tmp/open/D", exit_code=20)
    assert failures(report) == {"n002": "destination-refused"}
    assert nothing_moved(report)
    assert job.sh("n002", "ls -A /tmp/open") == ""


USER = """
import os, sys, time
os.chdir(sys.argv[1])
file = open("held")
print("ready", flush=True)
sys.stdin.readline()
print(file.read(), os.path.exists(os.path.join(sys.argv[1], "new")), flush=True)
"""


@pytest.fixture
def user(job: Job, data: Path) -> Iterator[subprocess.Popen[str]]:
    """A process on n002 that works in the destination, with a file open; a line makes it go on and end."""
    (data / "held").write_text("old")
    job.report(data)
    python = ["/usr/bin/python3", "-c", USER, f"/tmp/{data.name}"]
    using = job.lab.popen("n002", python, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield using
    finally:
        using.kill()
        using.communicate()


def test_case_58_what_is_in_use_is_replaced_at_once_and_its_users_go_on(
    job: Job, data: Path, user: subprocess.Popen[str]
) -> None:
    assert user.stdout is not None
    assert user.stdout.readline() == "ready\n"
    (data / "held").write_text("another content")
    (data / "new").touch()
    assert job.report(data)["succeeded"] == 4
    assert job.sh("n002", f"cat /tmp/{data.name}/held") == "another content"
    assert user.communicate("\n", timeout=DEADLINE)[0] == "old True\n"
    assert job.litter("n002") == []


def test_case_59_a_rerun_sends_what_changed_and_removes_what_is_gone(job: Job, data: Path) -> None:
    job.report(data)
    again = job.report(data)
    assert {node["unchanged"] for node in again["nodes"]} == {True}
    assert {node["sent_files"] for node in again["nodes"]} == {0}
    files = sorted(path for path in data.rglob("*") if path.is_file())
    files[0].unlink()
    files[1].write_text("changed")
    third = job.report(data)
    assert {node["removed"] for node in third["nodes"]} == {1}
    assert [node["sent_files"] for node in third["nodes"] if node["node"] != "n000"] == [1, 1, 1]
    assert job.files("n003", f"/tmp/{data.name}") == job.files("n000", str(data))


def test_case_60_a_disk_that_nodes_share_is_found_out_wherever_it_is(job: Job, data: Path) -> None:
    place = job.lab.shared / "tmp" / "D"
    report = job.report(data, "--dst", place, exit_code=20)
    assert "destination-refused" in failures(report).values()
    assert any("is not node-local" in message(report, node) for node in failures(report))
    assert nothing_moved(report)
    assert not place.parent.exists()


def test_case_60_what_stands_at_the_destination_here_is_served_from_there(job: Job, data: Path) -> None:
    job.sh("n000", f"cp -a {data} /tmp/D")
    before = job.sh("n000", "ls -lRi --time-style=+%s.%N /tmp/D")
    report = job.report("/tmp/D")
    assert report["plan"]["source"]["in_place"]
    assert job.sh("n000", "ls -lRi --time-style=+%s.%N /tmp/D") == before
    assert job.files("n003", "/tmp/D") == job.files("n000", "/tmp/D")


def test_case_60_a_copy_elsewhere_on_the_same_disk_is_a_copy(job: Job, data: Path) -> None:
    job.sh("n000", f"cp -a {data} /tmp/S; ln -s /tmp /tmp/alias")
    report = job.report("/tmp/S", "--dst", "/tmp/D")
    assert not report["plan"]["source"]["in_place"]
    assert job.files("n000", "/tmp/D") == job.files("n000", "/tmp/S")
    assert job.report("/tmp/alias/S")["plan"]["source"]["in_place"]  # /tmp/S by another name


def test_case_61_the_destination_has_the_name_that_was_given(job: Job, data: Path) -> None:
    link = job.lab.shared / f".venv-{data.name}"
    link.symlink_to(data)
    report = job.report(link)
    assert report["plan"]["destination"] == f"/tmp/{link.name}"
    assert job.files("n003", f"/tmp/{link.name}") == job.files("n000", str(data))
    link.unlink()


@pytest.mark.parametrize("place", ["S/inside", "S/a/b", "S", "S/", "alias/inside", "alias", "S/../S/x", ".", "../{}"])
def test_case_62_the_source_and_the_destination_never_hold_each_other(job: Job, data: Path, place: str) -> None:
    top = job.lab.shared / f"case-62-{data.name}"
    top.mkdir()
    data.rename(top / "S")
    (top / "alias").symlink_to("S")
    before = job.sh("n000", f"ls -lARi --time-style=+%s.%N {top}")
    destination = os.path.join(top, place.replace("{}", top.name))
    report = job.report(top / "S", "--dst", destination, "--replace", exit_code=20)
    assert set(failures(report).values()) == {"destination-refused"}
    assert nothing_moved(report)
    assert job.sh("n000", f"ls -lARi --time-style=+%s.%N {top}") == before
