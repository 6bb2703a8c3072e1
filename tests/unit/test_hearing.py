"""What a process writes is heard while it runs; and it never outlives whoever listens."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from ezpz.errors import TimedOut, ToolMissing
from ezpz.hearing import LAST, Hearing
from ezpz.process import Stopped
from tests.unit.processes import nothing_leaks
from tests.waiting import DEADLINE, act_when

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

leaktight = pytest.fixture(autouse=True)(nothing_leaks)
MANY = 5_000_000  # bytes; more than any pipe holds


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_all_of_it_in_order_and_how_it_ended() -> None:
    with Hearing(sh("echo one; echo bad >&2; echo two; exit 3")) as hearing:
        assert b"".join(hearing) == b"one\ntwo\n"
        assert hearing.done is not None
        assert (hearing.done.returncode, hearing.done.err, hearing.done.stdout) == (3, "bad", b"")


def test_it_comes_while_the_process_runs() -> None:
    with Hearing(sh("echo one; exec sleep 600")) as hearing:
        assert next(iter(hearing)) == b"one\n"
        assert hearing.done is None


def test_neither_pipe_holds_up_the_other_and_only_the_end_of_stderr_is_kept() -> None:
    flood = f"head -c {MANY} /dev/zero"
    with Hearing(sh(f"{flood} >&2; {flood}; {flood} >&2; echo end >&2"), timeout=DEADLINE) as hearing:
        assert sum(map(len, hearing)) == MANY
        assert hearing.done is not None
        assert hearing.done.stderr.endswith(b"\0end\n")
        assert len(hearing.done.stderr) <= LAST


@pytest.mark.parametrize("script", ["exec sleep 600", "sleep 600; echo", "sleep 600 & sleep 600"])
def test_it_stops(tmp_path: Path, script: str) -> None:
    stop, begun = threading.Event(), tmp_path / "begun"
    watcher = act_when(begun.exists, stop.set)
    with pytest.raises(Stopped), Hearing(sh(f"touch {begun}; {script}"), stop=stop) as hearing:
        list(hearing)
    watcher.join()


def test_time_is_up() -> None:
    with (
        pytest.raises(TimedOut, match=r"'sh' did not end within 0\.2 s"),
        Hearing(sh("sleep 600"), timeout=0.2) as hearing,
    ):
        list(hearing)


def test_time_is_up_for_one_that_never_pauses() -> None:
    with pytest.raises(TimedOut), Hearing(["cat", "/dev/zero"], timeout=0.3) as hearing:
        for _ in hearing:
            pass


def test_a_file_may_be_its_input(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("content")
    with (tmp_path / "in").open("rb") as file, Hearing(["cat"], stdin=file) as hearing:
        assert list(hearing) == [b"content"]


def test_nobody_is_asked_anything() -> None:
    with Hearing(["cat"]) as hearing:
        assert list(hearing) == []


def test_a_tool_that_is_missing() -> None:
    with pytest.raises(ToolMissing):
        Hearing(["no-such-tool-of-ezpz"])
