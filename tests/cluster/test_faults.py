"""What a broken node costs: itself, with its own reason; everybody else ends complete."""

from __future__ import annotations

import getpass
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.environments import make_tree
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from tests.cluster.conftest import Job
    from tests.lab import FaultyLab

pytestmark = pytest.mark.cluster


def failures(report: dict[str, Any]) -> dict[str, str]:
    """The code of each node's failure."""
    return {node["node"]: node["failure"]["code"] for node in report["nodes"] if node["failure"]}


def test_a_dead_host_costs_only_itself(job: Job, data: Path) -> None:
    job.lab.kill("n002")
    report = job.report(data, exit_code=31)
    assert failures(report) == {"n002": "ssh-refused"}
    assert report["succeeded"] == 3
    assert job.files("n003", f"/tmp/{data.name}") == job.files("n000", str(data))


def test_with_a_threshold_the_failed_hosts_are_listed_as_the_hostfile_names_them(job: Job, data: Path) -> None:
    place = f"/tmp/{data.name}"
    job.hostfile.write_text("".join(f"{host.fqdn}\n" for host in job.lab.hosts))
    job.lab.kill("n002")
    done = job.yeet(data, "--min-success-nodes", "3")
    assert done.returncode == 0, done.stderr
    listed = f"{place}/.ezpz-yeet-failed-nodes.txt"
    assert job.sh("n000", f"cat {listed}") == f"{job.lab.hosts[2].fqdn}\n"
    assert listed in done.stdout
    job.lab.reboot("n002")
    assert job.yeet(data, "--min-success-fraction", "0.75").returncode == 0
    assert job.sh("n000", f"ls {listed} 2>&1 || true").startswith("ls: ")


def test_a_threshold_that_is_missed_is_exit_1(job: Job, data: Path) -> None:
    job.lab.kill("n002")
    job.lab.kill("n003")
    report = job.report(data, "--min-success-fraction", "0.7", exit_code=1)
    assert report["status"] == "failure"
    assert job.sh("n000", "ls -A /tmp") == "", "nothing should have moved: the threshold was out of reach"


def test_a_list_of_failed_nodes_that_cannot_be_removed_fails_the_run(job: Job, data: Path) -> None:
    job.report(data)
    listed = f"/tmp/{data.name}/.ezpz-yeet-failed-nodes.txt"
    job.sh("n000", f"mkdir {listed}")
    for threshold in ((), ("--min-success-nodes", "1")):
        document = job.report(data, *threshold, exit_code=27)
        assert document["error"]["code"] == "stale-list"


def test_a_hung_host_is_given_up(job: Job, data: Path) -> None:
    job.lab.freeze("n001")
    report = job.report(data, exit_code=36)
    assert failures(report) == {"n001": "node-lost"}
    assert report["succeeded"] == 3


def test_a_host_that_dies_in_the_middle_costs_the_rsync_engine_only_that_one(job: Job) -> None:
    tree = job.lab.shared / "large"
    make_tree(tree, files=400, total_bytes=300_000_000, seed=4)
    running = job.ezpz.popen("yeet", tree, "--hostfile", job.hostfile, "--json", "--retries", "1", "--engine", "rsync")
    try:
        staged = f"ls -d /tmp/.{tree.name}.ezpz-*/tree/lib 2>/dev/null || true"
        wait_until(lambda: job.sh("n002", staged), "its first file on n002", process=running)
        job.lab.kill("n002")
        out, err = running.communicate(timeout=DEADLINE)
    finally:
        running.kill()
    report = json.loads(out)
    assert set(failures(report)) == {"n002"}, err
    assert report["succeeded"] == 3
    assert job.files("n003", f"/tmp/{tree.name}") == job.files("n000", str(tree))


def test_a_full_disk_is_found_before_anything_moves_there(job: Job, data: Path) -> None:
    job.lab.fill("n002", 1_000_000)
    report = job.report(data, exit_code=23)
    assert failures(report) == {"n002": "no-space"}
    message = next(node["failure"]["message"] for node in report["nodes"] if node["failure"])
    assert re.fullmatch(r"n002: '/tmp' \(tmpfs\) has [\d.]+ [kM]B free, [\d.]+ MB needed", message)
    assert next(node["attempts"] for node in report["nodes"] if node["failure"]) == 0
    assert job.sh("n002", "ls -A /tmp") == ".lab-filler\n"
    assert report["succeeded"] == 3


def test_a_disk_that_fills_in_the_middle_leaves_nothing_there(job: Job) -> None:
    tree = job.lab.shared / "filling"
    make_tree(tree, files=400, total_bytes=200_000_000, seed=5)
    job.lab.fill("n002", 220_000_000)
    running = job.ezpz.popen("yeet", tree, "--hostfile", job.hostfile, "--json", "--engine", "rsync")
    staged = f"ls -d /tmp/.{tree.name}.ezpz-*/tree/lib 2>/dev/null || true"
    wait_until(lambda: job.sh("n002", staged), "its first file on n002", process=running)
    job.sh("n002", "cat /dev/zero > /tmp/filler 2>/dev/null || true")
    out, _ = running.communicate(timeout=DEADLINE)
    report = json.loads(out)
    assert failures(report) == {"n002": "no-space"}
    assert running.returncode == 23
    assert report["succeeded"] == 3
    assert job.sh("n002", "ls -A /tmp") == ".lab-filler\nfiller\n"


