"""`ezpz launch` on real hosts that break: restarts on spares, idle timeout, signals with a grace, checks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common.messages.receipt import Receipt
from tests.cluster.test_launch import openmpi
from tests.conftest import clean_environment
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.conftest import Job
    from tests.lab.slurm import Slurm

__all__ = ["openmpi"]
pytestmark = pytest.mark.cluster
hydra = pytest.mark.skipif(shutil.which("mpiexec.hydra") is None, reason="MPICH is not installed")


def script(job: Job, name: str, text: str) -> Path:
    """A script on the shared disk, in a folder of its own for what the ranks write down."""
    folder = job.lab.shared / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / "script.sh"
    path.write_text(f"cd {folder}\nhost=$(hostname)\n{text}")
    return path


@contextlib.contextmanager
def launch(job: Job, *arguments: str | Path, host: str = "n000") -> Iterator[subprocess.Popen[str]]:
    """`ezpz launch`, which does not outlive a test that fails."""
    with job.ezpz.popen("launch", "--hostfile", job.hostfile, *arguments, host=host) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=DEADLINE)
    finally:
        process.kill()


def wait_for(folder: Path, *names: str) -> None:
    wait_until(lambda: all((folder / name).exists() for name in names))


# Every rank says that it is there, and where; on the second attempt it succeeds.
TWICE = """
echo "step: 1"
again=$(test -e broken && echo yes)
touch ran.$host.$$
[ -z "$again" ] && exec sleep 120
echo "all $host"
"""


@hydra
def test_a_node_that_dies_in_the_middle_is_replaced_by_the_spare(job: Job) -> None:
    path = script(job, "dies", TWICE)
    logs = path.parent.with_name("dies-logs")
    shutil.rmtree(logs, ignore_errors=True)
    line = ("--spares", "1", "--max-restarts", "2", "--log-dir", logs, "--", "sh", path)
    with launch(job, *line) as process:
        wait_until(lambda: len(list(path.parent.glob("ran.*"))) == 3)
        assert not list(path.parent.glob("ran.n003.*"))
        (path.parent / "broken").touch()
        job.lab.kill("n001")
        out, err = finish(process)
    assert process.returncode == 0, err
    assert sorted(line for line in out.splitlines() if line.startswith("all ")) == ["all n000", "all n002", "all n003"]
    assert "n003 takes the place of n001" in err
    assert "success after 2 attempts" in err
    assert "  lost    n001\n" in (logs / "summary.txt").read_text()
    first = (logs / "attempt-1.log").read_text()
    assert sorted(line for line in first.splitlines() if "step" in line) == [f"{rank}: step: 1" for rank in range(3)]
    second = (logs / "attempt-2.log").read_text().splitlines()
    assert sorted(line for line in second if "all" in line) == ["0: all n000", "1: all n003", "2: all n002"]


OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


@pytest.mark.parametrize(
    ("options", "status"), [(("--spares", "1", "--max-restarts", "2"), 0), (("--idle-timeout", "60"), 36)]
)
def test_a_node_that_open_mpi_loses_is_no_success(
    job: Job, openmpi: Path, options: tuple[str, ...], status: int
) -> None:
    """Its mpiexec then ends with 0, and leaves ranks behind."""
    path = script(job, "open-mpi", TWICE)
    env = {**OPEN_MPI, "PATH": f"{openmpi}:{os.environ['PATH']}"}
    with job.ezpz.popen("launch", "--hostfile", job.hostfile, *options, "--", "sh", path, env=env) as process:
        wait_until(lambda: len(list(path.parent.glob("ran.*"))) == (4 if status else 3))
        (path.parent / "broken").touch()
        job.lab.kill("n001")
        out, err = finish(process)
    assert process.returncode == status, err
    assert "n001 was lost" in err
    ended = sorted(line for line in out.splitlines() if line.startswith("all"))
    assert ended == ([] if status else ["all n000", "all n002", "all n003"])


@hydra
def test_a_node_that_is_dead_from_the_start_is_replaced_too(job: Job) -> None:
    """MPICH's mpiexec says so, and then waits forever."""
    path = script(job, "dead", "echo all $host")
    job.lab.kill("n001")
    done = job.ezpz("launch", "--hostfile", job.hostfile, "--spares", "1", "--max-restarts", "1", "--", "sh", path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()[-3:]) == ["all n000", "all n002", "all n003"]


