"""The stream on real hosts: whoever breaks costs only itself, and the others go on from where they are."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.stream import frames
from tests.conftest import clean_environment
from tests.lab.environments import make_tree
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.conftest import Job
    from tests.lab import FaultyLab

pytestmark = pytest.mark.cluster

SIZE = 80_000_000  # bytes; more than three seconds at 200 Mbit/s
FILLED = 180_000_000  # bytes of a disk of 300 MB
RELAY, LEAF = "n002", "n005"
STRANGER = Path(__file__).with_name("stranger.py")


@pytest.fixture
def large(shaped: FaultyLab) -> Path:
    """Incompressible files, in the shared filesystem of the shaped hosts."""
    root = shaped.shared / "large"
    if not root.exists():
        root.mkdir()
        for number in range(40):
            (root / f"file{number}").write_bytes(os.urandom(SIZE // 40))
    return root


def agents(lab: FaultyLab, host: str) -> list[int]:
    return [pid for pid, argv in lab.processes(host) if "-IS" in argv]


def landed(lab: FaultyLab, host: str) -> float:
    """How much of the tree is on a host's disk, 0 to 1."""
    room = os.statvfs(lab.path(host, "/tmp"))
    return (room.f_blocks - room.f_bfree) * room.f_frsize / SIZE


def broken(job: Job, tree: Path, share: float, fault: Callable[[], object], *options: str) -> dict[str, Any]:
    """The report of a run in which `fault` happened when that share had landed on the relay."""
    running = job.ezpz.popen("yeet", tree, "--hostfile", job.hostfile, "--json", *options)
    try:
        wait_until(lambda: landed(job.lab, RELAY) >= share, "that share", process=running)
        fault()
        out, err = running.communicate(timeout=DEADLINE)
    finally:
        running.kill()
    assert out, err
    report: dict[str, Any] = json.loads(out)
    return report


def failures(report: dict[str, Any]) -> dict[str, str]:
    return {node["node"]: node["failure"]["code"] for node in report["nodes"] if node["failure"]}


def everybody_else_has_it(job: Job, tree: Path, *but: str) -> bool:
    original = job.files("n000", str(tree))
    others = [host.name for host in job.lab.hosts if host.name not in but]
    return all(job.files(name, f"/tmp/{tree.name}") == original for name in others)


