"""`ezpz launch` with the options about watching and bad nodes, for real, on this host."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.support import clean_environ, ezpz
from tests.waiting import DEADLINE, read_until

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


def piped(line: str) -> subprocess.CompletedProcess[str]:
    """A line for bash, whose exit status is that of `ezpz launch --idle-timeout 60`, called `L` in it."""
    ours = f'L() {{ {sys.executable} -m ezpz launch {" ".join(HERE)} --idle-timeout 60 -- "$@"; }}\n'
    argv = ["bash", "-c", f"set -o pipefail\n{ours}{line}"]
    return subprocess.run(argv, env=clean_environ(), capture_output=True, text=True, timeout=DEADLINE)


def test_nobody_reads_the_output_any_more() -> None:
    done = piped("L yes | head -n 2")
    assert (done.returncode, done.stdout, done.stderr) == (141, "y\ny\n", "")


def test_the_disk_of_the_output_is_full() -> None:
    done = piped("L yes > /dev/full")
    assert done.returncode == 1
    assert "what COMMAND says cannot be written to descriptor 1: No space left on device" in done.stderr


def test_a_reader_that_is_slower_than_the_command_gets_all_of_it() -> None:
    done = piped("L head -c 30000000 /dev/zero | (sleep 1; cat) | wc -c")
    assert (done.stdout.strip(), done.returncode) == ("30000000", 0)


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
    code = "import os; os.environ['RANK'] == '1' and (lambda: 1 / 0)(); import time; time.sleep(600)"
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
        (("--nhosts", "3:2"), "'3:2': 3 > 2"),
        (("--nhosts", "1", "--spares", "1"), "exclude each other"),
        (("--filter", "("), "'(' is no regular expression"),
        (("--filter", r"\u2588"), r"'\\u2588' is no regular expression: bad escape \u"),
        (("--filter", "(?u)x"), "'(?u)x' is no regular expression"),
        (("--progress-regex", "x{99999999999}"), "is no regular expression"),
        (("--idle-timeout", "0"), "0.0 is not in the range"),
        (("--idle-timeout", "nan"), "'nan' is no number of seconds"),
        (("--idle-timeout", "inf"), "inf is not in the range"),
        (("--grace", "-1"), "-1.0 is not in the range"),
        (("--grace", "1e30"), "1e+30 is not in the range"),
        (("--check-timeout", "inf"), "inf is not in the range"),
        (("--check-path", ""), "a path is empty"),
        (("--check-room", "-1"), "-1 is not in the range"),
        (("--max-restarts", "many"), "'many' is not a valid integer"),
        (("--log-dir", ""), "--log-dir: '' cannot be written: No such file or directory"),
        (("--log-dir", "/dev/null/logs"), "--log-dir: '/dev/null/logs' cannot be written: Not a directory"),
    ],
)
def test_a_bad_line_is_a_usage_error(line: tuple[str, ...], named: str) -> None:
    done = launch(*line, "true")
    assert done.returncode == 2
    assert named in done.stderr


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A launcher that starts the command here, once, or fails before that if it is told to."""
    path = tmp_path / "bin" / "mpiexec"
    path.parent.mkdir()
    path.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo HYDRA; exit; }\n[ "$FAIL" ] && { echo "bad option" >&2; exit 9; }\n'
        'while [ "$1" != sh ]; do shift; done\nexport PMI_RANK=0\nexec "$@"\n'
    )
    path.chmod(0o755)
    return path


def through(stub: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    line = ("launch", "--hosts", "n[1-4]", "--hsn", "off", *args)
    return ezpz(*line, variables={"PATH": f"{stub.parent}:{os.environ['PATH']}", **variables})


def test_a_plan_has_the_first_nodes_only_and_the_others_are_spares(stub: Path) -> None:
    plan = json.loads(through(stub, "--spares", "1", "--dry-run", "--json", "true").stdout)
    assert (plan["nodes"], plan["spares"]) == (["n1", "n2", "n3"], ["n4"])


WATCHED = [(), ("--idle-timeout", "60"), ("--filter", "x"), ("--log-dir", "logs"), ("--pty",)]


@pytest.mark.parametrize("options", WATCHED, ids=str)
def test_whoever_is_watched_is_told_apart_from_its_launcher_too(
    stub: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    options = tuple(str(tmp_path / word) if word == "logs" else word for word in options)
    done = through(stub, *options, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, "\x1e" in done.stdout + done.stderr) == (7, False)
    assert "out\n" in done.stdout
    assert "err\n" in done.stdout + done.stderr
    done = through(stub, *options, "no-such-command-here")
    assert done.returncode == 51
    assert "'no-such-command-here' is not on" in done.stderr
    done = through(stub, *options, "true", FAIL="1")
    assert done.returncode == 52
    assert "mpiexec failed with status 9 before any rank ran: bad option" in done.stderr
    assert not any("\x1e" in path.read_text() for path in tmp_path.glob("logs/*"))


def test_whose_output_goes_into_files_is_told_by_its_status_alone(stub: Path, tmp_path: Path) -> None:
    """What ranks report when they start is in these files, so nothing can be said of the launcher."""
    stub.write_text(stub.read_text().replace("while", "exec 2> $0.err\nwhile", 1))
    done = through(stub, "-errfile-pattern", "x", "--", "sh", "-c", "echo err >&2; exit 7")
    assert (done.returncode, done.stderr) == (7, "")
    assert stub.with_name("mpiexec.err").read_text() == "err\n"


def test_a_command_that_no_node_has_is_not_started_again(stub: Path) -> None:
    done = through(stub, "--nhosts", "1", "--max-restarts", "3", "no-such-command-here")
    assert done.returncode == 51
    assert "is not on" in done.stderr


def test_an_environment_that_is_not_there_is_told_when_watched(tmp_path: Path) -> None:
    done = launch("--idle-timeout", "60", "--env", str(tmp_path / "no"), "python3", "-V")
    assert done.returncode == 51
    assert f"there is no environment at {tmp_path / 'no'}" in done.stderr


def test_the_sites_noise_is_left_out_and_kept_in_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "ezpz" / "sites"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text("noise = ['^chatter']\n")
    line, config = ("--site", "mine", "sh", "-c", "echo chatter; echo hello"), str(tmp_path)
    assert launch(*line, XDG_CONFIG_HOME=config).stdout == "hello\n"
    assert launch("--no-filter", *line, XDG_CONFIG_HOME=config).stdout == "chatter\nhello\n"
    assert launch("--log-dir", str(tmp_path / "logs"), *line, XDG_CONFIG_HOME=config).stdout == "hello\n"
    assert "0: chatter\n" in (tmp_path / "logs" / "attempt-1.log").read_text()


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
        said = read_until(ours, lambda said: until in said)
        process.wait(DEADLINE)
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