@hydra
def test_a_node_without_the_command_is_replaced_and_a_command_that_no_node_has_is_not_tried_again(job: Job) -> None:
    script(job, "lacking", "")
    for host in ("n000", "n002", "n003"):
        job.lab.run(
            host, ["sh", "-ec", f"printf '#!/bin/sh\\necho ran\\n' > /tmp/{host}.tool && chmod +x /tmp/{host}.tool"]
        )
        job.lab.run(host, ["mv", f"/tmp/{host}.tool", "/tmp/the-tool"])
    line = ("--spares", "1", "--max-restarts", "2", "--log-dir", job.lab.shared / "lacking", "--")
    done = job.ezpz("launch", "--hostfile", job.hostfile, *line, "/tmp/the-tool")
    assert done.returncode == 0, done.stderr
    assert "attempt 1: '/tmp/the-tool' is not on n001, or is no program there" in done.stderr
    assert "n003 takes the place of n001" in done.stderr
    assert "\x1e" not in (job.lab.shared / "lacking" / "attempt-1.log").read_text()
    done = job.ezpz("launch", "--hostfile", job.hostfile, *line, "/tmp/no-such-tool")
    assert done.returncode == 51, done.stderr
    assert "attempt 2" not in done.stderr


@hydra
def test_a_copy_is_run_from_on_every_attempt(job: Job, bare_venv: Path) -> None:
    """What was excluded stays out, and the check knows the copy."""
    again = script(job, "copy", "").with_name("again")
    assert job.yeet(bare_venv, "--dst", "/tmp/env").returncode == 0
    code = (
        "import os, sys; print(sys.prefix, os.environ['VIRTUAL_ENV'], flush=True); "
        f"fails = os.environ['RANK'] == '1' and not os.path.exists('{again}'); "
        f"fails and os.mkdir('{again}'); sys.exit(fails)"
    )
    line = (
        "--env",
        "/tmp/env",
        "--exclude",
        "n003",
        "--check",
        "--spares",
        "1",
        "--max-restarts",
        "1",
        "--",
        "python3",
    )
    done = job.ezpz("launch", "--hostfile", job.hostfile, *line, "-c", code)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {"/tmp/env /tmp/env"}
    assert "all 3 nodes passed the checks" in done.stderr
    assert "attempt 2 in 5 s on n[001-002]" in done.stderr
    assert "success after 2 attempts" in done.stderr


@hydra
def test_a_yeet_puts_the_copy_on_spares_too_and_may_fail_on_as_many_nodes(job: Job, bare_venv: Path) -> None:
    """n003's yeet fails, n000 to n002 have the copy; n001's rank fails, and its spare runs from the copy as well."""
    script(job, "yeet-spare", "")
    code = (  # MPICH tells only of a rank that dies from a signal on which node it was
        "import os, sys; print(sys.prefix, os.uname().nodename, flush=True); "
        "os.uname().nodename == 'n001' and os.kill(os.getpid(), 9)"
    )
    job.sh("n003", "mkdir -p /tmp && touch /tmp/bare")  # in the way of the yeet
    line = ("--yeet", "--nhosts", "2", "--max-restarts", "1", "--progress-regex", "bare", "--check", "--")
    env = {"VIRTUAL_ENV": str(bare_venv)}
    done = job.ezpz("launch", "--hostfile", job.hostfile, *line, "python3", "-c", code, env=env)
    assert done.returncode == 0, done.stderr
    assert "left out n003: the yeet to /tmp/bare failed there" in done.stderr
    assert "all 3 nodes passed the checks" in done.stderr
    assert "n002 takes the place of n001" in done.stderr
    assert sorted(done.stdout.splitlines()[-2:]) == ["/tmp/bare n000", "/tmp/bare n002"]
    done = job.ezpz("launch", "--hostfile", job.hostfile, "--yeet", "--", "python3", "-V", env=env)
    assert done.returncode == 21, done.stderr
    assert "nothing was launched" in done.stderr


