"""The lab itself: hosts that are real enough, break as told, and are gone afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY
from tests.lab import FaultyLab, LabError, choose, hosts, make_lab
from tests.lab.environments import compare_trees, make_tree, make_venv, nasty_tree
from tests.lab.slowfs import slowfs
from tests.lab.state import PREFIX, ROOT
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from tests.lab.slurm import Slurm

pytestmark = [pytest.mark.cluster, pytest.mark.broken_only_by("tests/lab")]

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=2")
real_wires = pytest.mark.skipif(hosts.why_not() is not None, reason=f"{hosts.why_not()}")


def traces(lab_id: str) -> set[str]:
    """Return what a lab has on this machine: directories, network namespaces, processes."""
    places = (place for place in (ROOT, Path("/run/netns")) if place.exists())
    serving = subprocess.run(["pgrep", "-f", f"{PREFIX}{lab_id}"], capture_output=True, text=True).stdout
    return {path.name for place in places for path in place.glob(f"ezpz-*{lab_id}*")} | set(serving.split())


def test_hosts_reach_one_another_by_every_name(lab4: FaultyLab) -> None:
    for name in ("n001", "n001.lab.ezpz", lab4.hosts[1].address):
        onward = f"hostname; {' '.join(SSH)} n002.lab.ezpz hostname -f"
        shown = lab4.run("n000", [*SSH, name, onward])
        assert (shown.stdout.split(), shown.stderr) == (["n001", "n002.lab.ezpz"], "")


@real_wires
def test_a_second_interface_has_its_own_names_and_rate() -> None:
    with make_lab(2, rate="20mbit", hsn=True, hsn_rate="500mbit") as lab:
        (lab.shared / "data").write_bytes(os.urandom(2_000_000))

        def received() -> dict[str, int]:
            statistics = "/sys/class/net/{}/statistics/rx_bytes"
            script = "; ".join(f"cat {statistics.format(name)}" for name in ("eth0", "hsn0"))
            shown = lab.run("n001", ["sh", "-c", f"mount -t sysfs sysfs /sys 2>/dev/null; {script}"]).stdout
            return dict(zip(("eth0", "hsn0"), map(int, shown.split()), strict=True))

        for name, interface in (("n001", "eth0"), ("n001-hsn0", "hsn0"), ("n001-hsn0.lab.ezpz", "hsn0")):
            before = received()
            lab.run("n000", ["sh", "-c", f"{' '.join(SSH)} {name} 'cat > /tmp/data' < data"])
            after = received()
            assert {each for each in after if after[each] - before[each] > 1_000_000} == {interface}
        for interface, rate in (("eth0", "20Mbit"), ("hsn0", "500Mbit")):
            assert f"rate {rate}" in lab.run("n001", ["tc", "qdisc", "show", "dev", interface]).stdout
        lab.cut("n001", "eth0")
        assert lab.run("n000", [*SSH, "n001-hsn0", "true"]).returncode == 0
        assert lab.run("n000", [*SSH, "n001", "true"], check=False).returncode == 255


def test_tmp_is_private_and_the_rest_of_the_disk_is_shared(lab4: FaultyLab) -> None:
    lab4.run("n001", ["touch", "/tmp/mine", "/dev/shm/mine", lab4.shared / "ours"])
    assert lab4.path("n001", "/tmp/mine").exists()
    assert not lab4.path("n002", "/tmp/mine").exists()
    assert not Path("/dev/shm/mine").exists()
    assert lab4.run("n002", ["ls", "/tmp", "/dev/shm", lab4.shared / "ours"]).stdout.count("mine") == 0


def test_clean_makes_hosts_as_new_and_tells_what_was_left_running(lab4: FaultyLab) -> None:
    left = lab4.popen("n003", ["sleep", "300"])
    lab4.run("n003", ["mkdir", "-p", "/tmp/a/b"])
    leaks = lab4.clean(patience=0.1)
    assert [leak.split(maxsplit=2)[2] for leak in leaks] == ["sleep 300"]
    assert left.wait() == -signal.SIGKILL
    assert lab4.run("n003", ["ls", "-A", "/tmp"]).stdout == ""


def test_a_killed_host_refuses_and_comes_back_empty(lab4: FaultyLab) -> None:
    lab4.run("n001", ["touch", "/tmp/mine"])
    sleeper = lab4.popen("n001", ["sleep", "300"])
    wait_until(
        lambda: any("sleep" in argv for _, argv in lab4.processes("n001")), "its start on the host", process=sleeper
    )
    lab4.kill("n001")
    assert sleeper.wait() == -signal.SIGKILL
    assert lab4.processes("n001") == []
    assert "refused" in lab4.run("n000", [*SSH, "n001", "true"], check=False).stderr
    lab4.reboot("n001")
    assert lab4.run("n000", [*SSH, "n001", "ls", "-A", "/tmp"]).stdout == ""


def test_a_frozen_host_says_nothing_until_thawed(lab4: FaultyLab) -> None:
    lab4.freeze("n002")
    hung = lab4.popen("n000", [*SSH, "-o", "ConnectTimeout=30", "n002", "hostname"], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        hung.wait(1)
    lab4.thaw("n002")
    assert hung.communicate(timeout=DEADLINE)[0] == "n002\n"


@real_wires
def test_a_cut_cable_swallows_packets_until_mended(lab4: FaultyLab) -> None:
    lab4.cut("n003")
    assert lab4.run("n000", [*SSH, "n003", "true"], check=False).returncode == 255
    lab4.mend("n003")
    assert lab4.run("n000", [*SSH, "n003", "hostname"]).stdout == "n003\n"


def test_a_full_tmp_takes_only_what_was_left(lab4: FaultyLab) -> None:
    lab4.fill("n001", leave_bytes=1 << 20)
    write = ["dd", "if=/dev/zero", "of=/tmp/x", "bs=1k", "count=512"]
    assert lab4.run("n001", write).returncode == 0
    assert "No space left" in lab4.run("n001", [*write[:3], "bs=1k", "count=2048"], check=False).stderr


def test_noexec_forbids_execution_on_one_host(lab4: FaultyLab) -> None:
    lab4.mount_noexec("n001")
    script = "cp /bin/true /tmp/true && /tmp/true"
    assert "denied" in lab4.run("n001", ["sh", "-c", script], check=False).stderr
    assert lab4.run("n002", ["sh", "-c", script]).returncode == 0


def test_a_tool_vanishes_from_one_host(lab4: FaultyLab) -> None:
    lab4.without("n001", "rsync", "python3")
    for tool in ("rsync", "python3"):
        assert lab4.run("n000", [*SSH, "n001", tool, "--version"], check=False).returncode == 127
        assert lab4.run("n000", [*SSH, "n002", tool, "--version"]).returncode == 0


def test_a_chatty_bashrc_talks_on_one_host(lab4: FaultyLab) -> None:
    lab4.bashrc("n001", "echo welcome\n")
    assert [lab4.run("n000", [*SSH, name, "true"]).stdout for name in ("n001", "n002")] == ["welcome\n", ""]


def test_processes_are_listed_by_host(lab4: FaultyLab) -> None:
    client = lab4.popen("n000", [*SSH, "n001", "sleep 271"])
    try:
        wait_until(lambda: any(argv[:2] == ("sleep", "271") for _, argv in lab4.processes("n001")))
        assert [pid for pid, _ in lab4.processes("n000")] == [client.pid]
        assert lab4.processes("n002") == []
    finally:
        client.kill()
        client.wait()
        lab4.run("n001", ["pkill", "-f", "^sleep 271$"])


def test_python3_of_a_session_can_be_chosen() -> None:
    with make_lab(2, python=sys.executable) as lab:
        shown = lab.run("n000", [*SSH, "n001", "python3", "-c", "'import sys; print(sys.version)'"])
        assert shown.stdout.strip() == sys.version


def test_a_failed_command_says_what_it_printed(lab4: FaultyLab) -> None:
    with pytest.raises(LabError, match="cannot access"):
        lab4.run("n000", ["ls", "/no/such"])


def test_sixteen_hosts_all_answer(lab16: FaultyLab) -> None:
    hostfile = lab16.write_hostfile(lab16.shared / "hostfile", fqdn=True)
    script = f"for h in $(cat {hostfile}); do {' '.join(SSH)} $h hostname -f & done; wait"
    assert sorted(lab16.run("n000", ["bash", "-c", script]).stdout.split()) == hostfile.read_text().split()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_however_a_lab_ends(ending: signal.Signals) -> None:
    up = [sys.executable, "-m", "tests.lab", "up", "--hosts", "2"]
    with subprocess.Popen(up, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            lab_id = next(line.split(PREFIX)[1].split("/")[0] for line in owner.stdout if PREFIX in line)
            made = traces(lab_id)
        finally:
            owner.send_signal(ending)
    if ending == signal.SIGKILL:
        assert traces(lab_id)
        subprocess.run([sys.executable, "-m", "tests.lab", "down"], cwd=REPOSITORY, check=True)
    assert made
    assert not traces(lab_id)


def test_shell_enters_the_lab_that_is_named_and_refuses_to_choose() -> None:
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "tests.lab", *arguments]

    def enter(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command("shell", *arguments), cwd=REPOSITORY, capture_output=True, text=True)

    with contextlib.ExitStack() as stack:
        lab_ids = []
        for hosts_of_it in ("1", "2"):
            up = command("up", "--hosts", hosts_of_it)
            owner = stack.enter_context(subprocess.Popen(up, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True))
            stack.callback(owner.terminate)
            assert owner.stdout is not None
            for line in owner.stdout:
                if line.startswith("lab "):
                    lab_ids.append(line.split()[1].rstrip(":"))
                if line.startswith("Ctrl-C"):
                    break
        refused = enter("n000", "hostname")
        assert refused.returncode == 1, refused.stdout
        assert all(lab_id in refused.stderr for lab_id in lab_ids)
        assert "choose with --lab: " in refused.stderr
        assert enter("--lab", lab_ids[1], "n001", "hostname").stdout == "n001\n"
        missing = enter("--lab", lab_ids[0], "n001", "hostname")
        assert (missing.returncode, f"no lab {lab_ids[0]} is up that has a host n001" in missing.stderr) == (1, True)


def test_two_labs_do_not_see_one_another(lab4: FaultyLab) -> None:
    with make_lab(2) as other:
        other.run("n001", ["touch", "/tmp/other"])
        assert "other" not in lab4.run("n000", [*SSH, "n001", "ls", "/tmp"]).stdout
    assert lab4.run("n000", [*SSH, "n001", "hostname"]).stdout == "n001\n"


@pytest.mark.slurm
def test_slurm_starts_tasks_on_every_host(slurm: Slurm) -> None:
    shown = slurm.lab.run("n000", ["srun", "-N4", "hostname"])
    assert sorted(shown.stdout.split()) == ["n000", "n001", "n002", "n003"]
    allocated = slurm.lab.run("n000", ["salloc", "-N3", "sh", "-c", "echo $SLURM_NNODES; srun hostname"])
    count, *names = sorted(allocated.stdout.split())
    assert (count, len(set(names))) == ("3", 3)
    assert set(names) < {"n000", "n001", "n002", "n003"}
    slurm.lab.run("n000", ["sbatch", "--wait", "-N2", "-o", "out", "--wrap", "srun hostname"])
    assert len(set((slurm.lab.shared / "out").read_text().split())) == 2


@pytest.mark.slurm
def test_a_rebooted_host_rejoins_slurm(slurm: Slurm) -> None:
    slurm.lab.kill("n002")
    slurm.lab.reboot("n002")
    assert slurm.lab.run("n000", ["srun", "-N4", "true"]).returncode == 0


def test_the_nasty_tree_is_always_the_same_and_differences_are_seen(tmp_path: Path) -> None:
    a, b = nasty_tree(tmp_path / "a"), tmp_path / "b"
    subprocess.run(["cp", "-a", a, b], check=True)
    for name in ("specials/fifo", "specials/socket"):
        (b / name).unlink()
    os.utime(b / "specials", ns=(0, (a / "specials").stat().st_mtime_ns))
    assert compare_trees(a, b) == []
    (b / "hard-a/two").unlink()
    (b / "hard-a/two").write_text("two names!")
    (b / "modes/644").chmod(0o640)
    os.utime(b / "contents", ns=(0, 1))
    (b / "contents" / "new").touch()
    (b / "links/relative").unlink()
    text = "\n".join(compare_trees(a, b))
    for expected in ("'hard-a/two': content", "0640 instead of 0644", "'contents': mtime", "'contents/new': unexpected",
                     "'links/relative': missing", "not hard links of one another"):  # fmt: skip
        assert expected in text


def test_environments_are_as_asked_for(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", files=300, total_bytes=1_000_000, seed=1)
    sizes = [path.stat().st_size for path in tree.rglob("*") if path.is_file()]
    assert (len(sizes), sum(sizes)) == (300, 1_000_000)
    venv = make_venv(tmp_path / "venv", python=sys.executable, packages=(), cache=tmp_path / "cache")
    assert any(venv.rglob("__pycache__/*.pyc"))


def test_slowfs_makes_each_metadata_call_cost_its_time(tmp_path: Path) -> None:
    make_tree(tmp_path / "slow", files=200, total_bytes=200_000, seed=1)
    for argv in (["cp", "-a", "slow", "to"], ["rsync", "-a", "slow/", "to/"], ["tar", "-cf", "to", "slow"]):
        started = time.monotonic()
        environment = {**os.environ, **slowfs(tmp_path / "slow", 2_000)}
        subprocess.run(argv, cwd=tmp_path, env=environment, check=True)
        assert time.monotonic() - started > 200 * 0.002
        subprocess.run(["rm", "-rf", "to"], cwd=tmp_path, check=True)


def test_the_choice_of_lab_comes_with_its_reason() -> None:
    kind, why = choose()
    assert issubclass(kind, FaultyLab)
    assert ("root" in why) or ("namespaces" in why)
