"""Processes by the namespace they live in, read from /proc: no pid is remembered, none is missed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def namespace_of(pid: int | str, kind: str) -> str | None:
    """Return the identity of a process's namespace such as ``net:[4026532008]``; None once it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None


def everyone() -> Iterator[int]:
    """Yield the pid of every process of this machine."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def members(namespaces: Collection[str]) -> list[int]:
    """List the live processes that are in one of these namespaces, which are all of one kind."""
    if not namespaces:
        return []
    kind = next(iter(namespaces)).partition(":")[0]
    return [pid for pid in everyone() if namespace_of(pid, kind) in namespaces]


def argv(pid: int) -> tuple[str, ...]:
    """Return the command line of a process; empty once it has gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in words if word)


def state(pid: int) -> str:
    """Return the one-letter state of a process (R, S, D, T, Z ...); empty once it has gone."""
    return _stat(pid)[0]


def parent(pid: int) -> int:
    """Return the pid of a process's parent; 0 once it has gone."""
    return int(_stat(pid)[1])


def _stat(pid: int) -> tuple[str, str]:
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            letter, ppid, *_ = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return "", "0"
    return letter, ppid


def send(pids: Collection[int], number: signal.Signals) -> None:
    """Send one signal to each of these processes that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def freeze_all(namespaces: Collection[str], patience: float = DEADLINE) -> None:
    """Stop every process of these namespaces, also those that are being started meanwhile."""
    deadline = time.monotonic() + patience
    while running := [pid for pid in members(namespaces) if state(pid) not in ("T", "t", "Z", "")]:
        send(running, signal.SIGSTOP)
        if time.monotonic() > deadline:
            raise TimeoutError(f"not stopped after {patience} s: {[argv(pid) for pid in running]}")
        time.sleep(0.002)


def kill_all(namespaces: Collection[str], patience: float = DEADLINE) -> None:
    """Kill every process of these namespaces and wait until none is left."""
    deadline = time.monotonic() + patience
    while left := [pid for pid in members(namespaces) if state(pid) not in ("Z", "")]:
        send(left, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"not killed after {patience} s: {[argv(pid) for pid in left]}")
        time.sleep(0.002)
