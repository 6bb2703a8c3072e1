"""The smallest agent, in a process of every Python that is here: it answers, refuses, and goes when its line ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.query_server import READY
from ezpz.remote.bootstrap import BOOTSTRAP, bundle
from tests.contract.doors import SYSTEM, VERSIONS, interpreter
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = "20261120-164754-252269f7"


class Attendant:
    def __init__(self, python: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([python, "-IS", "-c", BOOTSTRAP], stdin=pipe, stdout=pipe, stderr=pipe)
        self.write(bundle("query_server"))
        assert self.read()["ready"] == READY

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, number: int, **request: Any) -> None:
        self.write(json.dumps(dict(request, id=number, attached=0)).encode() + b"\n")

    def end(self) -> int:
        """End it if it has not ended, and return its exit status."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return self.process.wait()

    def read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline().strip() or self.process.stdout.readline())


@pytest.fixture(params=(SYSTEM, *VERSIONS))
def attendant(request: pytest.FixtureRequest) -> Iterator[Attendant]:
    started = Attendant(interpreter(request.param))
    yield started
    started.end()


def survey(attendant: Attendant, path: Path) -> Any:
    attendant.send(7, op="inventory", wanted=[str(path)], places=[], contents=True)
    answer = attendant.read()
    assert answer["id"] == 7
    return answer["result"]["found"][0]


def test_it_judges_and_clears(attendant: Attendant, tmp_path: Path) -> None:
    assert survey(attendant, tmp_path / "dst")["state"] == "absent"
    (tmp_path / "dst").mkdir()
    assert survey(attendant, tmp_path / "dst")["state"] == "foreign"
    staging = tmp_path / f".dst.ezpz-{RUN}"
    (staging / "gone" / "half").mkdir(parents=True)
    attendant.send(8, op="clear", dst=str(tmp_path / "dst"), run=RUN, version=None, staging=[RUN])
    assert attendant.read()["result"]["removed"] == [str(staging)]
    assert [path.name for path in tmp_path.iterdir()] == ["dst"]


def test_what_it_refuses_is_an_answer(attendant: Attendant) -> None:
    attendant.send(1, op="clear", dst="/tmp", run=RUN, version=None, staging=[])
    assert attendant.read()["error"]["code"] == "destination-refused"
    attendant.send(2, op="inventory")
    assert attendant.read()["error"]["code"] == "error"
    attendant.send(3, op="heartbeat")
    assert attendant.read() == {"id": 3, "result": {}}


def test_it_goes_when_its_line_ends(attendant: Attendant) -> None:
    assert attendant.process.stdin is not None
    attendant.process.stdin.close()
    assert attendant.process.wait(timeout=DEADLINE) == 0


def test_it_gives_up_what_it_reads_when_its_line_ends(tmp_path: Path) -> None:
    for number in range(2_000):
        (tmp_path / f"file-{number}").touch()
    attendant = Attendant(interpreter(SYSTEM))
    attendant.send(1, op="inventory", wanted=[str(tmp_path / "dst")] * 5000, places=[])  # for a minute
    attendant.send(2, op="heartbeat")
    assert attendant.read() == {"id": 2, "result": {}}
    assert attendant.process.stdin is not None
    attendant.process.stdin.close()
    assert attendant.process.wait(timeout=DEADLINE) == 0
    attendant.end()


def test_heartbeats_are_answered_meanwhile_and_a_signal_ends_it(tmp_path: Path) -> None:
    for number in range(2_000):
        (tmp_path / f"file-{number}").touch()
    attendant = Attendant(interpreter(SYSTEM))
    attendant.send(1, op="inventory", wanted=[str(tmp_path / "dst")] * 1000, places=[])
    attendant.send(2, op="heartbeat")
    assert attendant.read() == {"id": 2, "result": {}}
    os.kill(attendant.process.pid, signal.SIGTERM)
    assert attendant.process.wait(timeout=DEADLINE) == -signal.SIGTERM
    attendant.end()
