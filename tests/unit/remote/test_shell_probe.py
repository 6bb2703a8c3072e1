"""What a shell sees at a destination without python, held against what an agent says of the same place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ezpz.agent.common import find_digest
from ezpz.agent.common.cancel import NEVER, ProgressToken
from ezpz.agent.common.layout import FAILED_NODES, MANIFEST, RECEIPT
from ezpz.agent.common.messages.parts import ExpectedTree
from ezpz.agent.common.messages.receipt import Receipt
from ezpz.agent.common.messages.requests import PrepareRequest
from ezpz.agent.destination.deployment import Deployment
from ezpz.remote.shell_probe import ANSWER_LINES, SEEN, parse_probe, probe_command

RUN = "20261129-043000-0123abcd"
SHELLS = [shell for shell in ("sh", "bash", "busybox", "ksh", "zsh") if shutil.which(shell)]


def published(place: Path) -> Path:
    """A version of ours at a place."""
    landing = Deployment(os.fsencode(place), RUN)
    landing.prepare(PrepareRequest(dst=str(place), run=RUN, bytes=0, allocated=0, files=0))
    tree = os.fsdecode(landing.tree)
    os.makedirs(f"{tree}/bin")
    for name, mode in (("data", 0o644), ("bin/run", 0o755), ('bin/it\'s a "name"\n', 0o600)):
        with open(f"{tree}/{name}", "w") as file:
            file.write(name)
        os.chmod(f"{tree}/{name}", mode)
    with open(os.fsencode(tree) + b"/\xff", "w"):
        pass
    os.symlink("data", f"{tree}/link")
    landing.write_manifest(b"")
    landing.publish(landing.verify(ExpectedTree()), Receipt(contents="c", source="/source"), executable=False)
    landing.close()
    return place


def seen(place: Path | str, shell: str = "sh") -> Receipt | None:
    """The receipt that a glance proves, as `Session` takes it."""
    applet = {"busybox": ["sh"], "zsh": ["--emulate", "sh"]}.get(shell, [])
    line = 'echo chatter; IFS= read -r first; eval "$first"; echo gone on'
    stdin = probe_command(str(place)) + b"\n\n"
    done = subprocess.run([shell, *applet, "-c", line], input=stdin, capture_output=True, check=True)
    lines = done.stdout.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith(SEEN))
    assert lines[first + ANSWER_LINES :] == [b"gone on\n"]
    return parse_probe(lines[first : first + ANSWER_LINES])


@pytest.mark.processes
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ["env", "an 'env'", '"$x" `y`', "-n", "\\n%s", "a*"])
def test_an_untouched_version_is_seen_by_every_shell(tmp_path: Path, shell: str, name: str) -> None:
    place = published(tmp_path / name)
    receipt = Receipt(**json.loads((place / RECEIPT.decode()).read_text()))
    assert len(receipt.listing) == 64
    assert seen(place, shell) == receipt


TOUCHED = {
    "gone": "rm -r env",
    "a file is gone": "rm env/data",
    "a file more": "touch env/bin/more",
    "another size": "echo more >>env/data; touch -r env/bin/run env/data",
    "another time": 'touch -d "$(stat -c %y env/data) 1 second ago" env/data',
    "another mode": "chmod 640 env/data",
    "set-user-id": "chmod u+s env/bin/run",
    "another mode of the top": "chmod 711 env",
    "another mode of a folder": "chmod 700 env/bin",
    "another link": "ln -sfn bin env/link",
    "a fifo": "mkfifo env/fifo",
    "no receipt": "rm env/$receipt",
    "a receipt for another place": 'sed -i "s:/env:/other:" env/$receipt',
    "a receipt that is a link": "mv env/$receipt r; ln -s ../r env/$receipt",
    "a receipt that is a fifo": "rm env/$receipt; mkfifo env/$receipt",
    "another manifest": "echo >env/$manifest",
    "a receipt that is cut short": "truncate -s 20 env/$receipt",
    "failed nodes": "echo n001 >env/$failed",
    "staging beside": "mkdir .env.ezpz-$run",
    "a link to it": "mv env moved; ln -s moved env",
    "a parent for everybody": "chmod 777 .",
}


@pytest.mark.processes
@pytest.mark.parametrize("what", TOUCHED)
def test_nothing_is_seen_where_something_was_touched(tmp_path: Path, what: str) -> None:
    place = published(tmp_path / "env")
    assert seen(place) is not None
    names = {"receipt": RECEIPT.decode(), "failed": FAILED_NODES.decode(), "manifest": MANIFEST.decode(), "run": RUN}
    subprocess.run(["sh", "-ec", TOUCHED[what]], cwd=tmp_path, env={**os.environ, **names}, check=True)
    assert seen(place) is None


@pytest.mark.processes
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
@pytest.mark.parametrize("whose", ["", RECEIPT.decode(), ".."])
def test_what_is_somebody_else_s_proves_nothing(tmp_path: Path, whose: str) -> None:
    place = published(tmp_path / "env")
    os.chown(place / whose, 12345, 12345)
    assert seen(place) is None


def test_a_name_that_no_line_can_hold_is_not_asked_for() -> None:
    assert probe_command("/tmp/a\nb") == probe_command("") == b""


@pytest.mark.processes
def test_what_is_not_there_has_no_listing(tmp_path: Path) -> None:
    assert find_digest.digest(os.fsencode(tmp_path / "gone"), NEVER) == ""


@pytest.mark.processes
def test_a_find_that_fails_lists_never_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As busybox's does, which knows no -printf."""
    tool = tmp_path / "bin" / "find"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    assert len({find_digest.digest(os.fsencode(tmp_path), NEVER) for _ in range(3)}) == 3


@pytest.mark.processes
def test_a_listing_that_nobody_waits_for_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Exception):
        pass

    def leave() -> None:
        raise Gone

    tool = tmp_path / "bin" / "timeout"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    turns = iter([None] * 5)
    with pytest.raises(Gone):
        find_digest.digest(os.fsencode(tmp_path), ProgressToken(NEVER, lambda: leave() if next(turns, 1) else None))
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text()
