"""The one place that starts processes: they end when they must, with all they started, and leave nothing here."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.errors import TimedOut, ToolMissing
from ezpz.runtime.process import STDERR_LINES, find, pipeline, run
from tests.unit.processes import Tree, end, nothing_leaks
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from pathlib import Path

BIG = bytes(range(256)) * (20 << 10)  # 5 MiB: many times what a pipe holds

leaktight = pytest.fixture(autouse=True)(nothing_leaks)


class TestRun:
    """One command to its end."""

    @pytest.mark.processes
    def test_what_it_says_and_how_it_ends(self) -> None:
        done = run(["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (done.argv[0], done.returncode, done.stdout, done.stderr) == ("sh", 3, b"out\n", b"err\n")
        assert (done.out, done.err) == ("out\n", "err")

    @pytest.mark.processes
    def test_a_signal_is_a_negative_status(self) -> None:
        assert run(["sh", "-c", "kill -9 $$"]).returncode == -signal.SIGKILL

    @pytest.mark.processes
    def test_arguments_and_output_that_are_not_utf8(self) -> None:
        done = run(["printf", "%s", b"caf\xff"])
        assert (done.stdout, done.out) == (b"caf\xff", "caf\N{REPLACEMENT CHARACTER}")

    @pytest.mark.processes
    def test_err_is_the_last_lines(self) -> None:
        done = run(["sh", "-c", "seq 1 1000 >&2"])
        assert done.err.splitlines() == [str(number) for number in range(1001 - STDERR_LINES, 1001)]
        assert done.stderr.startswith(b"1\n2\n")

    @pytest.mark.processes
    def test_what_is_fed_comes_back_however_much_it_is(self) -> None:
        assert run(["cat"], feed=BIG).stdout == BIG
        assert run(["cat"]).stdout == b""

    @pytest.mark.processes
    @pytest.mark.parametrize("cancel", [None, CancelToken()], ids=["", "to be cancelled"])
    def test_a_slow_reader_gets_all_of_it(self, cancel: CancelToken | None) -> None:
        """Not with `communicate(input, timeout)` again and again, which forgets its input."""
        assert run(["sh", "-c", "sleep 0.4; cat"], feed=BIG, timeout=DEADLINE, cancel=cancel).stdout == BIG

    @pytest.mark.processes
    def test_one_that_never_reads_is_no_error(self) -> None:
        assert run(["true"], feed=BIG).returncode == 0
        assert run(["sh", "-c", "head -c 3; exit 4"], feed=BIG).stdout == BIG[:3]

    @pytest.mark.processes
    def test_much_on_both_outputs_at_once(self) -> None:
        done = run(["sh", "-c", "head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait"], timeout=DEADLINE)
        assert (len(done.stdout), len(done.stderr)) == (3_000_000, 3_000_000)

    @pytest.mark.processes
    def test_the_environment_is_the_given_one(self) -> None:
        done = run(["/usr/bin/env"], env={"ONLY": "this", "PATH": os.environ["PATH"]})
        assert "ONLY=this" in done.out.splitlines()
        assert "HOME=" not in done.out

    @pytest.mark.processes
    def test_time_is_up(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)
        with pytest.raises(TimedOut, match=r"'sh' did not end within 0\.5 s"):
            run(tree.argv, feed=BIG, timeout=0.5)
        tree.assert_ended()

    @pytest.mark.processes
    def test_somebody_stops_it(self, tmp_path: Path) -> None:
        tree, cancel = Tree(tmp_path), CancelToken()
        watcher = tree.stopper(cancel)
        with pytest.raises(Cancelled):
            run(tree.argv, feed=BIG, cancel=cancel)
        watcher.join()
        tree.assert_ended()

    @pytest.mark.processes
    def test_a_stubborn_tree_is_ended_too(self, tmp_path: Path) -> None:
        tree, cancel = Tree(tmp_path, stubborn=True), CancelToken()
        watcher = tree.stopper(cancel)
        with pytest.raises(Cancelled):
            run(tree.argv, cancel=cancel)
        watcher.join()
        tree.assert_ended()

    @pytest.mark.processes
    def test_what_outlives_its_leader_is_ended_when_time_is_up(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path, leader_stays=False)
        with pytest.raises(TimedOut):
            run(tree.argv, timeout=0.5)
        try:
            tree.assert_ended()
        finally:
            end(tree)

    @pytest.mark.processes
    def test_what_outlives_its_leader_is_ended_when_it_is_stopped(self, tmp_path: Path) -> None:
        tree, cancel = Tree(tmp_path, leader_stays=False), CancelToken()
        watcher = tree.stopper(cancel)
        with pytest.raises(Cancelled):
            run(tree.argv, cancel=cancel)
        watcher.join()
        try:
            tree.assert_ended()
        finally:
            end(tree)

    @pytest.mark.processes
    @pytest.mark.parametrize("tool", ["no-such-tool", "/no/such/tool", "folder", "file"])
    def test_a_tool_that_is_missing_is_named(self, tool: str, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("#!/bin/sh\n")
        name = str(tmp_path / tool) if tool in ("folder", "file") else tool
        with pytest.raises(ToolMissing, match=f"'{name}'") as caught:
            run([name, "argument"], feed=BIG)
        assert caught.value.hint

    def test_find(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "tool").write_text("#!/bin/sh\n")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ToolMissing, match="'tool' is not on PATH"):
            find("tool")
        (tmp_path / "tool").chmod(0o755)
        assert find("tool") == str(tmp_path / "tool")


@pytest.mark.processes
class TestPipeline:
    """Two commands, one behind the other."""

    def test_what_the_first_says_the_second_hears(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        first, second = pipeline(
            ["sh", "-c", "cat; echo one >&2; exit 5"],
            ["sh", "-c", f"cat > '{target}'; echo two >&2; exit 6"],
            feed=BIG, cancel=CancelToken(),
        )  # fmt: skip
        assert target.read_bytes() == BIG
        assert (first.returncode, first.err, second.returncode, second.err) == (5, "one", 6, "two")

    def test_a_second_that_ends_early_ends_the_first(self) -> None:
        first, second = pipeline(["cat"], ["true"], feed=BIG, cancel=CancelToken())
        assert (first.returncode, second.returncode) == (-signal.SIGPIPE, 0)

    def test_a_first_that_fails_ends_the_second(self) -> None:
        first, second = pipeline(["false"], ["cat"], feed=b"", cancel=CancelToken())
        assert (first.returncode, second.returncode) == (1, 0)

    @pytest.mark.parametrize(
        "argv", [(["no-such-tool"], ["cat"]), (["cat"], ["no-such-tool"])], ids=["first", "second"]
    )
    def test_one_that_is_missing(self, argv: tuple[list[str], list[str]]) -> None:
        with pytest.raises(ToolMissing, match="no-such-tool"):
            pipeline(*argv, feed=BIG, cancel=CancelToken())

    def test_both_are_stopped(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        first, second, cancel = Tree(tmp_path / "one"), Tree(tmp_path / "two"), CancelToken()

        def interrupt() -> None:
            wait_until(lambda: first.begun and second.begun)
            cancel.cancel()

        watcher = threading.Thread(target=interrupt)
        watcher.start()
        with pytest.raises(Cancelled):
            pipeline(first.argv, second.argv, feed=BIG, cancel=cancel)
        watcher.join()
        first.assert_ended()
        second.assert_ended()
