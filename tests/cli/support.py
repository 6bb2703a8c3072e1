"""Real `ezpz` processes, and packages made for one test whose entry points such a process finds on its path."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOREIGN = ("EZPZ_", "_EZPZ", "PBS_", "SLURM_", "COMP_", "NO_COLOR", "HOSTFILE", "PYTHONPATH", "FORCE_COLOR")


def clean_environ(*paths: Path, **variables: str) -> dict[str, str]:
    """Our environment without what steers ezpz; `paths` are put before sys.path of Python."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    if paths:
        environ["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    return environ | variables


def ezpz(
    *args: str, paths: tuple[Path, ...] = (), stdin: str = "", variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m ezpz` with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ezpz", *args],
        input=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=DEADLINE,
        env=clean_environ(*paths, **(variables or {})),
    )


def make_package(
    root: Path, name: str, entry_points: dict[str, str], source: str, *, group: str = "ezpz.commands"
) -> Path:
    """A directory that looks like site-packages with one third-party package in it; `entry_points`: name -> value."""
    site = root / f"site-{name}"
    info = site / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (site / f"{name}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = [f"{key} = {value}" for key, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join((f"[{group}]", *lines, "")))
    return site