class TestFaults:
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_a_relay_that_dies_costs_only_itself(self, shaped: FaultyLab, job: Job, large: Path, share: float) -> None:
        report = broken(job, large, share, lambda: shaped.kill(RELAY), "--retries", "0")
        assert failures(report) == {RELAY: "node-lost"}
        assert everybody_else_has_it(job, large, RELAY)

    @pytest.mark.parametrize("fault", ["freeze", "cut"])
    def test_a_relay_that_hangs_or_is_cut_off_costs_only_itself(
        self, shaped: FaultyLab, job: Job, large: Path, fault: str
    ) -> None:
        report = broken(job, large, 0.4, lambda: getattr(shaped, fault)(RELAY))
        assert failures(report) == {RELAY: "node-lost"}
        assert everybody_else_has_it(job, large, RELAY)

    @pytest.mark.parametrize(
        ("moment", "code", "why"),
        [
            ("before", "timed-out", "no answer to 'prepare' within 30 s"),
            (".*/log", "node-lost", "it has made no progress for"),
            (".*/tree/file9", "node-lost", "it has made no progress for"),
        ],
    )
    def test_a_disk_that_hangs_costs_only_its_node(
        self, shaped: FaultyLab, job: Job, large: Path, moment: str, code: str, why: str
    ) -> None:
        """Before the run, before its first chunk has landed, or in the middle: it holds nobody up."""
        if shutil.which("fsfreeze") is None or shutil.which("mkfs.ext4") is None:
            pytest.skip("needs fsfreeze and mkfs.ext4")
        with shaped.on_disk(RELAY, 2 * SIZE) as disk:
            if moment == "before":
                shaped.hang(RELAY)
            running = job.ezpz.popen("yeet", large, "--hostfile", job.hostfile, "--json")
            try:
                if moment != "before":
                    wait_until(lambda: any(disk.glob(moment)), moment, process=running)
                    shaped.hang(RELAY)
                out, err = running.communicate(timeout=2 * DEADLINE)
            finally:
                running.kill()
        assert out, err
        report = json.loads(out)
        assert failures(report) == {RELAY: code}
        assert everybody_else_has_it(job, large, RELAY)
        nodes = {node["node"]: node for node in report["nodes"]}
        assert why in nodes[RELAY]["failure"]["message"]
        others = [node for name, node in nodes.items() if name != RELAY]
        if moment != "before":
            assert max(node["seconds"] for node in others) < nodes[RELAY]["seconds"]
        assert max(node["attempts"] for node in others) <= 3

    def test_an_agent_that_is_stopped_is_given_up_and_ended(self, shaped: FaultyLab, job: Job, large: Path) -> None:
        def stop() -> None:
            for pid in agents(shaped, RELAY):
                os.kill(pid, signal.SIGSTOP)

        report = broken(job, large, 0.4, stop)
        assert failures(report) == {RELAY: "node-lost"}
        assert everybody_else_has_it(job, large, RELAY)
        assert agents(shaped, RELAY) == []
        assert job.litter(RELAY) == []

    def test_an_agent_that_crashes_is_started_anew(self, shaped: FaultyLab, job: Job, large: Path) -> None:
        def crash() -> None:
            for pid in agents(shaped, RELAY):
                os.kill(pid, signal.SIGKILL)

        report = broken(job, large, 0.5, crash)
        assert report["succeeded"] == 6, failures(report)
        assert {node["node"]: node["attempts"] for node in report["nodes"]}[RELAY] >= 2
        assert everybody_else_has_it(job, large)

    @pytest.mark.parametrize("host", [RELAY, LEAF])
    def test_a_disk_that_fills_costs_only_its_node(self, shaped: FaultyLab, job: Job, large: Path, host: str) -> None:
        filled: list[subprocess.Popen[str]] = []
        job.sh(host, f"head -c {FILLED} /dev/zero > /tmp/filler")  # so that the rest is soon full

        def fill() -> None:
            filled.append(shaped.popen(host, ["sh", "-c", "cat /dev/zero >> /tmp/filler"], stderr=subprocess.DEVNULL))

        report = broken(job, large, 0.2 + (FILLED / SIZE if host == RELAY else 0), fill)
        filled[0].wait()
        assert failures(report) == {host: "no-space"}
        assert everybody_else_has_it(job, large, host)
        assert job.litter(host) == []

    def test_a_slow_cable_slows_only_its_own_host(self, shaped: FaultyLab, job: Job, large: Path) -> None:
        shaped.reshape(RELAY, "50mbit")
        try:
            report = job.report(large)
        finally:
            shaped.reshape(RELAY, "200mbit")
        assert report["succeeded"] == 6
        seconds = {node["node"]: node["seconds"] for node in report["nodes"]}
        assert max(taken for name, taken in seconds.items() if name != RELAY) < seconds[RELAY]
        assert everybody_else_has_it(job, large)

    def test_a_bit_that_flips_on_a_disk_is_mended(self, shaped: FaultyLab, job: Job, large: Path) -> None:
        def flip() -> None:
            files = shaped.path(RELAY, "/tmp").glob(".large.ezpz-*/tree/file*")
            staged = next(path for path in files if path.open("rb").read(1 << 16) != bytes(1 << 16))
            with staged.open("r+b") as file:
                byte = file.read(1)
                file.seek(0)
                file.write(bytes([byte[0] ^ 1]))

        report = broken(job, large, 0.4, flip)
        assert report["succeeded"] == 6, failures(report)
        assert everybody_else_has_it(job, large)


def wait_until_gone(job: Job, hosts: list[str]) -> None:
    wait_until(lambda: not any(job.lab.processes(host) or job.litter(host) for host in hosts), "a clean host")


class TestEnds:
    def test_a_launching_process_that_is_killed_leaves_nothing_behind(
        self, shaped: FaultyLab, job: Job, large: Path
    ) -> None:
        running = job.ezpz.popen("yeet", large, "--hostfile", job.hostfile)
        wait_until(lambda: landed(shaped, RELAY) >= 0.3, "a third of it", process=running)
        running.kill()
        running.communicate()
        wait_until_gone(job, [host.name for host in shaped.hosts[1:]])

    def test_a_launching_host_that_is_cut_off_is_noticed(self, shaped: FaultyLab, job: Job, large: Path) -> None:
        running = job.ezpz.popen("yeet", large, "--hostfile", job.hostfile)
        wait_until(lambda: landed(shaped, RELAY) >= 0.3, "a third of it", process=running)
        shaped.cut("n000")
        try:
            others = [host.name for host in shaped.hosts[1:]]
            wait_until(lambda: not any(agents(shaped, name) or job.litter(name) for name in others), "a clean host")
        finally:
            running.kill()
            running.communicate()
            shaped.reboot(*shaped.hosts)


