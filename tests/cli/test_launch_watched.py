"""`ezpz launch` with the options about watching and bad nodes, for real, on this host."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.support import clean_environ, ezpz

if TYPE_CHECKING:
    from pathlib import Path

HERE = ("--hosts", socket.gethostname())


def launch(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return ezpz("launch", *HERE, *args, variables=variables)


def test_silence_ends_it_with_124() -> None:
    done = launch("--idle-timeout", "1", "sh", "-c", "echo begun; exec sleep 60")
    assert (done.stdout, done.returncode) == ("begun\n", 124)
    assert done.stderr.splitlines()[-1] == "error: nothing was said for 1 s"


def test_silence_in_json() -> None:
    done = launch("--json", "--idle-timeout", "1", "sleep", "60")
    document = json.loads(done.stdout)
    assert (document["exit_code"], document["attempts"][0]["idle"]) == (done.returncode, True)


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_status_is_the_commands(script: str, status: int) -> None:
    assert launch("--idle-timeout", "30", "sh", "-c", script).returncode == status


def test_a_command_that_does_not_exist() -> None:
    assert launch("--idle-timeout", "30", "no-such-command-here").returncode == 51


def test_noise_is_not_shown_but_logged(tmp_path: Path) -> None:
    script = "echo noise $RANK; echo hello; echo noise >&2"
    logs = tmp_path / "logs"
    done = launch("-n", "2", "--filter", "^noise", "--log-dir", str(logs), "sh", "-c", script)
    assert (done.stdout, done.stderr, done.returncode) == ("hello\nhello\n", "", 0)
    assert sorted((logs / "attempt-1.log").read_text().splitlines()) == sorted(
        line for rank in "01" for line in (f"{rank}: noise {rank}", f"{rank}: hello", f"{rank}: noise")
    )
    assert "not shown, but in the log: 4 lines" in (logs / "summary.txt").read_text()
    assert launch("--filter", "^noise", "--no-filter", "echo", "noise").stdout == "noise\n"


def test_the_rank_that_failed_and_its_first_error(tmp_path: Path) -> None:
    code = "import os; os.environ['RANK'] == '1' and (lambda: 1 / 0)(); import time; time.sleep(30)"
    done = launch("-n", "3", "--log-dir", str(tmp_path), sys.executable, "-c", code)
    assert done.returncode == 1
    summary = (tmp_path / "summary.txt").read_text()
    assert "failed  1 (1 rank)" in summary
    assert "first error, rank 1:\n    Traceback (most recent call last):" in summary
    assert "    ZeroDivisionError: division by zero\n" in summary


def test_restarts_until_it_works(tmp_path: Path) -> None:
    script = f"echo step: 1; test -e {tmp_path}/again || {{ touch {tmp_path}/again; exit 3; }}"
    done = launch("--max-restarts", "2", "sh", "-c", script)
    assert (done.stdout, done.returncode) == ("step: 1\n" * 2, 0)
    assert done.stderr.splitlines()[-1] == "success after 2 attempts: the command succeeded"


def test_checks_on_this_host(tmp_path: Path) -> None:
    assert launch("--check", "true").returncode == 0
    done = launch("--check-path", str(tmp_path / "no"), "true")
    assert done.returncode == 60
    assert f"{tmp_path}/no does not exist" in done.stderr


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (("--nhosts", "0"), "'0' is neither a number of nodes nor MIN:MAX"),
        (("--nhosts", "3:2"), "'3:2' is neither"),
        (("--nhosts", "2"), "--nhosts 2 does not fit: the job has 1 nodes"),
        (("--spares", "1"), "--spares 1 does not fit"),
        (("--nhosts", "1", "--spares", "1"), "exclude each other"),
        (("--filter", "("), "'(' is no regular expression"),
        (("--idle-timeout", "0"), "0.0 is not in the range"),
    ],
)
def test_a_bad_line_is_a_usage_error(line: tuple[str, ...], named: str) -> None:
    done = launch(*line, "true")
    assert done.returncode == 2
    assert named in done.stderr


def test_a_plan_has_the_first_nodes_only() -> None:
    stub = ezpz("launch", "--hosts", "n[1-4]", "--hsn", "off", "--spares", "1", "--dry-run", "--json", "true")
    if stub.returncode != 50:
        assert json.loads(stub.stdout)["nodes"] == ["n1", "n2", "n3"]


def on_a_terminal(*args: str, until: bytes) -> tuple[bytes, int]:
    """What `ezpz launch` shows on a terminal of 100 columns, and its status."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    argv = [sys.executable, "-m", "ezpz", "launch", *HERE, *args]
    with subprocess.Popen(argv, env=clean_environ(), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        deadline = time.monotonic() + 30
        while until not in said and time.monotonic() < deadline:
            said += os.read(ours, 1024)
        process.wait(30)
        os.close(ours)
    return said, process.returncode


def test_a_terminal_where_asked() -> None:
    code = "import os, sys; print(sys.stdout.isatty(), os.get_terminal_size().columns, os.environ['FORCE_COLOR'])"
    assert on_a_terminal("--pty", sys.executable, "-c", code, until=b"\n") == (b"True 100 1\r\n", 0)
    code = "import sys; print(sys.stdout.isatty())"
    assert on_a_terminal("--idle-timeout", "50", sys.executable, "-c", code, until=b"\n") == (b"False\r\n", 0)


def test_partial_lines_come_at_once_and_as_they_are() -> None:
    argv = [sys.executable, "-m", "ezpz", "launch", *HERE, "--filter", "noise", "sh", "-c"]
    script = r"printf '10%%\r'; read x; printf '20%%\r'; read x; echo done"
    with subprocess.Popen([*argv, script], env=clean_environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        for expected in (b"10%\r", b"20%\r"):
            assert os.read(run.stdout.fileno(), 100) == expected
            run.stdin.write(b"go on\n")
            run.stdin.flush()
        assert run.stdout.read() == b"done\n"
    assert run.returncode == 0
