"""Run a command and take its time, its memory and its output."""

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

LIMIT = 900.0  # seconds after which a command is taken for hung
HIGH_WATER = re.compile(rb"^VmHWM:\s+(\d+) kB", re.MULTILINE)
LOOK_EVERY = 0.01  # seconds


@dataclass(frozen=True)
class Done:
    """A command that has succeeded: wall seconds, what it printed, the peak of its own memory in bytes."""

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
    """Run a command to its end. Raises RuntimeError with what it said when it fails, or takes more than ``limit``."""
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
    """Follow the high-water mark of a process's memory; not ru_maxrss, which begins with that of whoever forked it."""
    seen = [0]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_EVERY):
            with contextlib.suppress(OSError):
                found = HIGH_WATER.search(Path(f"/proc/{pid}/status").read_bytes())
                seen[0] = max(seen[0], int(found.group(1)) << 10 if found else 0)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """A private directory on tmpfs, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="ezpz-bench-", dir="/dev/shm"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def count(root: Path) -> tuple[int, int]:
    """Return how many files and links are below ``root``, and the bytes of the files, without our own receipt."""
    files = size = 0
    for folder, _, names in _walk(os.fspath(root)):
        for status in (os.lstat(os.path.join(folder, name)) for name in names if not name.startswith(".ezpz-yeet-")):
            files += 1
            size += status.st_size if status.st_mode & 0o170000 == 0o100000 else 0
    return files, size


def _walk(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, with links to directories among the files."""
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        yield folder, folders, names + links


def megabytes(size: float) -> str:
    """A size as the tables give it."""
    return f"{size / 1e6:,.1f} MB"