def test_a_failed_rerun_leaves_the_previous_version(job: Job, data: Path) -> None:
    job.report(data)
    before = job.files("n002", f"/tmp/{data.name}")
    (data / "large").write_bytes(b"\1" * 40_000_000)
    job.lab.fill("n002", 10_000_000)
    report = job.report(data, "--min-success-nodes", "3")
    assert failures(report) == {"n002": "no-space"}
    assert job.files("n002", f"/tmp/{data.name}") == before
    assert job.litter("n002") == []


def test_an_environment_does_not_go_to_a_noexec_disk(job: Job, bare_venv: Path) -> None:
    job.lab.mount_noexec("n001")
    report = job.report(bare_venv, exit_code=24)
    assert failures(report) == {"n001": "noexec"}


def test_data_may_go_to_a_noexec_disk(job: Job, data: Path) -> None:
    job.lab.mount_noexec("n001")
    assert job.report(data)["succeeded"] == 4


def test_rsync_missing_there_matters_to_its_engine_alone(job: Job, data: Path) -> None:
    job.lab.without("n001", "rsync")
    report = job.report(data, "--engine", "rsync", exit_code=30)
    assert failures(report) == {"n001": "tool-missing"}
    assert job.report(data)["succeeded"] == 4


@pytest.mark.parametrize("tool", ["rsync", "ssh"])
def test_a_tool_missing_here(job: Job, data: Path, tool: str) -> None:
    folder = job.lab.shared / f"path-without-{tool}"
    folder.mkdir(exist_ok=True)
    for name in {"rsync", "ssh", "sh"} - {tool}:
        if not (folder / name).exists():
            (folder / name).symlink_to(f"/usr/bin/{name}")
    line = job.ezpz.argv("yeet", data, "--hostfile", job.hostfile, "--engine", "rsync")
    done = job.lab.run("n000", ["/usr/bin/env", f"PATH={folder}", *line], check=False)
    assert done.returncode == 30
    assert f"'{tool}' is not on PATH on this host" in done.stderr
    assert "hint: " in done.stderr


def test_an_unknown_host_key(job: Job, data: Path) -> None:
    known = Path.home() / ".ssh" / "known_hosts"
    others = [line for line in job.sh("n000", f"cat {known}").splitlines() if "n001" not in line]
    job.lab.cover("n000", known, "\n".join(others) + "\n")
    report = job.report(data, exit_code=32)
    assert failures(report) == {"n001": "host-key-unknown"}


def test_hosts_that_want_a_password(job: Job, data: Path) -> None:
    job.lab.cover("n000", Path.home() / ".ssh" / "id_ed25519", "")
    report = job.report(data, exit_code=33)
    assert failures(report) == dict.fromkeys(("n001", "n002", "n003"), "login-refused")
    assert "a password cannot be typed here" in str(report)


def test_a_host_that_does_not_exist(job: Job, data: Path) -> None:
    with job.hostfile.open("a") as file:
        file.write("nowhere\n")
    report = job.report(data, exit_code=34)
    assert failures(report) == {"nowhere": "host-unknown"}
    assert report["succeeded"] == 4


def test_a_banner_printed_by_bashrc_breaks_rsync_alone_and_is_explained(job: Job, data: Path) -> None:
    job.lab.bashrc("n001", "echo Welcome to n001; echo -n no newline")
    report = job.report(data, "--retries", "0", "--engine", "rsync", exit_code=35)
    assert failures(report) == {"n001": "chatty-shell"}
    assert report["succeeded"] == 3
    assert job.report(data, "--dst", "/tmp/other")["succeeded"] == 4


def test_two_runs_to_one_destination(job: Job, data: Path) -> None:
    tree = job.lab.shared / "slow"
    make_tree(tree, files=400, total_bytes=200_000_000, seed=6)
    first = job.ezpz.popen("yeet", tree, "--dst", "/tmp/contested", "--hostfile", job.hostfile)
    lock = "ls /tmp/.contested.ezpz-lock 2>/dev/null || true"
    wait_until(lambda: job.sh("n003", lock), "its lock on n003", process=first)
    second = job.yeet(data, "--dst", "/tmp/contested")
    assert first.wait(DEADLINE) == 0, first.communicate()
    assert second.returncode == 22
    assert "another run holds the destination: run " in second.stdout
    assert f" of {getpass.getuser()} on n000" in second.stdout
    assert job.files("n003", "/tmp/contested") == job.files("n000", str(tree))