def port_of(lab: FaultyLab, host: str) -> str:
    """Where an agent listens."""
    shown = lab.run(host, ["ss", "-Htln"]).stdout
    ports = {line.split()[3].rpartition(":")[2] for line in shown.splitlines()} - {"22"}
    assert len(ports) == 1, shown
    return ports.pop()


class TestStrangers:
    def test_strangers_learn_nothing_and_keep_nobody_out(self, shaped: FaultyLab, job: Job, large: Path) -> None:
        """While they hang about, the relay loses its parent and has to be found by another."""
        pipe = subprocess.PIPE
        line = [sys.executable, str(STRANGER)]
        stranger = shaped.popen(LEAF, line, env=clean_environment(), stdin=pipe, stdout=pipe, stderr=pipe)
        assert stranger.stdin is not None
        assert stranger.stdout is not None
        words, answers = stranger.stdin, stranger.stdout
        assert answers.readline() == "ready\n"

        def intrude() -> None:
            words.write(f"{shaped.host(RELAY).address} {port_of(shaped, RELAY)}\n")
            words.flush()
            assert answers.readline() == "said\n", stranger.communicate()
            for pid in agents(shaped, "n001"):
                os.kill(pid, signal.SIGKILL)

        try:
            report = broken(job, large, 0.1, intrude)
            out, err = stranger.communicate(timeout=DEADLINE)
        finally:
            stranger.kill()
            stranger.communicate()
        assert report["succeeded"] == 6, failures(report)
        assert {node["node"]: node["attempts"] for node in report["nodes"]}[RELAY] >= 2
        assert everybody_else_has_it(job, large)
        assert out, err
        got = {what: bytes.fromhex(text) for what, text in json.loads(out).items()}
        most = len(frames.MAGIC) + frames.NONCE
        assert {what: data for what, data in got.items() if len(data) > most} == {}
        assert [what for what, data in got.items() if data and not data.startswith(frames.MAGIC)] == []
        assert all(len(data) == most for what, data in got.items() if not what.startswith("nothing")), got


