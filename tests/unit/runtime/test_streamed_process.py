"""What a process writes is heard while it runs; and it never outlives whoever listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.errors import TimedOut, ToolMissing
from ezpz.runtime.streamed_process import STDERR_LIMIT, FedProcess, StreamedProcess
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
    with StreamedProcess(sh("echo one; echo bad >&2; echo two; exit 3")) as hearing:
        assert b"".join(hearing) == b"one\ntwo\n"
        assert hearing.done is not None
        assert (hearing.done.returncode, hearing.done.err, hearing.done.stdout) == (3, "bad", b"")


def test_it_comes_while_the_process_runs() -> None:
    with StreamedProcess(sh("echo one; exec sleep 600")) as hearing:
        assert next(iter(hearing)) == b"one\n"
        assert hearing.done is None


def test_neither_pipe_holds_up_the_other_and_only_the_end_of_stderr_is_kept() -> None:
    flood = f"head -c {MANY} /dev/zero"
    with StreamedProcess(sh(f"{flood} >&2; {flood}; {flood} >&2; echo end >&2"), timeout=DEADLINE) as hearing:
        assert sum(map(len, hearing)) == MANY
        assert hearing.done is not None
        assert hearing.done.stderr.endswith(b"\0end\n")
        assert len(hearing.done.stderr) <= STDERR_LIMIT


@pytest.mark.parametrize("script", ["exec sleep 600", "sleep 600; echo", "sleep 600 & sleep 600"])
def test_it_stops(tmp_path: Path, script: str) -> None:
    cancel, begun = CancelToken(), tmp_path / "begun"
    watcher = act_when(begun.exists, cancel.cancel)
    with pytest.raises(Cancelled), StreamedProcess(sh(f"touch {begun}; {script}"), cancel=cancel) as hearing:
        list(hearing)
    watcher.join()


def test_time_is_up() -> None:
    with (
        pytest.raises(TimedOut, match=r"'sh' did not end within 0\.2 s"),
        StreamedProcess(sh("sleep 600"), timeout=0.2) as hearing,
    ):
        list(hearing)


def test_time_is_up_for_one_that_never_pauses() -> None:
    with pytest.raises(TimedOut), StreamedProcess(["cat", "/dev/zero"], timeout=0.3) as hearing:
        for _ in hearing:
            pass


def test_a_file_may_be_its_input(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("content")
    with (tmp_path / "in").open("rb") as file, StreamedProcess(["cat"], stdin=file) as hearing:
        assert list(hearing) == [b"content"]


def test_nobody_is_asked_anything() -> None:
    with StreamedProcess(["cat"]) as hearing:
        assert list(hearing) == []


def test_a_tool_that_is_missing() -> None:
    with pytest.raises(ToolMissing):
        StreamedProcess(["no-such-tool-of-ezpz"])


class TestFedProcess:
    """A command that is fed piece by piece."""

    def test_it_gets_all_of_it(self, tmp_path: Path) -> None:
        with FedProcess(sh(f"cat > '{tmp_path}/out'; echo $WORD >&2; exit 3"), env={"WORD": "bad"}) as fed:
            for _ in range(MANY >> 20):
                fed.write(bytes(1 << 20))
            done = fed.finish()
        assert (done.returncode, done.err) == (3, "bad")
        assert (tmp_path / "out").stat().st_size == MANY >> 20 << 20

    def test_one_that_ends_early(self) -> None:
        with FedProcess(sh("echo no >&2; exit 4")) as fed:
            with pytest.raises(BrokenPipeError):
                fed.write(bytes(MANY))
            done = fed.finish()
        assert (done.returncode, done.err) == (4, "no")

    def test_one_that_is_left_is_ended(self) -> None:
        with pytest.raises(KeyError), FedProcess(["sleep", "600"]):
            raise KeyError