@hydra
def test_no_spare_is_left(job: Job) -> None:
    path = script(job, "nospare", TWICE)
    with launch(job, "--max-restarts", "3", "--", "sh", path) as process:
        wait_until(lambda: len(list(path.parent.glob("ran.*"))) == 4)
        job.lab.kill("n003")
        _, err = finish(process)
    assert process.returncode == 61, err
    assert "no spare is left" in err.splitlines()[-1]
    assert "attempt 1: lost n003" in err


@hydra
def test_fewer_nodes_will_do(job: Job) -> None:
    path = script(job, "fewer", TWICE)
    with launch(job, "--nhosts", "2:4", "--max-restarts", "1", "--", "sh", path) as process:
        wait_until(lambda: len(list(path.parent.glob("ran.*"))) == 4)
        (path.parent / "broken").touch()
        job.lab.kill("n002")
        out, err = finish(process)
    assert process.returncode == 0, err
    assert sorted(line for line in out.splitlines() if line.startswith("all ")) == ["all n000", "all n001", "all n003"]


@hydra
def test_a_hung_rank_is_ended_and_nothing_is_left(job: Job) -> None:
    """The others wait for it; one is deaf to everything but SIGKILL."""
    path = script(job, "hangs", "echo begun; touch $host; [ $host = n002 ] && trap '' TERM INT; sleep 300; sleep 300")
    with launch(job, "--idle-timeout", "3", "--grace", "2", "--", "sh", path) as process:
        out, err = finish(process)
    assert process.returncode == 124, err
    assert out.startswith("begun\n" * 4)
    assert "nothing was said for 3 s" in err
    wait_until_nothing_is_left(job)


@hydra
def test_a_stopped_rank_is_ended_too(job: Job) -> None:
    path = script(job, "stopped", "echo begun; [ $host = n001 ] && kill -STOP $$; sleep 300")
    done = job.ezpz("launch", "--hostfile", job.hostfile, "--idle-timeout", "3", "--grace", "2", "--", "sh", path)
    assert done.returncode == 124, done.stderr
    wait_until_nothing_is_left(job)


@hydra
def test_a_node_that_hangs_is_replaced_and_not_one_whose_ranks_were_ended_for_it(job: Job) -> None:
    path = script(job, "freezes", TWICE.replace("sleep 120", "sleep 20"))
    line = ("--spares", "1", "--max-restarts", "1", "--idle-timeout", "4", "--grace", "1", "--", "sh", path)
    with launch(job, *line) as process:
        wait_until(lambda: len(list(path.parent.glob("ran.*"))) == 3)
        (path.parent / "broken").touch()
        job.lab.freeze("n001")
        out, err = finish(process)
    assert process.returncode == 0, err
    assert "n003 takes the place of n001" in err
    assert sorted(line for line in out.splitlines() if line.startswith("all ")) == ["all n000", "all n002", "all n003"]


def wait_until_nothing_is_left(job: Job) -> None:
    wait_until(lambda: not any(map(job.lab.processes, job.lab.hosts)), "the end of all that was started on the hosts")


NODE = "os.environ['SLURMD_NODENAME']"
SAVES = """
import os, pathlib, signal, socket, time
def save(*_):
    time.sleep(1)
    pathlib.Path("{folder}", "saved." + socket.gethostname()).touch()
    os._exit(5)
signal.signal({number}, save)
print("ready", flush=True)
while True:
    signal.pause()
"""


@hydra
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_rank_which_has_time_for_a_checkpoint(job: Job, number: signal.Signals) -> None:
    path = script(job, number.name, "").with_name("rank.py")
    path.write_text(SAVES.format(number=int(number), folder=path.parent))
    with launch(job, "--grace", "20", "--log-dir", path.parent / "logs", "/usr/bin/python3", path) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(4)] == ["ready\n"] * 4  # by then mpiexec knows its ranks
        process.send_signal(number)
        _, err = finish(process)
    assert process.returncode in (5, 128 + number), (
        err
    )  # mpiexec may answer with 0, which an interrupted run never does
    wait_for(path.parent, *(f"saved.n00{number}" for number in range(4)))
    wait_until_nothing_is_left(job)


