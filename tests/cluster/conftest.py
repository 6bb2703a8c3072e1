"""What tests on real hosts share: a job on every host of the lab, sources, and a look at what landed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.environments import make_tree, make_venv

if TYPE_CHECKING:
    from tests.conftest import Ezpz
    from tests.lab import FaultyLab

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "wheels"
TORCH = os.environ.get("EZPZ_TEST_TORCH", sys.executable)
"""A python that may have torch, on a disk that all hosts share."""


@dataclass
class Job:
    """An allocation of all hosts of a lab, as a hostfile, and `ezpz yeet` inside it."""

    lab: FaultyLab
    ezpz: Ezpz
    hostfile: Path

    def yeet(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `ezpz yeet ARGUMENTS --hostfile ...` on n000."""
        return self.ezpz("yeet", *arguments, "--hostfile", self.hostfile, **options)

    def report(self, *arguments: str | Path, exit_code: int = 0, **options: Any) -> dict[str, Any]:
        """Run it with --json and return the document; the exit code must be the expected one."""
        done = self.yeet(*arguments, "--json", **options)
        assert done.returncode == exit_code, done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def sh(self, host: str, script: str) -> str:
        """What a shell script prints on a host."""
        return self.lab.run(host, ["sh", "-ec", script]).stdout

    def files(self, host: str, place: str) -> dict[str, str]:
        """Every file below a directory of a host with its type, mode, size, link target and checksum."""
        script = (
            f"cd {place}; find . ! -name '.ezpz-yeet-*' ! -type d -printf '%p %y %m %s %l %T@\\n' | sort; "
            "find . -type f ! -name '.ezpz-yeet-*' -exec md5sum {} + | sort"
        )
        return {str(number): line for number, line in enumerate(self.sh(host, script).splitlines())}

    def litter(self, host: str) -> list[str]:
        """Whatever ezpz has left in a host's /tmp that is not a destination."""
        return [name for name in self.sh(host, "ls -A /tmp").split() if "ezpz" in name]


@pytest.fixture
def job(ezpz: Ezpz) -> Job:
    lab = ezpz.lab
    return Job(lab, ezpz, lab.write_hostfile(lab.shared / "hostfile"))


@pytest.fixture
def data(job: Job) -> Path:
    """A plain directory of 200 files, 5 MB, fresh for the test."""
    root = job.lab.shared / f"data-{len(list(job.lab.shared.iterdir()))}"
    make_tree(root, files=200, total_bytes=5_000_000, seed=1)
    return root


@pytest.fixture
def venv(job: Job) -> Path:
    """A real venv with numpy, on the shared disk."""
    root = job.lab.shared / "numeric"
    if not root.exists():
        make_venv(root, python=sys.executable, packages=("numpy",), cache=CACHE)
    return root


@pytest.fixture
def bare_venv(job: Job) -> Path:
    """A real venv without packages, on the shared disk."""
    root = job.lab.shared / "bare"
    if not root.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    return root


@pytest.fixture(scope="session")
def torch() -> str:
    """A python that has torch; else the test is skipped, for torch is too large to be installed for one."""
    if subprocess.run([TORCH, "-c", "import torch.distributed"], capture_output=True).returncode:
        pytest.skip("torch is not installed; EZPZ_TEST_TORCH may name a python that has it")
    return TORCH
