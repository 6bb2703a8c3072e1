"""What launchers, ssh and programs print when a rank or a node fails, and what it is worth. Pure.

What a launcher prints is in its own file. The signs of all launchers are looked for, whichever started the ranks: in a
Slurm job Open MPI starts its daemons by srun.
"""

from __future__ import annotations

import functools

from ezpz.launch.launchers.base import installed_launchers
from ezpz.launch.launchers.failure_lines import FAULT, TIME, FailurePattern, sign

_GENERAL: tuple[FailurePattern, ...] = (
    sign(TIME, "=>> PBS: job killed: walltime"),
    # what a rank says of the machine that it runs on
    *(
        sign(FAULT, said)
        for said in (
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
"""What a rank says that only noticed the end of another."""


@functools.cache
def all_patterns() -> tuple[FailurePattern, ...]:
    """Return the signs of all launchers, then those that belong to no launcher."""
    theirs = (each for launcher in installed_launchers([]) for each in launcher.failure_patterns)
    return tuple(dict.fromkeys((*theirs, *_GENERAL)))


def hints() -> tuple[str, ...]:
    """Return what is partly in whatever line tells something, but for the patterns of a site."""
    return (*(each.hint for each in all_patterns()), *VICTIM_LINES)


CLEANUP_SIGNALS = frozenset((1, 2, 3, 12, 13, 15))
"""Signals by which launchers end the rest of a run, and that of a pipe whose reader has gone."""
CLEANUP_STATUSES = frozenset(128 + number for number in CLEANUP_SIGNALS)