def test_a_directory_without_a_receipt_is_not_replaced_unless_asked(job: Job, data: Path) -> None:
    job.sh("n002", f"mkdir /tmp/{data.name}; echo precious > /tmp/{data.name}/thesis")
    done = job.yeet(data)
    assert done.returncode == 21
    assert "--replace" in done.stdout
    assert job.sh("n002", f"cat /tmp/{data.name}/thesis") == "precious\n"
    assert job.litter("n000") == []
    assert job.report(data, "--replace")["succeeded"] == 4


def test_a_destination_that_the_nodes_share_is_refused(job: Job, data: Path) -> None:
    shared = job.lab.shared / "not-local"
    report = job.report(data, "--dst", shared, exit_code=20)
    assert "destination-refused" in failures(report).values()
    assert not shared.exists()


@pytest.mark.parametrize("dst", ["/", "/tmp", str(Path.home()), "/proc"])
def test_a_destination_that_is_never_replaced(job: Job, data: Path, dst: str) -> None:
    done = job.yeet(data, "--dst", dst, "--replace")
    assert done.returncode == 20, done.stdout
    assert "destination" in done.stdout


def test_a_copy_that_takes_too_long_is_ended_with_all_its_processes(lab4: FaultyLab, job: Job) -> None:
    tree = job.lab.shared / "endless"
    make_tree(tree, files=400, total_bytes=400_000_000, seed=7)
    report = job.report(tree, "--timeout", "0.2", "--retries", "0", exit_code=37)
    assert set(failures(report).values()) == {"timed-out"}
    assert {node["outcome"] for node in report["nodes"]} == {"ok", "timed_out"}
    assert [lab4.processes(host) for host in lab4.hosts] == [[], [], [], []]
    assert [job.litter(host.name) for host in lab4.hosts] == [[], [], [], []]


def test_nobody_has_it_when_the_source_is_damaged(job: Job) -> None:
    archive = job.lab.shared / "damaged.tar.gz"
    subprocess.run(["tar", "czf", archive, "-C", "/usr/share", "doc/bash"], check=True)
    archive.write_bytes(archive.read_bytes()[:-2000])
    done = job.yeet(archive)
    assert done.returncode == 14
    assert "damaged or cut short" in done.stderr
    assert [job.sh(host.name, "ls -A /tmp") for host in job.lab.hosts] == [""] * 4


def test_nodes_that_cannot_log_in_to_one_another_are_served_by_this_host(
    lab16: FaultyLab, job: Job, data: Path
) -> None:
    for host in lab16.hosts[1:]:
        lab16.cover(host, Path.home() / ".ssh" / "id_ed25519", "")
    report = job.report(data, "--engine", "rsync")
    assert report["succeeded"] == 16
    assert {node["via"] for node in report["nodes"]} == {"", "this host"}
    assert max(node["attempts"] for node in report["nodes"]) == 1


def test_an_agent_that_dies_is_started_again_by_the_rsync_engine_too(job: Job) -> None:
    tree = job.lab.shared / "large"
    make_tree(tree, files=400, total_bytes=300_000_000, seed=10)
    running = job.ezpz.popen("yeet", tree, "--hostfile", job.hostfile, "--json", "--engine", "rsync")
    staged = f"ls -d /tmp/.{tree.name}.ezpz-*/tree/lib 2>/dev/null || true"
    wait_until(lambda: job.sh("n002", staged), "its first file on n002", process=running)
    for pid, argv in job.lab.processes("n002"):
        if "-IS" in argv:
            os.kill(pid, signal.SIGKILL)
    report = json.loads(running.communicate(timeout=DEADLINE)[0])
    assert report["succeeded"] == 4, report
    assert {node["node"]: node["attempts"] for node in report["nodes"]}["n002"] == 2
    assert job.files("n002", f"/tmp/{tree.name}") == job.files("n000", str(tree))


def test_a_broken_disk_here_costs_the_others_nothing(job: Job, bare_venv: Path) -> None:
    job.lab.mount_noexec("n000")
    report = job.report(bare_venv, "--min-success-nodes", "3")
    assert failures(report) == {"n000": "noexec"}
    assert report["succeeded"] == 3
    assert report["failed_list"].startswith("n001:")
    assert job.litter("n000") == []


@pytest.mark.parametrize("missing", [(), ("python3",)])
def test_what_appears_at_the_destination_during_the_run_is_not_replaced(job: Job, missing: tuple[str, ...]) -> None:
    job.lab.without("n002", *missing)
    tree = job.lab.shared / "late"
    if not tree.exists():
        make_tree(tree, files=400, total_bytes=300_000_000, seed=11)
    running = job.ezpz.popen("yeet", tree, "--hostfile", job.hostfile, "--json", "--engine", "rsync")
    staged = f"ls -d /tmp/.{tree.name}.ezpz-*/tree/lib 2>/dev/null || true"
    wait_until(lambda: job.sh("n002", staged), "its first file on n002", process=running)
    job.sh("n002", "mkdir /tmp/late; echo precious > /tmp/late/results")
    report = json.loads(running.communicate(timeout=DEADLINE)[0])
    assert failures(report) == {"n002": "destination-not-ours"}
    assert job.sh("n002", "cat /tmp/late/results") == "precious\n"
    assert report["succeeded"] == 3
