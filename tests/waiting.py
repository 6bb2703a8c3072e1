"""Waiting for events, and what of a file stays when nobody changes it.

A test never measures how long something takes (`bench` does), and never sleeps so that something may happen meanwhile:
it waits for the event itself. Every wait has the same deadline, so long that only what never happens exceeds it.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from typing import Any

T = TypeVar("T")
DEADLINE = 120.0  # seconds
POLL = 0.01


def wait_until(
    condition: Callable[[], T], what: str = "the event", *, process: subprocess.Popen[Any] | None = None
) -> T:
    """Wait until a condition holds and return its value.

    Args:
        condition: What is asked again and again; true when the event has happened.
        what: Names the event in the failure.
        process: Must not end before the event.
    """
    deadline = time.monotonic() + DEADLINE
    while True:
        value = condition()
        if value:
            return value
        if process is not None and process.poll() is not None:
            value = condition()  # it may have happened just before the process ended
            if value:
                return value
            raise AssertionError(f"the process ended with {process.returncode} before {what}")
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {DEADLINE:.0f} s")
        time.sleep(POLL)


def act_when(condition: Callable[[], object], act: Callable[[], object]) -> threading.Thread:
    """Start a thread that acts as soon as a condition holds, and return it."""

    def work() -> None:
        wait_until(condition)
        act()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def read_until(descriptor: int, enough: Callable[[bytes], object]) -> bytes:
    """Read a terminal or pipe until what came is enough and nothing more comes, or until its other end is closed."""
    said = b""

    def is_over() -> bool:
        nonlocal said
        if not select.select([descriptor], [], [], 0.1)[0]:
            return bool(enough(said))
        try:
            more = os.read(descriptor, 1 << 16)
        except OSError:  # of a terminal whose last process has ended
            more = b""
        said += more
        return not more

    wait_until(is_over, "what was to be read")
    return said


def wait_for_next_second() -> None:
    """Wait until the clock shows another second: receipts and status compare whole seconds."""
    now = int(time.time())
    wait_until(lambda: int(time.time()) > now, "the next second")


def unchanging(path: str | bytes | os.PathLike[str]) -> tuple[int, ...]:
    """Return what `stat` tells of a file that nobody writes to: all but the time of the last access."""
    seen = os.lstat(path)
    return (
        seen.st_dev, seen.st_ino, seen.st_mode, seen.st_nlink, seen.st_uid, seen.st_gid, seen.st_size,
        seen.st_mtime_ns, seen.st_ctime_ns,
    )  # fmt: skip
