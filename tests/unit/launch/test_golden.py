"""The line of every site in one golden file. To renew it: EZPZ_GOLDEN=1 pytest tests/unit/launch/test_golden.py."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ezpz.cluster.schedulers.base import System
from ezpz.errors import ToolMissing
from ezpz.launch.plan.accelerators import AcceleratorProbe
from ezpz.launch.plan.discover import LaunchDependencies, PlacementOptions, make_launch_plan
from ezpz.launch.plan.plan import LaunchPlan, LaunchRequest
from tests.unit.launch.plan.test_make_plan import HYDRA, OPEN_MPI, PALS, FakeTools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ezpz.runtime import process

RECORDED = Path(__file__).parent / "recorded"
GOLDEN = RECORDED / "lines.txt"

SLURM = {"SLURM_JOB_ID": "7"}
SITES: dict[str, tuple[str, FakeTools, str, dict[str, str]]] = {
    "aurora": ("x4310c3s2b0n0", FakeTools({"mpiexec": PALS}), "x4310c3s2b0n0 x4310c3s3b0n0", {}),
    "sunspot": ("x1921c0s3b0n0", FakeTools({"mpiexec": PALS}), "x1921c0s3b0n0 x1921c0s4b0n0", {}),
    "polaris": ("x3001c0s1b0n0", FakeTools({"mpiexec": PALS}), "x3001c0s1b0n0 x3001c0s7b0n0", {}),
    "sirius": (
        "x3101c0s1b0n0", FakeTools({"mpiexec": PALS}), "x3101c0s1b0n0 x3101c0s7b0n0", {"PBS_O_HOST": "sirius-login-01"}
    ),
    "sophia": ("sophia-gpu-01", FakeTools({"mpiexec": OPEN_MPI}), "sophia-gpu-01 sophia-gpu-02", {}),
    "frontier": (
        "frontier00001", FakeTools({"srun": ""}), "", {**SLURM, "SLURM_JOB_NODELIST": "frontier[00001-00002]"}
    ),
    "perlmutter": (
        "nid001234", FakeTools({"srun": ""}), "",
        {**SLURM, "SLURM_JOB_NODELIST": "nid[001234-001235]", "NERSC_HOST": "perlmutter"},
    ),
    "default": ("n1", FakeTools({"mpiexec": HYDRA}), "n1 n2", {}),
}  # fmt: skip
WRAPPED = re.compile(r"sh -c '.*' ezpz ")


def missing(argv: Sequence[str], *, timeout: float | None = None) -> process.Completed:
    """No program can be started."""
    raise ToolMissing(f"{argv[0]} is not here")


def planned(where: str, environ: Mapping[str, str] | None = None, site: str | None = None) -> LaunchPlan:
    """The plan for two nodes of a site, made on the first of them."""
    host, tools, names, variables = SITES[where]
    if names:
        variables = {"PBS_NODEFILE": "/nodefile", "PBS_JOBID": "1.server", **variables}
    system = System(
        run=missing,
        hostname=lambda: host,
        local_names=lambda: frozenset((host,)),
        resolve=lambda _: (),
        read=lambda _: "".join(f"{name}\n" for name in names.split()).encode(),
    )
    probe = AcceleratorProbe(lambda: "", lambda: (), lambda: 4)
    world = LaunchDependencies(tools, system, probe, random.Random(0), lambda _: False, lambda: host)
    everything = {"HOME": "/nonexistent", "MASTER_PORT": "29500", **variables, **(environ or {})}
    return make_launch_plan(
        LaunchRequest(("python3", "train.py")), PlacementOptions(hsn="off", site=site), everything, world
    )


def test_the_line_of_every_site_is_as_recorded() -> None:
    lines = []
    for site in SITES:
        plan = planned(site)
        assert plan.site.name == site
        lines.append(f"{site}: {plan.line}\n")
    text = "".join(lines)
    if os.environ.get("EZPZ_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "renew it with EZPZ_GOLDEN=1"


def options(line: str) -> set[str]:
    """The options of a PALS line, each with its value, whatever the spelling and the order; without the hostfile."""
    words = re.sub(r"(--?[a-z-]+)[ =](?!-)(\S+)", r"\1=\2", line.replace("verbose,", "")).split()
    spelled = {"-n": "--np", "-np": "--np", "-ppn": "--ppn"}
    pairs = (word.partition("=") for word in words if word.startswith("-"))
    return {f"{spelled.get(name, name)}={value}" for name, _, value in pairs if name != "--hostfile"}


def test_pals_lines_are_those_in_use_on_the_machines() -> None:
    """What was recorded there; only the bindings' own report (`verbose`) is left out."""
    for entry in (RECORDED / "pals.txt").read_text().splitlines():
        if not entry.startswith("#"):
            site, _, line = entry.partition(": ")
            ours = WRAPPED.sub("", planned(site).line).partition("mpiexec ")[2].partition(" python3")[0]
            assert options(ours) == options(line.partition("mpiexec ")[2].partition(" python3")[0]), site


def test_cpu_bind_of_the_environment_wins_over_the_site() -> None:
    line = planned("aurora", {"CPU_BIND": "--cpu-bind=list:1-8:9-16"}).line
    assert "--cpu-bind=list:1-8:9-16" in line
    assert "list:2-4" not in line
    assert "list:2-4" in planned("polaris", site="aurora").line