class TestWays:
    def test_the_launching_host_needs_no_copy_when_it_is_no_node(self, job: Job, data: Path) -> None:
        job.hostfile.write_text("n001\nn002\nn003\n")
        running = job.ezpz.popen("yeet", data, "--hostfile", job.hostfile, "--json")
        most = 0

        def look() -> bool:
            nonlocal most
            room = os.statvfs(job.lab.path("n000", "/tmp"))
            most = max(most, (room.f_blocks - room.f_bfree) * room.f_frsize)
            return running.poll() is not None

        wait_until(look, "the end of the run")
        out, err = running.communicate()
        assert json.loads(out)["succeeded"] == 3, err
        assert most < 1_000_000
        assert job.files("n003", f"/tmp/{data.name}") == job.files("n000", str(data))

    def test_everything_goes_through_ssh_when_it_is_to_be_encrypted(self, job: Job, data: Path) -> None:
        running = job.ezpz.popen("yeet", data, "--hostfile", job.hostfile, "--json", "--encrypt")
        listening: set[str] = set()
        while running.poll() is None:
            for host in job.lab.hosts[1:]:
                shown = job.lab.run(host, ["ss", "-Htln"], check=False).stdout
                listening |= {line.split()[3].rpartition(":")[0] for line in shown.splitlines() if ":22 " not in line}
        out, err = running.communicate()
        assert json.loads(out)["succeeded"] == 4, err
        assert listening <= {"127.0.0.1"}
        assert job.files("n003", f"/tmp/{data.name}") == job.files("n000", str(data))

    def test_nodes_that_cannot_log_in_to_one_another_pass_it_on_all_the_same(self, job: Job, data: Path) -> None:
        for host in job.lab.hosts[1:]:
            job.lab.without(host, "ssh", "rsync")
        report = job.report(data)
        assert report["succeeded"] == 4
        assert {node["node"]: node["via"] for node in report["nodes"]} == {
            "n000": "", "n001": "this host", "n002": "n001", "n003": "n002",
        }  # fmt: skip

    def test_a_node_without_python_runs_the_environment_s_own(self, job: Job, bare_venv: Path) -> None:
        job.lab.without("n001", "python3")
        assert job.report(bare_venv)["succeeded"] == 4

    @pytest.mark.parametrize("engine", ["stream", "rsync"])
    def test_a_node_without_any_python_is_served_by_rsync(self, job: Job, data: Path, engine: str) -> None:
        job.lab.without("n001", "python3")
        (data / "read only").mkdir()
        (data / "read only" / "ünd so").write_text("here")
        (data / "read only").chmod(0o555)
        done = job.yeet(data, "--engine", engine, "--json")
        assert json.loads(done.stdout)["succeeded"] == 4, done.stderr + str(
            [n["failure"] for n in json.loads(done.stdout)["nodes"]]
        )
        assert "n001 has no python3: rsync serves it from this host" in done.stderr
        for host in ("n001", "n003"):
            assert job.files(host, f"/tmp/{data.name}") == job.files("n000", str(data))
        (data / "added").write_text("more")
        report = job.report(data, "--engine", engine)
        assert [node["replaced"] != "" for node in report["nodes"]] == [True] * 4
        assert job.files("n001", f"/tmp/{data.name}") == job.files("n000", str(data))
        assert job.litter("n001") == []

    def test_what_is_not_ours_stays_on_a_node_without_python(self, job: Job, data: Path) -> None:
        job.lab.without("n001", "python3")
        job.sh("n001", f"mkdir /tmp/{data.name}; echo mine >/tmp/{data.name}/file")
        assert failures(job.report(data, exit_code=21)) == {"n001": "destination-not-ours"}
        assert job.sh("n001", f"cat /tmp/{data.name}/file") == "mine\n"

    def test_a_node_that_has_neither_python_nor_rsync_is_told(self, job: Job, data: Path) -> None:
        job.lab.without("n001", "python3", "rsync")
        assert failures(job.report(data, exit_code=30)) == {"n001": "tool-missing"}

    def test_a_firewall_between_the_nodes_is_passed_by_ssh(self, job: Job, data: Path) -> None:
        """Routes that only ssh may take do what a firewall does, on kernels that have none."""
        rules = (
            "10 ipproto tcp sport 22 lookup main",
            "11 ipproto tcp dport 22 lookup main",
            "12 ipproto tcp lookup 100",
        )
        for host in job.lab.hosts:
            job.sh(host.name, "ip route add unreachable default table 100")
            for rule in rules:
                job.sh(host.name, f"ip rule add prio {rule}")
        try:
            report = job.report(data)
        finally:
            for host in job.lab.hosts:
                job.sh(host.name, "for prio in 10 11 12; do ip rule del prio $prio; done; ip route flush table 100")
        assert {node["node"]: node["via"] for node in report["nodes"]} == {
            "n000": "", "n001": "this host", "n002": "n001", "n003": "n002",
        }  # fmt: skip
        assert job.files("n003", f"/tmp/{data.name}") == job.files("n000", str(data))

    def test_a_changed_source_goes_to_nodes_without_rsync_too(self, job: Job, data: Path) -> None:
        job.report(data)
        (data / "added").write_text("more")
        for host in job.lab.hosts[1:]:
            job.lab.without(host, "rsync")
        report = job.report(data)
        assert report["succeeded"] == 4
        assert job.files("n003", f"/tmp/{data.name}") == job.files("n000", str(data))

    def test_one_file_that_is_larger_than_many_chunks(self, job: Job) -> None:
        root = job.lab.shared / "one-large"
        if not root.exists():
            root.mkdir()
            (root / "model").write_bytes(os.urandom(16_000_000))
        report = job.report(root)
        assert report["succeeded"] == 4
        assert job.files("n003", "/tmp/one-large") == job.files("n000", str(root))

    def test_many_small_files(self, job: Job) -> None:
        root = job.lab.shared / "many"
        if not root.exists():
            make_tree(root, files=5000, total_bytes=1_000_000, seed=3)
        assert job.report(root)["succeeded"] == 4
        assert job.files("n003", "/tmp/many") == job.files("n000", str(root))
