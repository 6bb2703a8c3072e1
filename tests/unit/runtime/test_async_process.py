"""A process with a line to it: it hears, answers, and ends with all it started."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from typing import TYPE_CHECKING, TypeVar

import pytest

from ezpz.errors import ToolMissing
from ezpz.runtime.async_process import AsyncProcess, run_in_thread
from ezpz.runtime.process import STDERR_LINES
from tests.unit.processes import Tree, end, nothing_leaks
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

pytestmark = pytest.mark.processes

T = TypeVar("T")

leaktight = pytest.fixture(autouse=True)(nothing_leaks)


class TestAsyncProcess:
    """A process with a line to it."""

    @staticmethod
    def with_child(
        argv: list[str], act: Callable[[AsyncProcess], Coroutine[None, None, T]], *, grace: float = 1.0
    ) -> T:
        """Start a child, do something with it, end it."""

        async def session() -> T:
            child = await AsyncProcess.start(argv)
            try:
                return await act(child)
            finally:
                await child.end(grace)

        return asyncio.run(asyncio.wait_for(session(), DEADLINE))

    def test_lines_go_there_and_back(self) -> None:
        async def act(child: AsyncProcess) -> tuple[bytes, bytes, int]:
            child.writer.write(b"one\n")
            first = await child.reader.readline()
            child.writer.write(b"two\n")
            second = await child.reader.readline()
            return first, second, await child.end()

        assert self.with_child(["cat"], act) == (b"one\n", b"two\n", 0)

    def test_a_long_line_and_much_of_it(self) -> None:
        line = b"x" * (2 << 20) + b"\n"

        async def act(child: AsyncProcess) -> int:
            total = 0
            for _ in range(3):
                child.writer.write(line)
                total += len(await child.reader.readline())
            return total

        assert self.with_child(["cat"], act) == 3 * len(line)

    def test_its_status_and_the_end_of_its_stderr(self) -> None:
        async def act(child: AsyncProcess) -> tuple[bytes, int, str]:
            said = await child.reader.read()
            return said, await child.wait(), child.err

        script = "echo out; seq 1 100000 >&2; exit 7"
        said, status, err = self.with_child(["sh", "-c", script], act)
        assert (said, status) == (b"out\n", 7)
        assert err.splitlines() == [str(number) for number in range(100_001 - STDERR_LINES, 100_001)]

    def test_a_stderr_without_line_ends_does_not_block_it(self) -> None:
        async def act(child: AsyncProcess) -> int:
            await child.reader.read()
            return await child.wait()

        assert self.with_child(["sh", "-c", "head -c 40000000 /dev/zero >&2; exit 5"], act) == 5

    def test_a_tree_that_does_not_listen_is_ended(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)

        async def act(child: AsyncProcess) -> int:
            await child.reader.readline()
            return await child.end(0.2)

        assert self.with_child(tree.argv, act) == -signal.SIGTERM
        tree.assert_ended()

    def test_a_stubborn_tree_is_ended_too(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path, stubborn=True)

        async def act(child: AsyncProcess) -> int:
            await child.reader.readline()
            return await child.end(0.2)

        assert self.with_child(tree.argv, act) == -signal.SIGKILL
        tree.assert_ended()

    def test_one_that_ends_when_its_stdin_does_is_given_the_time(self, tmp_path: Path) -> None:
        async def act(child: AsyncProcess) -> int:
            return await child.end(DEADLINE)

        assert self.with_child(["sh", "-c", f"cat; sleep 0.2; touch '{tmp_path}/tidy'; exit 9"], act) == 9
        assert (tmp_path / "tidy").exists()

    @pytest.mark.parametrize("detached", [False, True], ids=["on its stderr", "detached"])
    def test_what_outlives_its_leader_is_ended(self, *, detached: bool, tmp_path: Path) -> None:
        tree = Tree(tmp_path, leader_stays=False, detached=detached)

        async def act(child: AsyncProcess) -> int:
            await child.reader.readline()
            return await child.wait()

        assert self.with_child(tree.argv, act, grace=1.5) == 0
        try:
            tree.assert_ended()
        finally:
            end(tree)

    def test_ending_it_twice_does_no_harm(self) -> None:
        async def act(child: AsyncProcess) -> tuple[int, int]:
            return await child.end(0.2), await child.end(0.2)

        assert self.with_child(["cat"], act) == (0, 0)

    def test_a_missing_tool(self) -> None:
        async def act(child: AsyncProcess) -> None:
            raise AssertionError("it was started")

        with pytest.raises(ToolMissing, match="no-such-tool"):
            self.with_child(["no-such-tool"], act)

    def test_many_at_once(self) -> None:
        async def one(number: int) -> bytes:
            child = await AsyncProcess.start(["cat"])
            child.writer.write(b"%d\n" % number)
            said = await child.reader.readline()
            assert await child.end() == 0
            return said

        async def all_of_them() -> list[bytes]:
            return await asyncio.gather(*map(one, range(40)))

        assert asyncio.run(all_of_them()) == [b"%d\n" % number for number in range(40)]

    def test_a_cancelled_wait_leaves_it_to_be_ended(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)

        async def act(child: AsyncProcess) -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(child.wait(), 0.3)

        self.with_child(tree.argv, act, grace=0.2)
        tree.assert_ended()


class TestInThread:
    """Something that blocks, and is cancelled."""

    def test_what_is_cancelled_gives_up_at_once_and_its_failure_is_not_reported(self) -> None:
        begun, given_up = threading.Event(), threading.Event()
        reported: list[dict[str, object]] = []

        def act() -> None:
            begun.set()
            assert given_up.wait(DEADLINE)
            raise OSError("it gave up")

        async def session() -> list[str]:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
            task = asyncio.ensure_future(run_in_thread(act, given_up.set))
            await asyncio.get_running_loop().run_in_executor(None, begun.wait)
            task.cancel()
            await asyncio.wait([task])
            return [thread.name for thread in threading.enumerate() if type(thread).__name__ == "_Work"]

        assert asyncio.run(session()) == []
        gc.collect()
        assert given_up.is_set()
        assert reported == []

    def test_what_does_not_give_up_in_time_fails_in_silence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ezpz.runtime.async_process.CANCEL_TIMEOUT", 0.0)
        begun, release = threading.Event(), threading.Event()
        reported: list[dict[str, object]] = []

        def act() -> None:
            begun.set()
            assert release.wait(DEADLINE)
            raise OSError("too late")

        async def session() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
            task = asyncio.ensure_future(run_in_thread(act))
            await asyncio.get_running_loop().run_in_executor(None, begun.wait)
            task.cancel()
            await asyncio.wait([task])
            release.set()
            while any(type(thread).__name__ == "_Work" for thread in threading.enumerate()):
                await asyncio.sleep(0)

        asyncio.run(session())
        gc.collect()
        assert reported == []
