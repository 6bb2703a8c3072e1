"""Run one rsync on a node, report how far it is, and end all of its processes when it must stop."""

import os
import re
import select
import subprocess
import time
from typing import Callable, Optional, Sequence, Tuple

from .common.cancel import CancelToken
from .common.errors import AgentError
from .common.messages.answers import PullAnswer
from .common.processes import end_group

PROGRESS = re.compile(rb"(\d+)\s+\d+%\s")  # --info=progress2 with --no-human-readable
STATS = {
    "sent_files": re.compile(rb"Number of regular files transferred: (\d+)"),
    "sent_bytes": re.compile(rb"Total transferred file size: (\d+)"),
}
STDERR_KEPT = 4096  # bytes
EVENT_INTERVAL = 0.25  # seconds


def run_rsync(argv: Sequence[str], timeout: float, cancel: CancelToken, progress: Callable[[int], None]) -> PullAnswer:
    """Run rsync to its end. Raise AgentError ("timed-out", "tool-missing").

    Args:
        argv: its command line
        timeout: seconds, 0 for none
        cancel: is checked several times per second
        progress: takes the bytes that were copied so far
    """
    started = time.monotonic()
    environment = dict(os.environ, LC_ALL="C")
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as e:
        raise AgentError("tool-missing", "'{}' cannot be started: {}".format(argv[0], e.strerror))
    try:
        out, err = _follow(process, started + timeout if timeout else None, cancel, progress)
        code = process.wait()
    except TimeoutError:
        raise AgentError(
            "timed-out",
            "the copy did not end within {:g} s".format(timeout),
            "is the node or its source slow? raise --timeout, or look at the node",
        )
    finally:
        end_group(process)
    matches = {name: pattern.search(out) for name, pattern in STATS.items()}
    return PullAnswer(
        returncode=code,
        stderr=err.decode("utf-8", "replace").strip(),
        seconds=time.monotonic() - started,
        **{name: int(match.group(1)) if match else 0 for name, match in matches.items()},
    )


def _follow(
    process: "subprocess.Popen[bytes]",
    deadline: Optional[float],
    cancel: CancelToken,
    progress: Callable[[int], None],
) -> Tuple[bytes, bytes]:
    """Return the end of its stdout and of its stderr. Raise TimeoutError."""
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    open_ends = list(kept)
    reported = 0.0
    while open_ends:
        cancel.raise_if_cancelled()
        now = time.monotonic()
        if deadline is not None and now > deadline:
            raise TimeoutError
        for fd in select.select(open_ends, [], [], 0.2)[0]:
            data = os.read(fd, 65536)
            if not data:
                open_ends.remove(fd)
            kept[fd] = (kept[fd] + data)[-STDERR_KEPT:]
        found = PROGRESS.findall(kept[process.stdout.fileno()])
        if found and now - reported > EVENT_INTERVAL:
            reported = now
            progress(int(found[-1]))
    return kept[process.stdout.fileno()], kept[process.stderr.fileno()]


def knows_zstd() -> bool:
    """Return whether the rsync of this host can compress with zstd, which --version lists since 3.2."""
    try:
        said = subprocess.run(
            ["rsync", "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return b"zstd" in said.stdout
