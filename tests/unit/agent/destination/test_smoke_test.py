"""The trial of a staged environment: what it finds wrong, and that it leaves no trace; by every door to an agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.common import filesystem
from ezpz.agent.common.cancel import NEVER, Cancelled, ProgressToken
from ezpz.agent.common.errors import AgentError
from ezpz.agent.common.messages.parts import SmokeTest
from ezpz.agent.common.messages.requests import InterpreterRequest
from ezpz.agent.destination import smoke_test
from tests.contract.doors import SYSTEM, Piped, Refused, interpreter
from tests.contract.support import photograph
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

DESTINATION = b"/tmp/smoke/env"
RUN = "20240101-000000-deadbeef"
GOOD = {"version": "3.11.7 (main)", "prefix": "TREE", "base_prefix": "/usr", "failed": {}}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A staged environment, where `python` of a test writes what its python says."""
    tree = tmp_path / "staging" / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    return tree


def python(tree: Path, script: str) -> None:
    path = tree / "bin" / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def saying(tree: Path, **facts: Any) -> None:
    """Let it say that all is well, but for these facts; TREE stands for its folder."""
    text = json.dumps({**GOOD, **facts}).replace("TREE", str(tree))
    python(tree, f"echo before\ncat <<'.'\nezpz:{text}\n.")


def trial(tree: Path, **expected: Any) -> None:
    smoke_test.run_smoke_test(os.fsencode(tree), (DESTINATION,), SmokeTest(**expected), NEVER)


def refusal(tree: Path, **expected: Any) -> str:
    with pytest.raises(AgentError) as caught:
        trial(tree, **expected)
    assert caught.value.code == "smoke-failed"
    assert "the version in place was kept" in caught.value.hint
    return caught.value.message


