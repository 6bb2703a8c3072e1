"""Inside a real Slurm job: the nodes are found by themselves, and `ezpz launch` starts where `ezpz yeet` put things."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.common.layout import OWN_FILES
from tests.conftest import clean_environment
from tests.lab import make_lab
from tests.lab.compare import compare_trees
from tests.lab.environments import make_tree, make_venv
from tests.lab.slurm import Slurm
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.slurm]


def in_job(
    slurm: Slurm, *command: str | Path, nodes: int = 4, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a command inside an allocation, on its first node, as a job script would."""
    line = ["salloc", "--quiet", *options, f"--nodes={nodes}", "--no-shell" if not command else "--"]
    line += map(str, command)
    return slurm.lab.run("n000", line, env=clean_environment(), check=False, timeout=DEADLINE)


def ezpz(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "ezpz", *map(str, arguments)]


def test_the_nodes_of_the_job_are_found_and_served(slurm: Slurm) -> None:
    tree = slurm.lab.shared / "tree"
    make_tree(tree, files=50, total_bytes=500_000, seed=9)
    done = in_job(slurm, *ezpz("yeet", tree, "--json"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["plan"]["allocation"]["scheduler"] == "slurm"
    assert report["plan"]["allocation"]["nodes"] == ["n000", "n001", "n002", "n003"]
    assert report["succeeded"] == 4
    for host in slurm.lab.hosts:
        assert slurm.lab.run(host, ["sh", "-c", "find /tmp/tree -type f ! -name '.ezpz*' | wc -l"]).stdout == "50\n"


def test_a_job_of_some_nodes_is_just_those(slurm: Slurm) -> None:
    done = in_job(slurm, *ezpz("yeet", "--dry-run", "/usr/share/doc/bash", "--json"), nodes=2)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plan"]["allocation"]["nodes"] == ["n000", "n001"]


def test_on_a_login_node_squeue_names_the_job(slurm: Slurm) -> None:
    holder = slurm.lab.run(
        "n000",
        ["sbatch", "--parsable", "--nodes=3", "--output=/dev/null", "--wrap", "sleep 60"],
        env=clean_environment(),
    )
    try:
        found = None
        for _ in range(50):
            done = slurm.lab.run(
                "n003", ezpz("yeet", "--dry-run", "/usr/share/doc/bash", "--json"), env=clean_environment(), check=False
            )
            found = json.loads(done.stdout)["plan"]["allocation"]
            if found["scheduler"] == "slurm":
                break
        assert found is not None
        assert (found["scheduler"], found["job_id"]) == ("slurm", holder.stdout.strip())
        assert found["nodes"] == ["n000", "n001", "n002"]
        assert found["local"] is None
    finally:
        slurm.lab.run("n000", ["scancel", holder.stdout.strip()], env=clean_environment())


def test_launch_starts_the_yeeted_python_on_every_node(slurm: Slurm) -> None:
    tree = slurm.lab.shared / "tool"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "who").write_text("#!/bin/sh\necho $(hostname) $(dirname $0)\n")
    (tree / "bin" / "who").chmod(0o755)
    done = in_job(
        slurm,
        "sh",
        "-c",
        'set -e; "$0" -m ezpz yeet "$1" -q; "$0" -m ezpz launch -- /tmp/tool/bin/who',
        sys.executable,
        tree,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if "/tmp/tool" in line) == [
        f"n00{number} /tmp/tool/bin" for number in range(4)
    ]


def slurm_without_ssh(more: str = "", rate: str | None = None) -> Iterator[Slurm]:
    """Slurm on four hosts of its own that have no ssh to call one another with."""
    with make_lab(4, rate=rate) as lab, Slurm(lab, more=more) as running:
        for host in lab.hosts:
            lab.without(host, "ssh")
            assert lab.run(host, ["sh", "-c", "command -v ssh"], env=clean_environment(), check=False).stdout == ""
        yield running


@pytest.fixture(scope="module")
def no_ssh() -> Iterator[Slurm]:
    """Slurm on hosts that have no ssh, for tests that break none of them."""
    yield from slurm_without_ssh()


@pytest.fixture
def frail() -> Iterator[Slurm]:
    """The same for one test, and sooner to believe that a node is dead."""
    yield from slurm_without_ssh("MessageTimeout=5\n")


@pytest.fixture
def slow() -> Iterator[Slurm]:
    """The same for one test, on cables so slow that a run can be looked at."""
    yield from slurm_without_ssh(rate="20mbit")


def wait_until_agents_are_gone(slurm: Slurm, *hosts: str) -> None:
    wait_until(
        lambda: not any("-IS" in argv for host in hosts for _, argv in slurm.lab.processes(host)),
        "the end of all agents",
    )


class TestWithoutSsh:
    @pytest.mark.parametrize(("transport", "reason"), [("srun", "asked for"), ("auto", "inside Slurm job")])
    def test_srun_starts_the_agents_and_everything_arrives(self, no_ssh: Slurm, transport: str, reason: str) -> None:
        tree = no_ssh.lab.shared / f"by-{transport}"
        make_tree(tree, files=50, total_bytes=20_000_000, seed=9)
        done = in_job(no_ssh, *ezpz("yeet", tree, "--transport", transport, "--json"))
        assert done.returncode == 0, done.stderr + done.stdout
        report = json.loads(done.stdout)
        assert report["plan"]["transport"]["name"] == "srun"
        assert report["plan"]["transport"]["reason"].startswith(reason)
        assert report["succeeded"] == 4
        assert {node["via"] for node in report["nodes"]} - {"", "this host"}, "the nodes should pass it on"
        for host in no_ssh.lab.hosts:
            assert compare_trees(tree, no_ssh.lab.path(host, f"/tmp/{tree.name}"), but=OWN_FILES, private=True) == [], (
                host.name
            )
            assert "ezpz" not in no_ssh.lab.run(host, ["ls", "-A", "/tmp"]).stdout
        wait_until_agents_are_gone(no_ssh, "n000", "n001", "n002", "n003")

    def test_status_and_clean_need_no_ssh_either(self, no_ssh: Slurm) -> None:
        tree = no_ssh.lab.shared / "told"
        make_tree(tree, files=50, total_bytes=500_000, seed=9)
        assert in_job(no_ssh, *ezpz("yeet", tree)).returncode == 0
        done = in_job(no_ssh, *ezpz("yeet", "status", "/tmp/told", "--verify"))
        assert done.returncode == 0, done.stderr + done.stdout
        assert "    4  n[000-003]  current" in done.stdout
        cleaned = in_job(no_ssh, *ezpz("yeet", "clean", "/tmp/told", "--yes"))
        assert cleaned.returncode == 0, cleaned.stderr + cleaned.stdout
        assert "removed 4 directories from 4 nodes" in cleaned.stdout
        wait_until_agents_are_gone(no_ssh, "n000", "n001", "n002", "n003")

    def test_nor_does_looking_for_leaks_on_another_node(self, no_ssh: Slurm) -> None:
        source = no_ssh.lab.shared / "looked-into"
        make_venv(source, python=sys.executable, packages=(), cache=source)
        assert in_job(no_ssh, *ezpz("yeet", source)).returncode == 0
        script = f'rm -r /tmp/{source.name}; exec "$@"'
        line = ezpz("yeet", "status", "--leaks", f"/tmp/{source.name}")
        done = in_job(no_ssh, "sh", "-c", script, "sh", *line)
        assert done.returncode == 0, done.stderr + done.stdout
        assert re.match(rf"/tmp/{source.name} on n00[123], Python 3", done.stdout)
        by_ssh = in_job(no_ssh, *line, "--transport", "ssh")
        assert by_ssh.returncode == 1, by_ssh.stdout
        assert "3 of them did not answer" in by_ssh.stderr
        wait_until_agents_are_gone(no_ssh, "n000", "n001", "n002", "n003")

    def test_a_run_is_followed_from_another_terminal(self, slow: Slurm) -> None:
        lab, tree = slow.lab, slow.lab.shared / "followed"
        make_tree(tree, files=300, total_bytes=40_000_000, seed=5)
        yeet = [*ezpz("yeet", tree), "--quiet"]
        line = ["salloc", "--quiet", "--nodes=4", "--", "sh", "-c", '"$@" </dev/null; echo $?; exec cat', "sh", *yeet]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        run = lab.popen("n000", line, env=clean_environment(), **pipes)
        begun = "while ! find /tmp/.followed.ezpz-*/tree -type f 2>/dev/null | grep -q .; do sleep 0.05; done"
        for host in ("n001", "n003"):
            lab.run(host, ["sh", "-c", begun], timeout=DEADLINE)
        [job] = lab.run("n000", ["squeue", "--noheader", "-o", "%A"], env=clean_environment()).stdout.split()
        terminal = {**clean_environment(), "SLURM_JOB_ID": job}
        done = lab.run("n000", ezpz("yeet", "status", "--watch"), env=terminal, check=False, timeout=DEADLINE)
        assert re.search(r"/tmp/followed: \d of 4 nodes have it, \d writing", done.stderr), done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        assert "    4  n[000-003]  current" in done.stdout
        assert run.communicate(timeout=DEADLINE)[0] == "0\n"
        wait_until_agents_are_gone(slow, "n000", "n001", "n002", "n003")

    def test_nothing_could_be_served_by_ssh(self, no_ssh: Slurm) -> None:
        done = in_job(no_ssh, *ezpz("yeet", "/usr/share/doc/bash", "--transport", "ssh", "--json"))
        assert done.returncode == 30, done.stderr + done.stdout

    def test_a_changed_source_is_brought_up_to_date_though_rsync_has_no_ssh(self, no_ssh: Slurm) -> None:
        tree = no_ssh.lab.shared / "changing"
        make_tree(tree, files=50, total_bytes=500_000, seed=9)
        for change in ("first", "second"):
            (tree / "added").write_text(change)
            done = in_job(no_ssh, *ezpz("yeet", tree, "--json"))
            assert done.returncode == 0, done.stderr + done.stdout
            for host in no_ssh.lab.hosts:
                assert compare_trees(tree, no_ssh.lab.path(host, "/tmp/changing"), but=OWN_FILES, private=True) == [], (
                    host.name
                )

    def test_a_dead_node_is_named_and_the_others_are_served(self, frail: Slurm) -> None:
        tree = frail.lab.shared / "most"
        make_tree(tree, files=50, total_bytes=500_000, seed=9)
        frail.lab.kill("n002")
        line = ezpz("yeet", tree, "--transport", "srun", "--json")
        done = in_job(frail, *line, options=("--no-kill",))
        report = json.loads(done.stdout)
        assert {node["node"] for node in report["nodes"] if node["failure"]} == {"n002"}, done.stderr
        failure = next(node["failure"] for node in report["nodes"] if node["node"] == "n002")
        assert failure["code"] == "node-lost"
        assert failure["message"].startswith("n002: srun started no agent there: ")
        assert (done.returncode, report["succeeded"]) == (36, 3)
        for name in ("n000", "n001", "n003"):
            assert compare_trees(tree, frail.lab.path(name, "/tmp/most"), but=OWN_FILES, private=True) == [], name
        wait_until_agents_are_gone(frail, "n000", "n001", "n003")
