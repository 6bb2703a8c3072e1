"""Ending of processes."""

import os
import signal
import subprocess


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it started: SIGTERM, 0.5 s, SIGKILL."""
    for number, timeout in ((signal.SIGTERM, 0.5), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            break
        try:
            os.killpg(process.pid, number)
            process.wait(timeout)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
