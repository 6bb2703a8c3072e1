"""Run commands; measure their time and memory."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

LIMIT = 900.0  # seconds after which a command is considered hung
HIGH_WATER = re.compile(rb"^VmHWM:\s+(\d+) kB", re.MULTILINE)
SAMPLE_INTERVAL = 0.01  # seconds


@dataclass(frozen=True)
class Done:
    """A command that has succeeded: wall seconds, its output, the peak of its own memory in bytes."""

    seconds: float
    out: str
    peak: int


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit: float = LIMIT,
) -> Done:
    """Run a command to its end, ``limit`` seconds at most. Raises RuntimeError with its output if it fails."""
    began = time.perf_counter()
    with (
        subprocess.Popen(
            argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child,
        _peak(child.pid) as peak,
    ):
        try:
            out, err = child.communicate(timeout=limit)
        except BaseException:
            child.kill()
            raise
        seconds = time.perf_counter() - began
    if child.returncode:
        raise RuntimeError(f"{[str(word) for word in argv]}: exit {child.returncode}\n{out[-2000:]}{err[-2000:]}")
    return Done(seconds, out, peak())


@contextlib.contextmanager
def _peak(pid: int) -> Iterator[Callable[[], int]]:
    """Sample the peak of a process's memory; ru_maxrss would start with the peak of its parent."""
    seen = [0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_INTERVAL):
            with contextlib.suppress(OSError):
                found = HIGH_WATER.search(Path(f"/proc/{pid}/status").read_bytes())
                seen[0] = max(seen[0], int(found.group(1)) << 10 if found else 0)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """Make a private directory on tmpfs, and remove it afterwards."""
    path = Path(tempfile.mkdtemp(prefix="ezpz-bench-", dir="/dev/shm"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def count(root: Path) -> tuple[int, int]:
    """Return the number of files and links below ``root``, and the bytes of the files, without ezpz's receipt."""
    files = size = 0
    for directory, _, names in _walk(os.fspath(root)):
        for status in (os.lstat(os.path.join(directory, name)) for name in names if not name.startswith(".ezpz-yeet-")):
            files += 1
            size += status.st_size if status.st_mode & 0o170000 == 0o100000 else 0
    return files, size


def _walk(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk like os.walk, with links to directories among the files."""
    for directory, directories, names in os.walk(root):
        links = [name for name in directories if os.path.islink(os.path.join(directory, name))]
        yield directory, directories, names + links


def megabytes(size: float) -> str:
    """Return a size as it is in the tables."""
    return f"{size / 1e6:,.1f} MB"