def runs(pid: str) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class TestFindings:
    """What it says is compared with what it should say."""

    @pytest.mark.processes
    def test_all_is_well(self, tree: Path) -> None:
        saying(tree)
        trial(tree, version="3.11.7 (main)", base="/usr", imports=["ssl"])
        trial(tree)

    @pytest.mark.processes
    @pytest.mark.parametrize(
        ("facts", "expected", "why"),
        [
            ({"version": "3.11.2 (main)"}, {"version": "3.11.7 (main)"},
             "it is '3.11.2 (main)' instead of '3.11.7 (main)'"),
            ({"prefix": "/usr"}, {}, "its prefix is '/usr'"),
            ({"base_prefix": "/opt/py"}, {"base": "/usr"}, "its standard library is in '/opt/py'"),
            ({"base_prefix": "/usr"}, {"base": ".python"}, "its standard library is in '/usr'"),
            ({"failed": {"zlib": "b", "ssl": "no such file"}}, {}, "`import ssl` fails: no such file"),
        ],
    )  # fmt: skip
    def test_case_03_something_is_not(
        self, tree: Path, facts: dict[str, Any], expected: dict[str, Any], why: str
    ) -> None:
        saying(tree, **facts)
        assert refusal(tree, **expected) == f"the environment does not work there: 'bin/python3': {why}"

    @pytest.mark.processes
    @pytest.mark.parametrize(
        ("script", "why"),
        [
            ("echo 'error while loading shared libraries: libx.so' >&2; exit 127",
             "does not work: exit status 127: error while loading shared libraries: libx.so"),
            ("kill -SEGV $$", "does not work: ended by SIGSEGV"),
            ("echo no answer", "does not answer"),
        ],
    )  # fmt: skip
    def test_it_does_not_run(self, tree: Path, script: str, why: str) -> None:
        python(tree, script)
        assert refusal(tree) == f"'{tree}/bin/python3' {why}"

    @pytest.mark.parametrize(
        "links", [{"python3": "/nowhere/python3"}, {"python": "/nowhere/python3", "python3": "python"}]
    )
    def test_there_is_none(self, tree: Path, links: dict[str, str]) -> None:
        for name, target in links.items():
            (tree / "bin" / name).symlink_to(target)
        said = "the environment does not work there: 'bin/python3': it leads to '/nowhere/python3', which is not there"
        with pytest.raises(AgentError) as caught:
            trial(tree)
        assert (caught.value.code, caught.value.message) == ("smoke-failed", said)
        assert "--base embed" in caught.value.hint

    @pytest.mark.processes
    def test_one_that_hangs_is_ended_with_all_that_it_started(
        self, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(smoke_test, "TIMEOUT", 0.5)
        python(tree, f"sleep 60 & echo $! > {tree.parent}/pid; sleep 60")
        assert "did not end within 0.5 s" in refusal(tree)
        pid = (tree.parent / "pid").read_text().strip()
        wait_until(lambda: not runs(pid), "the end of what it started")

    @pytest.mark.processes
    def test_it_is_given_up_when_nobody_waits_for_it(self, tree: Path) -> None:
        def gone() -> None:
            raise Cancelled

        python(tree, "sleep 60")
        with pytest.raises(Cancelled):
            smoke_test.run_smoke_test(os.fsencode(tree), (DESTINATION,), SmokeTest(), ProgressToken(NEVER, gone))


class TestTraces:
    """What was verified stays as it is, and the python is told nothing by this user."""

    @pytest.mark.processes
    def test_the_tree_is_as_before(self, tree: Path) -> None:
        (tree / "pyvenv.cfg").write_bytes(b"home = %b/.python/bin\n" % DESTINATION)
        (tree / ".python" / "bin").mkdir(parents=True)
        python(tree, f'ls -A {tree.parent} > {tree.parent.parent}/seen; cat "$(dirname $0)/../pyvenv.cfg" >&2; exit 1')
        before = photograph(tree)
        assert refusal(tree).endswith(f"exit status 1: home = {tree}/.python/bin")
        assert photograph(tree) == before
        assert (tree.parent.parent / "seen").read_text().split() == ["tree", "tree.trial"]
        assert os.listdir(tree.parent) == ["tree"]

    def test_only_what_python_believes_is_changed_for_it(self, tree: Path) -> None:
        """A prompt is what it is, and so is the folder of another environment."""
        lines = b"home = %b/bin\nprompt = %b/x\nexecutable = %b-2/bin/python\n" % ((DESTINATION,) * 3)
        (tree / "pyvenv.cfg").write_bytes(lines)
        with smoke_test.at_final_path(os.fsencode(tree), (DESTINATION,)) as root:
            said = Path(os.fsdecode(root), "pyvenv.cfg").read_bytes()
        assert said == lines.replace(b"home = " + DESTINATION, b"home = " + os.fsencode(tree))

    def test_one_that_names_no_destination_needs_no_stand_in(self, tree: Path) -> None:
        with smoke_test.at_final_path(os.fsencode(tree), (DESTINATION,)) as root:
            assert root == os.fsencode(tree)
        (tree / "pyvenv.cfg").unlink()
        with smoke_test.at_final_path(os.fsencode(tree), (DESTINATION,)) as root:
            assert root == os.fsencode(tree)

    @pytest.mark.processes
    def test_variables_of_this_user_are_not_its(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"):
            monkeypatch.setenv(name, "/somewhere")
        python(tree, "env | grep -E '^(PYTHON|LD_)' >&2; exit 1")
        assert refusal(tree).endswith("exit status 1")
        assert refusal(tree, environ={"LD_LIBRARY_PATH": "/x"}).endswith("exit status 1: LD_LIBRARY_PATH=/x")


class TestHasPython:
    """Whether this host has the very same interpreter."""

    def ask(self, executable: Path, prefix: Path, version: str) -> dict[str, Any]:
        request = {"executable": str(executable), "prefix": str(prefix), "version": version}
        return smoke_test.has_python(InterpreterRequest.from_json(request), NEVER).to_json()

    @pytest.mark.processes
    def test_case_07_the_same(self) -> None:
        assert self.ask(Path(sys.executable), Path(sys.base_prefix), sys.version) == {"same": True, "why": ""}

    @pytest.mark.processes
    def test_case_07_another_build(self) -> None:
        found = self.ask(Path(sys.executable), Path(sys.base_prefix), "3.11.7 (another)")
        assert found == {"same": False, "why": f"'{sys.executable}' is '{sys.version}'"}

    def test_case_07_none(self, tmp_path: Path) -> None:
        found = self.ask(tmp_path / "python3", tmp_path, sys.version)
        assert found == {"same": False, "why": f"'{tmp_path}/python3' is not there"}
        found = self.ask(Path(sys.executable), tmp_path / "prefix", sys.version)
        assert found == {"same": False, "why": f"'{tmp_path}/prefix' is not there"}

    @pytest.mark.processes
    def test_case_07_one_that_does_not_start(self, tree: Path) -> None:
        python(tree, "exit 1")
        found = self.ask(tree / "bin" / "python3", tree, sys.version)
        assert found == {"same": False, "why": f"'{tree}/bin/python3' does not work: exit status 1"}

    def test_case_06_one_on_a_shared_filesystem_is_decided_by_that(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "link").symlink_to(sys.executable)
        real = os.path.realpath(sys.executable)
        monkeypatch.setattr(filesystem, "filesystem", lambda path: "lustre" if path == os.fsencode(real) else "ext4")
        found = self.ask(tmp_path / "link", Path(sys.base_prefix), sys.version)
        assert found == {"same": False, "why": f"'{tmp_path}/link' is on lustre"}


@pytest.fixture(params=["3.6", SYSTEM])
def agent(request: pytest.FixtureRequest) -> Iterator[Piped]:
    """The agent in a process of the oldest Python it has to run on, and in one of the system's."""
    door = Piped(interpreter(request.param))
    yield door
    door.close()


@pytest.mark.processes
class TestAgent:
    """It does the same on a node, by whatever Python is there."""

    @pytest.fixture
    def staged(self, agent: Piped, tmp_path: Path) -> Path:
        """A real venv that was staged, and says so in `pyvenv.cfg` of its destination."""
        dst = tmp_path / "node" / "env"
        dst.parent.mkdir()
        found = agent.prepare(
            dst=str(dst),
            run=RUN,
            avoid=None,
            source="/s",
            bytes=0,
            allocated=0,
            files=0,
            executable=True,
            replace=False,
        )
        tree = Path(found["staging"])
        subprocess.run([interpreter("3.11"), "-m", "venv", "--without-pip", str(tmp_path / "made")], check=True)
        for entry in (tmp_path / "made").iterdir():
            entry.rename(tree / entry.name)
        base = Path(os.path.realpath(interpreter("3.11"))).parents[1]
        (tree / ".python").symlink_to(base)
        (tree / "pyvenv.cfg").write_text(f"home = {dst}/.python/bin\n")
        return tree

    def publish(self, agent: Piped, trial: dict[str, Any]) -> dict[str, Any]:
        return agent.ask("publish", expected={}, receipt={"source": "/s"}, executable=True, trial=trial)

    def test_what_works_is_published(self, agent: Piped, staged: Path, tmp_path: Path) -> None:
        said = [interpreter("3.11"), "-c", "import sys; print(sys.version, end='')"]
        version = subprocess.check_output(said, text=True)
        expected = {
            "version": version,
            "base": ".python",
            "imports": ["ssl", "sqlite3", "ctypes", "zlib"],
            "environ": {},
        }
        self.publish(agent, expected)
        assert (tmp_path / "node" / "env" / "pyvenv.cfg").exists()

    def test_what_does_not_is_not(self, agent: Piped, staged: Path, tmp_path: Path) -> None:
        with pytest.raises(Refused) as caught:
            self.publish(agent, {"version": "3.11.0", "base": ".python", "imports": [], "environ": {}})
        assert caught.value.code == "smoke-failed"
        assert "instead of '3.11.0'" in caught.value.message
        with pytest.raises(Refused, match="`import no_such_module` fails"):
            self.publish(agent, {"imports": ["no_such_module"]})
        assert not (tmp_path / "node" / "env").exists()
        agent.close()
        assert os.listdir(tmp_path / "node") == []

    def test_case_07_it_is_asked_for_its_own(self, agent: Piped) -> None:
        facts = {"executable": sys.executable, "prefix": sys.base_prefix, "version": sys.version}
        assert agent.ask("interpreter", **facts) == {"same": True, "why": ""}
        assert agent.ask("interpreter", **{**facts, "version": "2"})["why"] == f"'{sys.executable}' is '{sys.version}'"
