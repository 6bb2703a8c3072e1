"""Run one rsync on a node, tell how far it is, and end its whole tree when it must stop."""

import os
import re
import select
import subprocess
import time
from typing import Any, Callable, Dict, List

from ezpz.agent.common.errors import AgentError
from ezpz.agent.common.processes import end_group

PROGRESS = re.compile(rb"(\d+)\s+\d+%\s")  # --info=progress2 with --no-human-readable
STATS = {
    "sent_files": re.compile(rb"Number of regular files transferred: (\d+)"),
    "sent_bytes": re.compile(rb"Total transferred file size: (\d+)"),
}
STDERR_KEPT = 4096  # bytes
EVENT_EVERY = 0.25  # seconds


def run_rsync(
    argv: List[str], timeout: float, going_on: Callable[[], None], progress: Callable[[int], None]
) -> Dict[str, Any]:
    """Run rsync to its end: returncode, stderr (its last lines), sent_files, sent_bytes, seconds.

    `timeout` is in seconds, 0 for none; `going_on` may raise to stop it; `progress` takes the bytes so far.
    Raises Refusal ("timed-out", "tool-missing").
    """
    started = time.monotonic()
    environment = dict(os.environ, LC_ALL="C")
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as e:
        raise AgentError("tool-missing", "'{}' cannot be started: {}".format(argv[0], e.strerror))
    try:
        out, err = _follow(process, started + timeout if timeout else None, going_on, progress)
        code = process.wait()
    except TimeoutError:
        raise AgentError(
            "timed-out",
            "the copy did not end within {:g} s".format(timeout),
            "is the node or its source slow? raise --timeout, or look at the node",
        )
    finally:
        end_group(process)
    result = {
        "returncode": code,
        "stderr": err.decode("utf-8", "replace").strip(),
        "seconds": time.monotonic() - started,
    }
    for name, pattern in STATS.items():
        match = pattern.search(out)
        result[name] = int(match.group(1)) if match else 0
    return result


def _follow(
    process: "subprocess.Popen[bytes]", deadline: Any, going_on: Callable[[], None], progress: Callable[[int], None]
) -> Any:
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    open_ends = list(kept)
    told = 0.0
    while open_ends:
        going_on()
        now = time.monotonic()
        if deadline is not None and now > deadline:
            raise TimeoutError
        for fd in select.select(open_ends, [], [], 0.2)[0]:
            data = os.read(fd, 65536)
            if not data:
                open_ends.remove(fd)
            kept[fd] = (kept[fd] + data)[-STDERR_KEPT:]
        found = PROGRESS.findall(kept[process.stdout.fileno()])
        if found and now - told > EVENT_EVERY:
            told = now
            progress(int(found[-1]))
    return kept[process.stdout.fileno()], kept[process.stderr.fileno()]


def knows_zstd() -> bool:
    """Whether the rsync of this host can compress with zstd; its --version lists what it knows since 3.2."""
    try:
        said = subprocess.run(
            ["rsync", "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return b"zstd" in said.stdout
