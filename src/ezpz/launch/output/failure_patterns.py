"""Every pattern for a failed rank or node: those of all launchers, and those of hardware and filesystems. Pure.

The patterns of a launcher are in its own file. The patterns of all launchers are searched, whichever one starts the
ranks, because one can use another: in a Slurm job Open MPI starts its daemons with srun.
"""

from __future__ import annotations

import functools

from ezpz.launch.launchers.base import installed_launchers
from ezpz.launch.launchers.failure_lines import FAULT, TIME, FailurePattern

_GENERAL: tuple[FailurePattern, ...] = (
    FailurePattern(TIME, "=>> PBS: job killed: walltime"),
    # a rank reports a fault of its node
    *(
        FailurePattern(FAULT, text)
        for text in (
            "uncorrectable ECC error",
            "CUDA-capable device(s) is/are busy or unavailable",
            "NVRM: Xid",
            "UR_RESULT_ERROR_DEVICE_LOST",
            "ZE_RESULT_ERROR_DEVICE_LOST",
            "hipErrorNoDevice",
            "cudaErrorNoDevice",
            "No space left on device",
            "Input/output error",
            "Stale file handle",
            "Transport endpoint is not connected",
        )
    ),
)

VICTIM_LINES: tuple[str, ...] = (
    "Connection reset by peer",
    "Connection closed by peer",
    "Connection closed by remote peer",
    "remote process exited or there was a network error",
    "ncclRemoteError",
    "ncclSystemError",
    "Broken pipe",
    "Socket Timeout",
)
"""Text of a rank that only noticed the end of another rank."""


@functools.cache
def all_patterns() -> tuple[FailurePattern, ...]:
    """Return the patterns of all launchers, then the general ones."""
    of_launchers = (each for launcher in installed_launchers([]) for each in launcher.failure_patterns)
    return tuple(dict.fromkeys((*of_launchers, *_GENERAL)))


def hints() -> tuple[str, ...]:
    """Return texts of which every relevant line contains one, except for the patterns of a site."""
    return (*(each.hint for each in all_patterns()), *VICTIM_LINES)


CLEANUP_SIGNALS = frozenset((1, 2, 3, 12, 13, 15))
"""Signals with which launchers end the rest of a run, and the signal for a pipe without a reader."""
CLEANUP_STATUSES = frozenset(128 + number for number in CLEANUP_SIGNALS)
