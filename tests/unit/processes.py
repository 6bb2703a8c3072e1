"""Trees of processes that do not end by themselves, and what this process holds."""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.waiting import act_when, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.agent.common.cancel import CancelToken


def alive(pid: int) -> bool:
    """Whether a process runs, and is not a zombie of somebody else's."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def waits_for_input(pid: int) -> bool:
    """Whether a process is in a call to read its standard input (`read` is 0 on x86-64, 63 on ARM)."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[:2] in (["0", "0x0"], ["63", "0x0"])


def children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def held() -> tuple[int, int, set[int]]:
    """What this process holds: open files, threads, children."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), children()


def nothing_leaks() -> Iterator[None]:
    """For a fixture: after the test no more files are open, and no more threads and children are there, than before.

    There may be fewer: of a test before, something may have been about to end.
    """
    files, threads, processes = held()

    def leaks() -> list[str]:
        now_files, now_threads, now_processes = held()
        more = {"files": now_files > files, "threads": now_threads > threads, "children": now_processes - processes}
        return [what for what, is_more in more.items() if is_more]

    yield
    wait_until(lambda: not leaks(), "the end of everything that the test started")


class Tree:
    """A shell that starts a child and writes both pids down; neither ends before it is made to."""

    def __init__(
        self, folder: Path, *, stubborn: bool = False, leader_stays: bool = True, detached: bool = False
    ) -> None:
        self.folder = folder
        trap = "trap '' TERM; " if stubborn else ""
        stay = "while :; do wait; done" if leader_stays else "exit 0"
        apart = "</dev/null >/dev/null 2>&1" if detached else ""
        script = (
            f'{trap}sleep 300 {apart} & echo $! > "{folder}/child"; echo $$ > "{folder}/leader"; echo begun; {stay}'
        )
        self.argv = ["sh", "-c", script]

    @property
    def pids(self) -> list[int]:
        files = [self.folder / "leader", self.folder / "child"]
        wait_until(lambda: all(file.exists() and file.read_text().endswith("\n") for file in files))
        return [int(file.read_text()) for file in files]

    def stopper(self, cancel: CancelToken) -> threading.Thread:
        """A running thread that cancels as soon as the tree stands."""
        return act_when(lambda: self.begun, cancel.cancel)

    @property
    def begun(self) -> bool:
        return (self.folder / "leader").exists() and bool((self.folder / "leader").read_text())

    def assert_ended(self) -> None:
        wait_until(lambda: not any(map(alive, self.pids)), "the end of the tree")


def end(tree: Tree) -> None:
    """Whatever a failing test has left."""
    for pid in filter(alive, tree.pids):
        os.kill(pid, signal.SIGKILL)
