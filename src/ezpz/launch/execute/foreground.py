"""Run a command on this terminal: it has our stdio, and the signals that we get."""

from __future__ import annotations

import math
import signal
import time
from typing import TYPE_CHECKING

from ezpz.runtime.process import end_tree, signal_group, start, to_group
from ezpz.runtime.signals import ENDING, FORWARDED, collected_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.runtime.process import Argument, Running


def run_in_foreground(
    argv: Sequence[Argument],
    *,
    envs: Sequence[Mapping[str, str]],
    grace: float,
    stdout: int | None = None,
    stderr: int | None = None,
    forward_signal: Callable[[Running, int], None] | None = None,
    is_hopeless: Callable[[], bool] | None = None,
) -> int:
    """Run `argv` once for each environment, all at once, on our own stdio; return the exit status as a shell would.

    The status is the first that is not 0, and then the others are ended. Signals that this process gets go on to the
    whole tree of each; `grace` seconds after one that asks to end, or at the second one, what is left is ended. The
    status is never 0 after such signals, but 128 + N for the first one, N: MPICH's mpiexec answers Ctrl-C with 0.
    `stdout`, `stderr`: descriptors to take the place of ours. `pass_on`: another way for signals than to the whole
    tree. `hopeless`: whether to end it all now, asked twice a second. For the main thread only. Raises ToolMissing, and
    OSError for a file that is no program.
    """
    processes: list[Running] = []
    failed: Running | None = None
    deadline, asked = math.inf, 0
    with collected_signals(FORWARDED) as signals:
        try:
            for env in envs:
                processes.append(start(argv, stdin=None, stdout=stdout, stderr=stderr, env=env))  # noqa: PERF401 - each is ended below
            while running := [process for process in processes if process.poll() is None]:
                failed = failed or _failed(processes)
                left = deadline - time.monotonic()
                if left <= 0 or (failed and not asked) or (is_hopeless and is_hopeless()):
                    break
                for number in signals.within(min(left, 0.5) if is_hopeless else left):
                    for process in running:
                        (forward_signal or to_group)(process, number)
                    if number in ENDING:
                        deadline, asked = time.monotonic() + (0.0 if asked else grace), asked or number
        finally:
            for process in processes:
                if process.returncode is None or asked:  # asked to end: also what outlived its leader
                    signal_group(process.pid, signal.SIGTERM)
            for process in processes:
                end_tree(process)
    failed = failed or _failed(processes)
    status = failed.returncode if failed else -asked
    return status if status >= 0 else 128 - status


def _failed(processes: Sequence[Running]) -> Running | None:
    return next((process for process in processes if process.returncode), None)
