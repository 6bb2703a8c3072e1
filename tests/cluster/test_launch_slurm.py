"""`ezpz launch` through a real srun, inside a real job."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cluster.test_launch import GLOO, SHOW, WHERE, expected, hydra
from tests.conftest import clean_environment
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.lab.slurm import Slurm

pytestmark = [pytest.mark.cluster, pytest.mark.slurm]
EZPZ = f"{sys.executable} -m ezpz"


def in_job(
    slurm: Slurm, script: str, *arguments: str | Path, options: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script on the first node of an allocation of four, two tasks each."""
    line = ["salloc", "--quiet", "--nodes=4", "--ntasks-per-node=2", *options, "sh", "-c", script, "sh"]
    environment = {**clean_environment(), **variables}
    return slurm.lab.run("n000", [*line, *map(str, arguments)], env=environment, check=False, timeout=DEADLINE)


@pytest.mark.parametrize("ranks", [8, 4])
def test_ranks_know_who_they_are_under_srun(slurm: Slurm, ranks: int) -> None:
    done = in_job(slurm, f'{EZPZ} launch -n {ranks} -- sh -c "$1"', SHOW)
    assert done.returncode == 0, done.stderr
    shown = sorted(line.split() for line in done.stdout.splitlines())
    assert [words[:-1] for words in shown] == expected(ranks, ranks // 4)
    assert len({words[-1] for words in shown}) == 1


def test_ranks_meet_where_rank_0_is_whatever_the_order_of_the_nodes(slurm: Slurm) -> None:
    done = in_job(slurm, f'{EZPZ} launch --hosts n003,n001,localhost --ppn 1 -- sh -c "$1"', SHOW)
    assert done.returncode == 0, done.stderr
    shown = sorted((line.split() for line in done.stdout.splitlines()), key=lambda words: int(words[1]))
    assert [words[0] for words in shown] == ["n000", "n001", "n003"]
    assert {words[6] for words in shown} == {"n000"}


@hydra
def test_mpich_inside_a_slurm_job(slurm: Slurm) -> None:
    """It reaches the nodes through srun, which knows them by no names but Slurm's."""
    done = in_job(slurm, f'{EZPZ} launch --launcher hydra --ppn 2 -- sh -c "$1"', SHOW)
    assert done.returncode == 0, done.stderr
    shown = sorted(line.split() for line in done.stdout.splitlines())
    assert [words[:-1] for words in shown] == expected(8, 2)


@pytest.mark.parametrize(("ranks", "ppn"), [(3, 1), (5, 2)])
def test_ranks_are_where_they_are_told_whatever_the_order_of_the_nodes(slurm: Slurm, ranks: int, ppn: int) -> None:
    done = in_job(slurm, f'{EZPZ} launch --hosts n003,n001,n002 -n {ranks} --ppn {ppn} -- sh -c "$1"', SHOW)
    assert done.returncode == 0, done.stderr
    shown = sorted((line.split() for line in done.stdout.splitlines()), key=lambda words: int(words[1]))
    hosts = ["n001", "n002", "n003"]
    assert [(words[0], words[3], words[5]) for words in shown] == [
        (hosts[rank // ppn], str(rank % ppn), str(rank // ppn)) for rank in range(ranks)
    ]
    assert {words[6] for words in shown} == {"n001"}


def test_what_the_job_asked_for_is_what_a_node_takes(slurm: Slurm) -> None:
    done = in_job(slurm, f"{EZPZ} launch --json --dry-run --nhosts 2 true")
    plan = json.loads(done.stdout)
    assert (plan["ranks"], plan["ppn"], plan["nodes"], plan["spares"]) == (4, 2, ["n000", "n001"], ["n002", "n003"])
    assert any("SLURM_NTASKS_PER_NODE is 2" in line for line in plan["evidence"])


def test_the_line_of_a_dry_run_does_the_same_when_pasted(slurm: Slurm) -> None:
    program = """'echo "$RANK of $WORLD_SIZE" "$@"' "it's" 'a  b' :"""
    script = f"{EZPZ} launch --dry-run --label -- sh -c {program} | sed -n 's/^command *//p' | sh"
    done = in_job(slurm, script)
    assert sorted(done.stdout.splitlines()) == [f"{rank}: {rank} of 8 a  b :" for rank in range(8)]


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("--ppn 1 -- sh -c 'exit 7'", 7, ""),
        ("--ppn 1 -- sh -c 'test $RANK = 2 && exit 9; exec sleep 60'", 9, ""),
        ("--ppn 1 -- sh -c 'test $RANK = 1 && kill -9 $$; exec sleep 60'", 137, ""),
        ("-- no-such-program-anywhere", 51, "'no-such-program-anywhere' is not on n"),
        ("--no-such-option-of-srun -- true", 52, "srun failed with status"),
        ("--nhosts 5 -- true", 53, "--nhosts 5 needs 5 nodes, and there are 4"),
        ("--hosts n[003-004] -- true", 54, "--hosts names n004, which is not among the 4 nodes of job"),
        ("-n 12 --nhosts 2 --ppn 4 -- true", 2, "12 ranks != 2 hosts x 4 ranks a host = 8"),
    ],
)
def test_what_fails_is_told_apart(slurm: Slurm, line: str, status: int, said: str) -> None:
    done = in_job(slurm, f"{EZPZ} launch {line}")
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert "\x1e" not in done.stderr


def test_a_yeeted_copy_runs_with_the_original_hidden(slurm: Slurm) -> None:
    source = slurm.lab.shared / "env"
    slurm.lab.run("n000", [sys.executable, "-m", "venv", "--without-pip", str(source)])
    done = in_job(slurm, f'{EZPZ} launch --ppn 1 --yeet -- python3 -c "$1"', WHERE, VIRTUAL_ENV=str(source))
    assert done.returncode == 0, done.stderr
    shown = [f"n00{number} /tmp/env /tmp/env True" for number in range(4)]
    assert sorted(done.stdout.splitlines()) == shown
    for host in slurm.lab.hosts[1:]:
        slurm.lab.run(host, ["mount", "-t", "tmpfs", "none", str(source)])
    again = in_job(slurm, f'{EZPZ} launch --ppn 1 --env /tmp/env -- python3 -c "$1"', WHERE, VIRTUAL_ENV=str(source))
    assert again.returncode == 0, again.stderr
    assert sorted(again.stdout.splitlines()) == shown


def test_a_torch_program_over_gloo(slurm: Slurm, torch: str) -> None:
    done = in_job(slurm, f'{EZPZ} launch --hosts n003,n001 -- {torch} -c "$1"', GLOO)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["n001 0 10", "n001 1 10", "n003 2 10", "n003 3 10"]
