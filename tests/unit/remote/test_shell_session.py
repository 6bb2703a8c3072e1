"""What a node without python runs: the same under every login shell, and it leaves no staging behind."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common.layout import FAILED_NODES
from ezpz.agent.common.messages.requests import NoteRequest
from ezpz.cluster.allocation import Node
from ezpz.remote.shell_session import LOOP, ShellSession
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

SHELLS = ("sh", "bash", "zsh", "fish", "csh", "tcsh")


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here")
    return str(request.param)


def staged(folder: Path) -> str:
    """Lines that make a staging directory with a read-only folder in it."""
    path = shlex.quote(str(folder / "the staging"))
    return f"mkdir -p {path}/ro; touch {path}/ro/file; chmod 500 {path}/ro; staging={path}\n"


def test_each_line_is_run_and_its_status_told(shell: str) -> None:
    lines = "echo 'one  word' \"$HOME\"; false\nname=' a  b'\necho \"$name\"\n"
    environ = {**os.environ, "HOME": "/h"}
    done = subprocess.run([shell, "-c", LOOP], input=lines, capture_output=True, text=True, env=environ, check=False)
    told = ["one  word /h", "EZPZ-SHELL 1", "EZPZ-SHELL 0", " a  b", "EZPZ-SHELL 0"]
    assert (done.stdout.splitlines(), done.stderr) == (told, "")


def test_staging_goes_when_the_line_ends(shell: str, tmp_path: Path) -> None:
    subprocess.run([shell, "-c", LOOP], input=staged(tmp_path), text=True, check=True, stdout=subprocess.DEVNULL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_staging_goes_when_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(["sh", "-c", LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(staged(tmp_path))
        running.stdin.flush()
        assert running.stdout.readline() == "EZPZ-SHELL 0\n"
        running.send_signal(number)
        running.wait(DEADLINE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync here")
def test_the_list_of_failed_nodes_replaces_a_link_and_does_not_follow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, victim, programs = tmp_path / "it's torch", tmp_path / "victim", tmp_path / "bin"
    place.mkdir()
    programs.mkdir()
    victim.write_text("thesis")
    listed = place / os.fsdecode(FAILED_NODES)
    listed.symlink_to(victim)
    (programs / "ssh").write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    async def note() -> dict[str, object]:
        session = await ShellSession.open(Node("n1", "n1", "n1", is_local=False))
        session.dst = str(place)
        try:
            return (await session.ask(NoteRequest(names=["n3", "n4"]), timeout=30)).to_json()
        finally:
            await session.close()

    assert asyncio.run(note()) == {"path": str(listed)}
    assert (listed.read_text(), victim.read_text()) == ("n3\nn4\n", "thesis")
    assert os.listdir(place) == [listed.name]
