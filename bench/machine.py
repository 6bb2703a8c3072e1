"""The circumstances of a measurement: the machine, the day, and the versions of the programs."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import ezpz

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = re.compile(r"\d+(?:[.p]\d+)+")


def machine() -> str:
    """Return cores, memory, kernel and Python of this machine in a line."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    memory = int(fields["MemTotal"].split()[0]) / 2**20
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    python = platform.python_version()
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}, Python {python}"


def today() -> str:
    """Return the day, as ISO 8601."""
    return time.strftime("%Y-%m-%d")


def versions(tools: Iterable[tuple[str, ...]]) -> str:
    """Return the versions of ezpz and of these programs; each is given with the arguments that print its version."""
    found = [f"ezpz {ezpz.__version__}"]
    for name, *how in tools:
        path = sys.executable if name == "python" else shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if path is not None:
            done = subprocess.run([path, *how], capture_output=True, text=True, check=False, timeout=20)
            match = VERSION.search(done.stdout + done.stderr)
            found.append(f"{name} {match.group() if match else 'of unknown version'}")
        else:
            found.append(f"{name} is missing")
    return ", ".join(found)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
