"""Runs of ezpz from this checkout, in a clean environment, with its JSON report."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from bench.measure import Done, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REMOVED_PREFIXES = ("PBS_", "SLURM_", "PMI_", "PALS_", "EZPZ_", "VIRTUAL_ENV", "CONDA_", "HOSTFILE", "PYTHON")
LOCAL_STEPS = ("reach", "check", "read", "publish")  # on one host, reach is the scan of the source


def environment(**more: str) -> dict[str, str]:
    """Return the environment of this process with ``more``, without variables of schedulers, ezpz, and Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith(REMOVED_PREFIXES)} | more


def argv(*arguments: str | os.PathLike[str]) -> list[str]:
    """Return the command line of ``ezpz`` with these arguments."""
    return [sys.executable, "-m", "ezpz", *(os.fspath(argument) for argument in arguments)]


def yeet_here(source: Path, target: Path, env: Mapping[str, str] | None = None) -> tuple[Done, float]:
    """Copy to this host only; return the run and the seconds from the scan to the end of publishing."""
    done = run(
        argv("yeet", source, "--dst", target, "--hosts", socket.gethostname(), "--json"), env=env or environment()
    )
    phases = report(done)["phases"]
    return done, sum(phases[name] for name in LOCAL_STEPS)


def report(done: Done) -> dict[str, Any]:
    """Return the report of a run with --json."""
    found: dict[str, Any] = json.loads(done.out)
    return found
