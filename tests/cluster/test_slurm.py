"""Inside a real Slurm job: the nodes are found by themselves, and `ezpz launch` starts where `ezpz yeet` put things."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import clean_environment
from tests.lab.environments import make_tree

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.lab.slurm import Slurm

pytestmark = [pytest.mark.cluster, pytest.mark.slurm]


def in_job(slurm: Slurm, *command: str | Path, nodes: int = 4) -> subprocess.CompletedProcess[str]:
    """Run a command inside an allocation, on its first node, as a job script would."""
    line = ["salloc", "--quiet", f"--nodes={nodes}", "--no-shell" if not command else "--", *map(str, command)]
    return slurm.lab.run("n000", line, env=clean_environment(), check=False, timeout=120)


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