def check(job: Job, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = ("launch", "--hostfile", job.hostfile, "--check", "--check-timeout", "5", *arguments, "--", "hostname")
    return job.ezpz(*line)


@hydra
def test_checks_leave_bad_nodes_out_and_say_why(job: Job) -> None:
    """n001's mount hangs, n002's /tmp is full, n003 is dead."""
    hung = job.lab.shared / "hung"
    hung.mkdir(exist_ok=True)
    job.lab.bashrc("n001", "")  # it is altered: a reboot takes the mount away
    job.lab.run("n001", ["sh", "-ec", f"mount -t tmpfs tmpfs {hung}; mkfifo {hung}/data"])
    (hung / "data").write_text("fine elsewhere")
    job.lab.fill("n002", leave_bytes=10_000_000)
    job.lab.kill("n003")
    done = check(job, "--check-path", hung / "data")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "n000\n"
    rows = {line.split()[0]: line for line in done.stderr.splitlines() if line[:1] == "n"}
    assert "path" in rows["n001"]
    assert "no answer within 5 s" in rows["n001"]
    assert "MB free in /tmp, 100 MB wanted" in rows["n002"]
    assert "reached" in rows["n003"]
    assert "left out: n[001-003]; 1 of 4 nodes remain" in done.stderr
    assert check(job, "--check-path", hung / "data", "--nhosts", "2:4").returncode == 60


@hydra
def test_a_check_knows_a_program_beside_the_user(job: Job) -> None:
    for host in ("n000", "n002"):
        job.sh(host, "printf '#!/bin/sh\necho ran\n' > /tmp/tool; chmod +x /tmp/tool")
    line = ("launch", "--hostfile", job.hostfile, "--check", "--", "./tool")
    done = job.ezpz(*line, cwd=Path("/tmp"))
    assert done.returncode == 0, done.stderr
    assert "n001  path   /tmp/tool does not exist" in done.stderr
    assert "left out: n[001,003]; 2 of 4 nodes remain" in done.stderr
    assert done.stdout == "ran\n" * 2


@pytest.fixture
def frozen(job: Job) -> Iterator[str]:
    """A host on whose /tmp every write hangs so that not even SIGKILL ends who tried it."""
    if os.geteuid() or shutil.which("mkfs.ext4") is None or not os.path.exists("/dev/loop-control"):
        pytest.skip("no filesystem can be frozen here")
    image = job.lab.shared / "frozen.img"
    subprocess.run(["sh", "-ec", f"truncate -s 300M {image}; mkfs.ext4 -q -F {image}"], check=True)
    job.lab.bashrc("n001", "")  # it is altered: a reboot takes the mount away
    place = f"mkdir /tmp/frozen; mount -o loop {image} /tmp/frozen; mount --bind /tmp/frozen /tmp; fsfreeze -f /tmp"
    mounted = job.lab.run("n001", ["sh", "-ec", place], check=False)
    yield "n001"
    job.lab.run("n001", ["sh", "-c", "fsfreeze -u /tmp; sleep 0.2; umount /tmp; umount /tmp/frozen"], check=False)
    assert mounted.returncode == 0, mounted.stderr


def hanging(job: Job, host: str) -> str:
    """Processes of a host that are beyond SIGKILL."""
    return job.sh(host, "cat /proc/[0-9]*/stat 2>/dev/null | awk '$3 == \"D\"' || true")


@hydra
def test_a_check_that_not_even_sigkill_ends_hangs_nothing(job: Job, frozen: str) -> None:
    done = check(job)
    assert done.returncode == 0, done.stderr
    assert f"{frozen}  tmp    no answer within 5 s" in done.stderr
    assert sorted(done.stdout.split()) == ["n000", "n002", "n003"]
    assert "python3" in hanging(job, frozen)


def test_a_rank_that_not_even_sigkill_ends_does_not_keep_us(job: Job, frozen: str) -> None:
    line = ("--hosts", frozen, "--idle-timeout", "1", "--grace", "1", "--", "sh", "-c", "echo begun; echo x > /tmp/x")
    done = job.ezpz("launch", *line, host=frozen)
    assert (done.returncode, done.stdout) == (124, "begun\n"), done.stderr
    assert "(sh)" in hanging(job, frozen)


@hydra
def test_checks_compare_versions_and_links(job: Job, bare_venv: Path) -> None:
    assert job.yeet(bare_venv, "--dst", "/tmp/env").returncode == 0
    other = json.dumps(Receipt(version="0123456789abcdef", destination="/tmp/env").to_json())
    job.lab.cover("n001", "/tmp/env/.ezpz-yeet-receipt.json", other)
    job.lab.run("n002", ["sh", "-ec", "mount -t sysfs sysfs /sys; ip link add eth7 type veth peer name peer7"])
    for host in ("n000", "n001", "n003"):
        job.lab.run(host, ["sh", "-ec", "mount -t sysfs sysfs /sys; ip link add eth7 type veth peer name peer7"])
        job.lab.run(host, ["sh", "-ec", "ip link set eth7 up; ip link set peer7 up"])
        job.lab.bashrc(host, "")
    job.lab.bashrc("n002", "")
    done = check(job, "--check-path", "/tmp/env/bin/python")
    assert done.returncode == 0, done.stderr
    assert "n001  version  version 0123456789ab at /tmp/env, on most nodes" in done.stderr
    assert "n002  link     eth7 is down" in done.stderr
    assert sorted(done.stdout.split()) == ["n000", "n003"]
    assert job.ezpz("launch", "--hostfile", job.hostfile, "--check", "--", sys.executable, "-V").returncode == 0


@hydra
def test_a_clock_that_is_off(job: Job) -> None:
    """The node's own python3 is one whose clock is an hour behind."""
    behind = "import sys, time; real = time.time; time.time = lambda: real() - 3600; exec(sys.argv[-1])"
    job.lab.cover("n002", "/usr/bin/python3", f'#!/bin/sh\nexec {sys.executable} -c "{behind}" "$@"\n')
    (job.lab.state / "n002" / "cover-python3").chmod(0o755)
    done = check(job)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^n002  clock  3\d\d\d s slow$", done.stderr, re.MULTILINE)
    assert sorted(done.stdout.split()) == ["n000", "n001", "n003"]


@contextlib.contextmanager
def in_job(slurm: Slurm, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """`ezpz launch` in an allocation that outlives its nodes, on its first node."""
    line = ["salloc", "--quiet", "--no-kill", "--nodes=4", "--", sys.executable, "-m", "ezpz", "launch"]
    with slurm.lab.popen(
        "n000",
        [*line, *map(str, arguments)],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slurm
def test_srun_passes_signals_on_with_a_grace(slurm: Slurm) -> None:
    folder = slurm.lab.shared / "srun-signal"
    folder.mkdir()
    path = folder / "rank.py"
    path.write_text(SAVES.format(number=int(signal.SIGTERM), folder=folder).replace("socket.gethostname()", NODE))
    with in_job(slurm, "--grace", "20", "--log-dir", folder / "logs", "/usr/bin/python3", path) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(4)] == ["ready\n"] * 4
        launcher = next(pid for pid, argv in slurm.lab.processes("n000") if argv[1:4] == ("-m", "ezpz", "launch"))
        os.kill(launcher, signal.SIGTERM)
        _, err = finish(process)
    assert process.returncode == 5, err
    assert len(list(folder.glob("saved.*"))) == 4


@pytest.mark.slurm
def test_a_hung_rank_under_srun(slurm: Slurm) -> None:
    with in_job(slurm, "--idle-timeout", "3", "--grace", "2", "sh", "-c", "trap '' TERM; echo x; sleep 300") as process:
        _, err = finish(process)
    assert process.returncode == 124, err


@pytest.mark.slurm
def test_srun_with_a_spare(slurm: Slurm) -> None:
    folder = slurm.lab.shared / "srun-dies"
    folder.mkdir()
    path = folder / "script.sh"
    path.write_text(f"cd {folder}\nhost=$SLURMD_NODENAME\n{TWICE}")
    options = ("--spares", "1", "--max-restarts", "2", "--check", "--idle-timeout", "30", "--grace", "2")
    with in_job(slurm, *options, "--log-dir", folder / "logs", "sh", path) as process:
        wait_until(lambda: len(list(folder.glob("ran.*"))) == 3)
        (folder / "broken").touch()
        slurm.lab.kill("n001")
        out, err = finish(process)
    assert process.returncode == 0, err
    assert sorted(line for line in out.splitlines() if line.startswith("all ")) == ["all n000", "all n002", "all n003"]
    assert "n003 takes the place of n001" in err
