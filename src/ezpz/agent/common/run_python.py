"""Run the Python of an environment with a timeout, and end everything that it has started."""

import os
import re
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import Dict, Tuple

from .cancel import CancelToken
from .errors import AgentError
from .text import printable_path

NAMES = (b"python3", b"python")
ERROR = re.compile(rb"\s*(\w*Error|Fatal)\b")  # a Python that dies early adds other lines


def python_of(root: bytes) -> bytes:
    """Return the Python of the environment at `root`. Raise AgentError ("smoke-failed") if it has none."""
    for name in NAMES:
        python = os.path.join(root, b"bin", name)
        if os.path.exists(python):
            return python
    message = "'{}' has no bin/python3 that leads to a program".format(printable_path(root))
    raise AgentError("smoke-failed", message, "is it an environment? if so, yeet it again with --base embed")


def run_python(
    python: bytes,
    program: str,
    environ: Dict[str, str],
    cancel: CancelToken,
    seconds: float,
    *,
    cwd: bytes,
    options: Tuple[bytes, ...] = (),
) -> bytes:
    """Return what a program prints on stdout; it writes no bytecode.

    Args:
        python: the interpreter
        program: its source
        environ: its variables
        cancel: is checked several times per second
        seconds: the timeout
        cwd: the directory that it runs in
        options: of the interpreter

    Raises:
        AgentError: it does not start or fails ("smoke-failed"), or it takes too long ("timed-out").
    """
    argv = [python, b"-B", *options, b"-c", program.encode()]
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environ,
            start_new_session=True,
        )
    except OSError as e:
        message = "'{}' cannot be started: {}".format(printable_path(python), e.strerror)
        raise AgentError("smoke-failed", message, "look at the file; yeet it again")
    try:
        out, err = _follow(process, time.monotonic() + seconds, cancel)
    except TimeoutError:
        message = "'{}' did not end within {:g} s".format(printable_path(python), seconds)
        raise AgentError("timed-out", message, "does a module hang when it is imported? try it on that node")
    finally:
        _end(process)
    if process.returncode:
        message = "'{}' does not work: {}".format(printable_path(python), _ending(process.returncode, err))
        raise AgentError("smoke-failed", message, "run it on that node to see more")
    return out


def _follow(process: "subprocess.Popen[bytes]", deadline: float, cancel: CancelToken) -> Tuple[bytes, bytes]:
    """Return stdout and stderr once a process has ended; its children may keep the pipes open. Raise TimeoutError."""
    assert process.stdout is not None
    assert process.stderr is not None
    kept: Dict[int, bytes] = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    ends = select.poll()  # not select(), which takes no number beyond 1023
    for fd in kept:
        ends.register(fd, select.POLLIN)
    wait = 50  # milliseconds
    while True:
        cancel.raise_if_cancelled()
        if time.monotonic() > deadline:
            raise TimeoutError
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        ready = ends.poll(0 if ended else wait)
        for fd, _ in ready:
            data = os.read(fd, 65536)
            kept[fd] += data
            if not data:
                ends.unregister(fd)
                wait = 2  # it is about to end
        if ended and not ready:
            return kept[process.stdout.fileno()], kept[process.stderr.fileno()]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and its group, whose ID is not used again until the process was waited for."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, with its disk
        process.wait(5.0)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _ending(code: int, err: bytes) -> str:
    """Return why a process has ended, in one line: a signal, or the last line that it printed."""
    if code < 0:
        try:
            return "ended by {}".format(signal.Signals(-code).name)
        except ValueError:
            return "ended by signal {}".format(-code)
    lines = [line for line in err.splitlines() if line.strip()]
    lines = [line for line in lines if ERROR.match(line)] or lines
    return "exit status {}{}".format(code, ": " + printable_path(lines[-1].strip()) if lines else "")
