"""launch/watch.py with real processes: silence, signals, terminals, readers that are slow or gone."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest

from ezpz.errors import ToolMissing
from ezpz.launch.execute.monitor import IDLE_STATUS, MonitorRules, ProcessEnd, watch
from tests.unit.processes import alive, nothing_leaks
from tests.waiting import DEADLINE, act_when, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.processes

leaktight = pytest.fixture(autouse=True)(nothing_leaks)
PLAIN = MonitorRules(grace=DEADLINE)


class Everything:
    """An ear that shows all, and does something the first time it hears a word."""

    due = math.inf

    def __init__(self, word: bytes = b"", act: Callable[[], object] = lambda: None) -> None:
        self.word, self.act = word, act
        self.heard = b""
        self.is_doomed = False
        self.was_asked: int | None = None

    def hear(self, which: int, name: str, data: bytes, now: float) -> bytes:
        self.heard += data
        if self.word and self.word in self.heard:
            self.word = b""
            self.act()
        return data

    def settle(self, now: float) -> Sequence[tuple[str, bytes]]:
        return ()

    def doomed(self, now: float) -> bool:
        return self.is_doomed

    def asked(self) -> None:
        self.was_asked = len(self.heard)


def run(script: str, ear: Everything | None = None, rules: MonitorRules = PLAIN, *, copies: int = 1) -> ProcessEnd:
    environ = dict(os.environ)
    envs = [{**environ, "RANK": str(number)} for number in range(copies)]
    return watch(["sh", "-c", script], envs=envs, ear=ear or Everything(), rules=rules)


def me(number: int) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_status_is_the_commands(script: str, status: int) -> None:
    assert run(script) == ProcessEnd(status)


def test_streams_stay_apart_and_all_of_them_comes(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("seq 1 100000; echo oops >&2").status == 0
    out, err = capfd.readouterr()
    assert (out, err) == ("".join(f"{number}\n" for number in range(1, 100001)), "oops\n")


def test_the_first_copy_that_fails_ends_the_others() -> None:
    assert run("test $RANK = 1 && exit 9; sleep 600; exit 8", copies=3) == ProcessEnd(9)


def test_silence_ends_the_whole_tree(tmp_path: Path) -> None:
    ear = Everything()
    ended = run(f"echo begun; sleep 60 & echo $! > {tmp_path}/pid; wait", ear, MonitorRules(grace=DEADLINE, idle=2.0))
    assert ended == ProcessEnd(IDLE_STATUS, idle=True)
    assert ear.heard == b"begun\n"
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_one_that_is_deaf_to_sigterm_is_killed_after_the_grace() -> None:
    ended = run("trap '' TERM; sleep 600; sleep 600; exit 8", rules=MonitorRules(grace=0.3, idle=0.2))
    assert ended.status == IDLE_STATUS


def test_whoever_speaks_is_not_idle() -> None:
    ended = run("for i in 1 2 3 4 5 6 7 8; do printf .; sleep 0.5; done", rules=MonitorRules(grace=5, idle=3.0))
    assert ended == ProcessEnd(0)


def test_the_grace_is_time_for_a_checkpoint() -> None:
    script = "trap 'sleep 0.1; echo saved; exit 3' TERM; echo ready; sleep 60 & wait"
    ear = Everything(b"ready", me(signal.SIGTERM))
    assert run(script, ear) == ProcessEnd(3, signals=(signal.SIGTERM,))
    assert ear.heard.endswith(b"saved\n")
    assert ear.was_asked == len(b"ready\n")


def test_a_signal_reaches_every_copy() -> None:
    ear = Everything(b"ready\nready\n", me(signal.SIGUSR1))
    assert run("trap 'echo got; exit 4' USR1; echo ready; sleep 60 & wait", ear, copies=2).status == 4
    assert b"got" in ear.heard


def test_an_interrupted_run_is_no_success() -> None:
    ear = Everything(b"ready", me(signal.SIGINT))
    assert run("trap 'exit 0' INT; echo ready; sleep 60 & wait", ear).status == 130


def test_the_second_signal_has_no_grace() -> None:
    ear = Everything(b"ready", me(signal.SIGINT))
    second = act_when(lambda: ear.was_asked is not None, me(signal.SIGINT))
    assert run("trap '' INT TERM; echo ready; sleep 600; sleep 600", ear).status == 137
    second.join()


def test_one_that_is_doomed_is_ended() -> None:
    ear = Everything(b"ready", lambda: setattr(ear, "is_doomed", True))
    assert run("echo ready; exec sleep 60", ear).status == 143


def test_a_terminal_for_the_command() -> None:
    ear = Everything()
    code = "import os, sys; print(sys.stdout.isatty(), sys.stderr.isatty(), end='\\r\\n', flush=True); print('x')"
    ended = watch([sys.executable, "-c", code], envs=[dict(os.environ)], ear=ear, rules=MonitorRules(grace=5, pty=True))
    assert (ended.status, ear.heard) == (0, b"True True\r\nx\n")


def test_what_a_process_leaves_behind_does_not_hold_us_up(tmp_path: Path) -> None:
    assert run(f"sleep 600 & echo $! > {tmp_path}/pid").status == 0
    left = int((tmp_path / "pid").read_text())
    assert alive(left)
    os.kill(left, signal.SIGKILL)


def test_a_program_that_does_not_exist() -> None:
    with pytest.raises(ToolMissing):
        watch(["no-such-program"], envs=[{}], ear=Everything(), rules=PLAIN)
    with pytest.raises(ToolMissing):
        watch(["no-such-program"], envs=[{}], ear=Everything(), rules=MonitorRules(grace=1, pty=True))


CHILD = """
import os, sys
from ezpz.launch.execute.monitor import MonitorRules, watch
from tests.unit.launch.execute.test_monitor import Everything
rules = MonitorRules(grace=1, idle=1.5)
ended = watch(["sh", "-c", sys.argv[1]], envs=[dict(os.environ)], ear=Everything(), rules=rules)
sys.exit(ended.status)
"""


def child(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_slow_reader_gets_all_of_it_and_makes_nobody_idle() -> None:
    with child("head -c 3000000 /dev/zero; echo end >&2") as process:
        assert process.stdout is not None
        time.sleep(3)
        assert process.poll() is None
        assert len(process.stdout.read()) == 3_000_000
        assert process.wait(DEADLINE) == 0
        assert process.stderr is not None
        process.stderr.read()


def test_a_reader_that_does_not_read_does_not_keep_signals_out() -> None:
    with child("trap '' PIPE; head -c 3000000 /dev/zero; sleep 600") as process:
        assert process.stdout is not None
        unread, room = process.stdout.fileno(), fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ)
        wait_until(lambda: struct.unpack("i", fcntl.ioctl(unread, termios.FIONREAD, bytes(4)))[0] == room)

        def has_ended() -> bool:
            process.terminate()  # again and again: what is still on its way is let go, too
            return process.poll() is not None

        wait_until(has_ended)
        assert process.returncode != 0


def test_nobody_reads_any_more(tmp_path: Path) -> None:
    with child(f"echo $$ > {tmp_path}/pid; while echo x; do sleep 0.05; done; exec sleep 60") as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(DEADLINE) != 0
        assert process.stderr is not None
        assert b"BrokenPipeError" in process.stderr.read()
    assert not alive(int((tmp_path / "pid").read_text()))
