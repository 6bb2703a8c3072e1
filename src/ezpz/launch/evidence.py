"""What launchers, ssh and programs print when a rank or a node fails, and what it is worth. Data, and pure.

Each pattern's groups say what is known: `node`, `nodes` (a nodeset), `rank`, `ranks` (as "0-3,7"), `index` (of the node
among those of the run), `status`, `signal`. A site's own patterns call the node `host`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NODE, FAULT, SIGNAL, EXIT, TIME, WHERE = "node", "fault", "signal", "exit", "time", "where"


@dataclass(frozen=True, slots=True)
class Sign:
    """A line that tells something.

    kind: NODE: a node has gone or cannot be reached. FAULT: its hardware or filesystem failed, as a rank on it says.
    SIGNAL, EXIT: a rank ended so. TIME: the job's time is over. WHERE: the next sign of how a rank ended is about this
    rank or node
    hint: what a line that matches surely holds; looking for it first is what makes looking at every line affordable
    ended: the number of the signal, where only words tell it
    cause: in words, where the line does not say it
    """

    kind: str
    hint: str
    pattern: re.Pattern[str]
    ended: int | None = None
    cause: str = ""


def _sign(kind: str, hint: str, pattern: str = "", ended: int | None = None) -> Sign:
    return Sign(kind, hint, re.compile(pattern or re.escape(hint)), ended)


_NODE = r"(?P<node>[A-Za-z0-9][A-Za-z0-9_.-]*)"
_TASKS = rf"error: (?:{_NODE}|\S+): tasks? (?P<ranks>[\d,-]+): "
_SLURM_WORDS = {
    "Hangup": 1, "Interrupt": 2, "Quit": 3, "Illegal instruction": 4, "Aborted": 6, "Bus error": 7,
    "Floating point exception": 8, "Killed": 9, "Out Of Memory": 9, "Segmentation fault": 11, "Terminated": 15,
}  # fmt: skip

SIGNS: tuple[Sign, ...] = (
    # PALS
    _sign(NODE, "shepherd died", rf"{_NODE}: shepherd died from signal \d+"),
    _sign(NODE, "ping RPC timeout", rf"ping RPC timeout from {_NODE} after"),
    _sign(NODE, "launch failed on", rf"launch failed on {_NODE}:"),
    _sign(SIGNAL, "died from signal", rf"(?:{_NODE}: )?\brank (?P<rank>\d+)\b.*? died from signal (?P<signal>\d+)"),
    _sign(EXIT, "exited with code", rf"(?:{_NODE}: )?\brank (?P<rank>\d+)\b.*? exited with code (?P<status>\d+)"),
    # Slurm
    _sign(NODE, "Node failure on", r"error: Node failure on (?P<nodes>\S+)"),
    _sign(NODE, "io error with slurmstepd", r"aborting, io error with slurmstepd on node (?P<index>\d+)"),
    _sign(NODE, "Task launch for", rf"Task launch for StepId=\S+ failed on node {_NODE}:"),
    _sign(FAULT, "slurmstepd-", rf"slurmstepd-{_NODE}: error: Detected \d+ oom.kill event", 9),
    _sign(TIME, "CANCELLED AT", r"CANCELLED AT \S+ DUE TO (?:TIME LIMIT|PREEMPTION)"),
    _sign(TIME, "=>> PBS: job killed: walltime"),
    _sign(EXIT, "Exited with exit code", _TASKS + r"Exited with exit code (?P<status>\d+)"),
    *(_sign(SIGNAL, f": {word}", _TASKS + word, number) for word, number in _SLURM_WORDS.items()),
    # MPICH and Intel MPI
    _sign(WHERE, "RUNNING AT", rf"^= +(?:RANK (?P<rank>\d+) )?PID \d+ RUNNING AT {_NODE}"),
    _sign(EXIT, " EXIT ", r"^= +EXIT (?:CODE|STATUS): (?P<status>\d+)"),
    _sign(SIGNAL, "KILLED BY SIGNAL", r"^= +KILLED BY SIGNAL: (?P<signal>\d+)"),
    _sign(NODE, "unable to connect from", rf'unable to connect from "\S+" to "{_NODE}"'),
    _sign(EXIT, "MPI_Abort(", r"application called MPI_Abort\(.*?, (?P<status>-?\d+)\) - process (?P<rank>\d+)"),
    _sign(EXIT, "Abort(", r"\bAbort\((?P<status>-?\d+)\) on node (?P<rank>\d+)\b"),
    # ssh, by which MPICH and Open MPI reach nodes
    _sign(NODE, "ssh: connect to host", rf"ssh: connect to host {_NODE} port \d+:"),
    _sign(NODE, "ssh: Could not resolve", rf"ssh: Could not resolve hostname {_NODE}:"),
    _sign(NODE, "closed by remote host", rf"Connection to {_NODE} closed by remote host"),
    _sign(NODE, "Connection closed by", rf"Connection closed by {_NODE} port \d+"),
    _sign(NODE, "Connection reset by", rf"Connection reset by {_NODE} port \d+"),
    _sign(NODE, "Timeout, server", rf"Timeout, server {_NODE} not responding"),
    # Open MPI
    _sign(
        SIGNAL,
        "exited on signal",
        rf"process rank (?P<rank>\d+) with PID \d+ on node {_NODE} exited on signal (?P<signal>\d+)",
    ),
    _sign(NODE, "Remote daemon:", rf"Remote daemon: \[\S+\] on node {_NODE}"),
    _sign(WHERE, "Process name:", r"Process name: \[.*,(?P<rank>\d+)\]"),
    _sign(EXIT, "Exit code:", r"^ *Exit code: +(?P<status>\d+)"),
    _sign(EXIT, "MPI_ABORT was invoked", r"MPI_ABORT was invoked on rank (?P<rank>\d+)"),
    # what a rank says of the machine that it runs on
    *(
        _sign(FAULT, said)
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

VICTIMS: tuple[str, ...] = (
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

HINTS = (*(sign.hint for sign in SIGNS), *VICTIMS)
"""One of them is in whatever line tells something, but for the patterns of a site."""

MEEK_SIGNALS = frozenset((1, 2, 3, 12, 13, 15))
"""Signals by which launchers end the rest of a run, and that of a pipe whose reader has gone."""
MEEK_STATUSES = frozenset(128 + number for number in MEEK_SIGNALS)
