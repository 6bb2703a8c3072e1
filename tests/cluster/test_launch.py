"""`ezpz launch` through real launchers, on hosts that only a hostfile names: MPICH's and Open MPI's, over ssh."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ezpz.launch.plan.rendezvous import PORTS
from tests.cluster.conftest import CACHE
from tests.conftest import clean_environment
from tests.lab import make_lab
from tests.lab.cache import settle
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from tests.cluster.conftest import Job

pytestmark = pytest.mark.cluster
hydra = pytest.mark.skipif(shutil.which("mpiexec.hydra") is None, reason="MPICH is not installed")
launchers = pytest.mark.parametrize("launcher", [pytest.param("hydra", marks=hydra), "openmpi"])
RANK_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
SHOW = "echo $(uname -n) " + " ".join(f"${name}" for name in RANK_NAMES)
WHERE = """\
import os, sys
cached = "numba_cache_dir" in os.environ["NUMBA_CACHE_DIR"]
line = f"{os.uname().nodename} {sys.prefix} {os.environ['VIRTUAL_ENV']} {cached}\\n"
os.write(1, line.encode())  # at once, so that the lines of two ranks do not mix
"""
ALLREDUCE = """\
import os, socket
from mpi4py import MPI
world = MPI.COMM_WORLD
assert (world.rank, world.size) == (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
total = world.allreduce(world.rank + 1)
seen = world.gather((world.rank, socket.gethostname(), int(os.environ["NODE_RANK"]), os.environ["MASTER_ADDR"]))
if world.rank == 0:
    print(total, sorted(seen))
"""
CMDLINES = """\
import glob, os
secret, found = os.environ["HF_TOKEN"].encode(), 0
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        with open(path, "rb") as file:
            found += secret in file.read()
    except OSError:
        pass
os.write(1, f"{len(secret)} {found}\\n".encode())
"""
GLOO = """\
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")  # from RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT
total = torch.tensor([dist.get_rank() + 1])
dist.all_reduce(total)
os.write(1, f"{os.uname().nodename} {dist.get_rank()} {int(total)}\\n".encode())
dist.destroy_process_group()
"""


def expected(ranks: int, ppn: int) -> list[list[str]]:
    """What SHOW prints for each rank, without the port, when nodes are filled one after another."""
    found = []
    for rank in range(ranks):
        node = rank // ppn
        here = min(ppn, ranks - node * ppn)
        found.append([f"n{node:03}", str(rank), str(ranks), str(rank % ppn), str(here), str(node), "n000"])
    return sorted(found)


def installed(package: str) -> Path:
    """A prefix on the shared disk with a package of PyPI in it, and nothing else; skips where it cannot be had."""
    place = CACHE.parent / package
    if not place.exists():
        argv = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:", package, "--prefix"]
        part = place.with_suffix(f".{os.getpid()}")
        done = subprocess.run([*argv, part], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{package} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
        settle(part, place)
    return place


@pytest.fixture(scope="module")
def mpi4py() -> Path:
    """A directory with mpi4py in it, and one with MPICH's library under the name that mpi4py looks for."""
    (place,) = installed("mpi4py").glob("lib/python*/site-packages")
    link = place / "libmpi.so.12"
    for library in sorted(Path("/usr/lib").glob("*/libmpich.so.12"))[: not link.is_symlink()]:
        with contextlib.suppress(FileExistsError):  # another worker was sooner
            link.symlink_to(library)
    return place


@pytest.fixture(scope="module")
def openmpi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose mpiexec is Open MPI's."""
    debians = shutil.which("mpiexec.openmpi")
    if debians is None:
        return installed("openmpi") / "bin"
    folder = tmp_path_factory.mktemp("openmpi")
    (folder / "mpiexec").symlink_to(debians)
    return folder


def open_mpi(folder: Path) -> dict[str, str]:
    """The environment in which mpiexec is Open MPI's, and does not mind root."""
    root = dict.fromkeys(("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"), "1")
    return {"PATH": f"{folder}:{os.environ['PATH']}", **root}


@hydra
def test_hydra_starts_the_ranks_on_every_host_and_hands_their_status_on(job: Job) -> None:
    plan = job.ezpz("launch", "--hostfile", job.hostfile, "--ppn", "2", "--dry-run", "--", "hostname")
    assert plan.returncode == 0, plan.stderr
    assert "mpiexec" in plan.stdout
    done = job.ezpz("launch", "--hostfile", job.hostfile, "--ppn", "2", "--", "hostname")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == [f"n00{number}" for number in range(4) for _ in range(2)]
    failed = job.ezpz("launch", "--hostfile", job.hostfile, "--", "sh", "-c", "exit 7")
    assert failed.returncode == 7, failed.stderr
    assert "\x1e" not in failed.stderr


@hydra
@pytest.mark.parametrize(("ranks", "ppn"), [(8, 2), (7, 2), (2, 1)])
def test_ranks_know_who_they_are_under_hydra(job: Job, ranks: int, ppn: int) -> None:
    line = ("launch", "--hostfile", job.hostfile, "-n", str(ranks), "--ppn", str(ppn), "--", "sh", "-c", SHOW)
    done = job.ezpz(*line)
    assert done.returncode == 0, done.stderr
    shown = sorted(line.split() for line in done.stdout.splitlines())
    assert [words[:-1] for words in shown] == expected(ranks, ppn)
    assert len({words[-1] for words in shown}) == 1
    assert done.stderr == ""


@hydra
def test_an_mpi4py_program_over_ssh(job: Job, mpi4py: Path) -> None:
    program = job.lab.shared / "allreduce.py"
    program.write_text(ALLREDUCE)
    env = {"PYTHONPATH": str(mpi4py), "LD_LIBRARY_PATH": str(mpi4py)}
    done = job.ezpz("launch", "--hostfile", job.hostfile, "--ppn", "2", "--", sys.executable, program, env=env)
    assert done.returncode == 0, done.stderr
    total, _, seen = done.stdout.partition(" ")
    assert total == "36"
    assert eval(seen) == [(rank, f"n00{rank // 2}", rank // 2, "n000") for rank in range(8)]


@hydra
def test_the_line_of_a_dry_run_does_the_same_when_pasted(job: Job) -> None:
    line = ("launch", "--hostfile", job.hostfile, "--ppn", "2", "--dry-run", "-prepend-rank", "--")
    *_, shown = job.ezpz(*line, "sh", "-c", 'echo "$RANK  of $WORLD_SIZE" "$@"', "it's", "a  b", ":").stdout.partition(
        "command "
    )
    pasted = job.lab.run("n000", ["sh", "-c", shown])
    assert sorted(pasted.stdout.splitlines()) == [f"[{rank}] {rank}  of 8 a  b :" for rank in range(8)]


@launchers
def test_ranks_meet_where_rank_0_is_whatever_the_order_of_the_nodes(
    job: Job, launcher: str, request: pytest.FixtureRequest
) -> None:
    """The launching host is the second node. A port is taken on the first one, so that chance cannot hide it."""
    env = open_mpi(request.getfixturevalue("openmpi")) if launcher == "openmpi" else {}
    line = ("launch", "--hosts", "n002,n000,n001", "--launcher", launcher, "--ppn", "2", "--", "sh", "-c", SHOW)
    done = job.ezpz(*line, env=env)
    assert done.returncode == 0, done.stderr
    shown = sorted((line.split() for line in done.stdout.splitlines()), key=lambda words: int(words[1]))
    assert [words[0] for words in shown] == ["n002", "n002", "n000", "n000", "n001", "n001"]
    assert [words[5] for words in shown] == ["0", "0", "1", "1", "2", "2"]
    assert {words[6] for words in shown} == {"n002"}


@hydra
def test_a_port_that_is_taken_on_the_first_node_is_not_drawn(job: Job) -> None:
    """Somebody listens there on all ports but a few, of those that are drawn from."""
    free = range(PORTS.start, PORTS.start + 2000)
    script = f"""import socket, sys, time
held = []
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
for port in range({free.stop}, {PORTS.stop}):
    held.append(socket.socket())
    held[-1].bind(("", port))
    held[-1].listen()
print("ready", flush=True)
sys.stdin.read()
"""
    with job.lab.popen("n002", [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        done = job.ezpz("launch", "--hosts", "n002,n001", "--", "sh", "-c", "echo $MASTER_ADDR $MASTER_PORT")
        assert other.stdin is not None
        other.stdin.close()
    (shown,) = set(done.stdout.splitlines())
    address, port = shown.split()
    assert address == "n002"
    assert int(port) in free


@hydra
@pytest.mark.parametrize("watched", [(), ("--log-dir", "logs")])
def test_a_node_that_cannot_be_reached_ends_the_run(job: Job, watched: tuple[str, ...]) -> None:
    """MPICH's mpiexec would wait for it for ever."""
    job.lab.kill("n002")
    done = job.ezpz("launch", "--hostfile", job.hostfile, *watched, "--ppn", "1", "--", "sleep", "60")
    assert done.returncode == 36, done.stderr
    assert "ssh: connect to host n002 port 22: " in done.stderr.partition("error: ")[2]


@hydra
def test_a_yeet_first_may_fail_on_as_many_nodes_as_there_are_spares(job: Job, bare_venv: Path) -> None:
    job.sh("n002", "mkdir -p /tmp && touch /tmp/bare")  # in the way: the yeet fails there
    line = ("launch", "--hostfile", job.hostfile, "--yeet", "--", "sh", "-c", "echo $(uname -n) $VIRTUAL_ENV")
    env = {"VIRTUAL_ENV": str(bare_venv)}
    strict = job.ezpz(*line, env=env)
    assert (strict.returncode, "nothing was launched" in strict.stderr) == (21, True)
    done = job.ezpz(*line[:1], "--spares", "1", *line[1:], env=env)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"{host} /tmp/bare" for host in ("n000", "n001", "n003")]


@hydra
def test_a_command_that_one_node_lacks(job: Job) -> None:
    job.sh("n000", "cp /bin/true /tmp/only-here")
    done = job.ezpz("launch", "--hostfile", job.hostfile, "--", "/tmp/only-here")
    assert done.returncode == 51
    assert re.search(r"error: '/tmp/only-here' is not on n(00[123]|\[001-00[23]\])", done.stderr)


@hydra
def test_a_launcher_that_fails_is_not_the_command(job: Job) -> None:
    done = job.ezpz("launch", "--hostfile", job.hostfile, "--no-such-option-of-hydra", "--", "true")
    assert done.returncode == 52
    assert "before any rank ran" in done.stderr


@hydra
def test_a_yeeted_copy_runs_with_the_original_hidden_and_without_the_nodes_that_failed(
    job: Job, bare_venv: Path
) -> None:
    """The first host keeps the original; the others lose it between the yeet and the second launch."""
    env = {"VIRTUAL_ENV": str(bare_venv), "EZPZ_YEET_MIN_SUCCESS_NODES": "3"}
    code = WHERE
    job.sh("n002", "mkdir -p /tmp && touch /tmp/bare")  # in the way: the yeet fails there
    done = job.ezpz("launch", "--hostfile", job.hostfile, "--yeet", "--", "python3", "-c", code, env=env)
    assert done.returncode == 0, done.stderr
    shown = [f"{host} /tmp/bare /tmp/bare True" for host in ("n000", "n001", "n003")]
    assert sorted(done.stdout.splitlines()) == shown
    assert "left out n002: the yeet to /tmp/bare failed there" in done.stderr
    for host in ("n001", "n003"):
        job.lab.run(host, ["mount", "-t", "tmpfs", "none", str(bare_venv)])
        assert job.sh(host, f"ls {bare_venv}") == ""
    again = job.ezpz(
        "launch",
        "--hostfile",
        job.hostfile,
        "--env",
        "/tmp/bare",
        "--",
        f"{bare_venv}/bin/python3",
        "-c",
        code,
        env=env,
    )
    assert again.returncode == 0, again.stderr
    assert sorted(again.stdout.splitlines()) == shown
    assert again.stderr.count("left out n002") == 1


@hydra
def test_an_environment_that_a_node_lacks(job: Job) -> None:
    done = job.ezpz("launch", "--hostfile", job.hostfile, "--env", "/tmp/nowhere", "--exclude", "n[001-002]", "true")
    assert done.returncode == 51
    assert "there is no environment at /tmp/nowhere on n" in done.stderr


def test_ranks_know_who_they_are_under_open_mpi(job: Job, openmpi: Path) -> None:
    env = {**open_mpi(openmpi), "MINE": "handed on"}
    line = ("launch", "--hostfile", job.hostfile, "-n", "7", "--ppn", "2", "--", "sh", "-c", f'test -n "$MINE"; {SHOW}')
    done = job.ezpz(*line, env=env)
    assert done.returncode == 0, done.stderr
    assert [words.split()[:-1] for words in sorted(done.stdout.splitlines())] == expected(7, 2)
    failed = job.ezpz("launch", "--hostfile", job.hostfile, "--", "sh", "-c", "exit 7", env=env)
    assert failed.returncode == 7, failed.stderr


@hydra
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_ranks_on_every_host(job: Job, number: signal.Signals, status: int) -> None:
    """That nothing is left running, the fixture `clean` sees to."""
    line = ("launch", "--hostfile", str(job.hostfile), "--", "sh", "-c", "echo ready; exec sleep 60")
    with job.ezpz.popen(*line) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(4)] == ["ready\n"] * 4
        process.send_signal(number)
        _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == status, said


@launchers
def test_a_secret_of_the_environment_reaches_the_ranks_and_no_command_line(
    job: Job, launcher: str, request: pytest.FixtureRequest
) -> None:
    """The hosts of a lab see each other's processes, those of ssh and of mpiexec's helpers among them."""
    env = open_mpi(request.getfixturevalue("openmpi")) if launcher == "openmpi" else {}
    program = job.lab.shared / "lines.py"
    program.write_text(CMDLINES)
    line = ("launch", "--hosts", "n001,n000", "--launcher", launcher, "-v", "--", sys.executable, program)
    done = job.ezpz(*line, env={**env, "HF_TOKEN": "hf_0123456789"})
    assert done.stdout == "13 0\n13 0\n", done.stderr
    assert "hf_0123456789" not in done.stderr


@launchers
def test_a_torch_program_over_gloo(job: Job, torch: str, launcher: str, request: pytest.FixtureRequest) -> None:
    env = open_mpi(request.getfixturevalue("openmpi")) if launcher == "openmpi" else {}
    program = job.lab.shared / "gloo.py"
    program.write_text(GLOO)
    line = ("launch", "--hosts", "n001,n000,n003", "--launcher", launcher, "--ppn", "2", "--", torch, program)
    done = job.ezpz(*line, env=env)
    assert done.returncode == 0, done.stderr
    hosts = ("n001", "n001", "n000", "n000", "n003", "n003")
    assert sorted(done.stdout.splitlines()) == sorted(f"{host} {rank} 21" for rank, host in enumerate(hosts))


@hydra
def test_ranks_meet_by_the_fast_name_of_the_first_node() -> None:
    with make_lab(2, hsn=True) as lab:
        hosts = lab.write_hostfile(lab.shared / "hostfile")
        for first, order in (("n000", ()), ("n001", ("--hosts", "n001,n000"))):
            chosen = order or ("--hostfile", str(hosts))
            argv = [
                sys.executable,
                "-m",
                "ezpz",
                "launch",
                *chosen,
                "--ppn",
                "1",
                "--",
                "sh",
                "-c",
                "echo $MASTER_ADDR",
            ]
            assert lab.run("n000", argv, env=clean_environment()).stdout == f"{first}-hsn0\n" * 2


@hydra
def test_nodes_that_a_yeet_from_outside_did_not_reach_are_left_out_from_outside(job: Job, bare_venv: Path) -> None:
    job.sh("n001", "mkdir -p /tmp && touch /tmp/bare")  # in the way: the yeet fails there
    env = {"VIRTUAL_ENV": str(bare_venv), "EZPZ_YEET_MIN_SUCCESS_NODES": "2"}
    nodes = ("--hosts", "n001,n002,n003")
    yeeted = job.ezpz("yeet", *nodes, env=env)
    assert "listed in n002:/tmp/bare/" in yeeted.stdout + yeeted.stderr
    done = job.ezpz("launch", *nodes, "--env", "/tmp/bare", "--ppn", "1", "--", "uname", "-n")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["n002", "n003"]
    assert "left out n001: the yeet to /tmp/bare failed there" in done.stderr
