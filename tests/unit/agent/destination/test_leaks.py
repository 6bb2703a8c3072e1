"""The leak check on real environments: what leads away is found, for what it is, and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common.cancel import NEVER, ProgressToken
from ezpz.agent.common.errors import AgentError
from ezpz.agent.common.messages.requests import LeaksRequest
from ezpz.agent.common.run_python import python_of, run_python
from ezpz.agent.destination import leaks
from ezpz.cluster.allocation import Node
from ezpz.yeet.inventory.leaks import Leak, LeakReport
from ezpz.yeet.reporting.summary import describe_leaks
from tests.contract.doors import Piped, interpreter
from tests.paths import REPOSITORY
from tests.unit.processes import alive
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VENV_VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
AGENTS = ("3.6", "system")
BASE = os.path.realpath(sys.base_prefix)


@dataclass
class Environment:
    """A venv, and a folder beside it that stands for the shared filesystem."""

    root: Path
    shared: Path

    @property
    def site(self) -> Path:
        (found,) = self.root.glob("lib/python3*/site-packages")
        return found

    def leaks(self, *known: str | Path, **environ: str) -> list[dict[str, Any]]:
        """What is found, with `shared` or else `known` as the shared filesystem."""
        shared = [os.fspath(path) for path in known or (self.shared,)]
        found = leaks.find_leaks(LeaksRequest(dst=str(self.root), known=shared, environ=environ), NEVER)
        assert all(each.remedy and each.count for each in found.leaks)
        return [each.to_json() for each in found.leaks]

    def found(self, *known: str | Path, **environ: str) -> set[tuple[str, str, int]]:
        return {(leak["what"], leak["path"], leak["count"]) for leak in self.leaks(*known, **environ)}


def make(root: Path, *options: str, python: str = sys.executable) -> Environment:
    shared = root / "shared"
    shared.mkdir()
    subprocess.run([python, "-m", "venv", "--without-pip", *options, root / "env"], check=True)
    return Environment(root / "env", shared)


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in leaks.job_environ(os.environ):
        monkeypatch.delenv(name)
    return make(tmp_path)


@pytest.mark.processes
class TestWhole:
    """What is on this node's own disks is no leak."""

    @pytest.mark.parametrize("version", VENV_VERSIONS)
    def test_an_environment_whose_base_is_on_every_node(self, tmp_path: Path, version: str) -> None:
        assert make(tmp_path, python=interpreter(version)).leaks() == []

    def test_a_source_that_is_the_destination(self, env: Environment) -> None:
        assert env.leaks(env.root) == []

    def test_a_destination_by_another_name(self, env: Environment) -> None:
        alias = env.root.parent / "alias"
        alias.symlink_to(env.root)
        assert Environment(alias, env.shared).leaks(env.root) == []

    def test_what_the_agent_itself_was_started_with(self, env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "TRITON_CACHE_DIR"):
            monkeypatch.setenv(name, str(env.shared))
        assert env.leaks() == []

    def test_search_paths_that_name_nothing(self, env: Environment) -> None:
        assert env.leaks(PYTHONPATH=f":relative:{env.shared}/absent", LD_LIBRARY_PATH=f"{env.shared}/absent::") == []

    def test_the_python_of_bin_python_alone(self, env: Environment) -> None:
        (env.root / "bin" / "python3").unlink()
        assert env.leaks() == []


@pytest.mark.processes
class TestInterpreter:
    """A base interpreter on a shared filesystem is one leak, whatever is loaded from it."""

    @pytest.mark.parametrize("version", VENV_VERSIONS)
    def test_it_is_found_with_all_that_it_brings(self, tmp_path: Path, version: str) -> None:
        python = interpreter(version)
        base = Path(os.path.realpath(python)).parent.parent
        (leak,) = make(tmp_path, python=python).leaks(base)
        assert (leak["what"], leak["path"]) == ("interpreter", str(base))
        assert leak["count"] > 40
        assert "--base embed" in leak["remedy"]

    def test_it_is_found_by_another_name(self, env: Environment) -> None:
        alias = env.root.parent / "alias"
        alias.symlink_to(BASE)
        assert [leak["what"] for leak in env.leaks(alias)] == ["interpreter"]

    def test_a_binary_that_was_copied_still_uses_it(self, tmp_path: Path) -> None:
        assert [leak["what"] for leak in make(tmp_path, "--copies").leaks(BASE)] == ["interpreter"]

    def test_paths_in_its_configuration(self, env: Environment) -> None:
        (env.site / "sitecustomize.py").write_text(
            f"import sysconfig; sysconfig.get_config_vars()['BINDIR'] = {str(env.shared)!r}"
        )
        assert env.found() == {("sysconfig", str(env.shared), 1)}


@pytest.mark.processes
class TestModules:
    """What is imported from elsewhere."""

    def test_a_pth_file(self, env: Environment) -> None:
        (env.site / "project.pth").write_text(f"{env.shared}\n")
        assert env.found() == {("sys.path", str(env.shared), 1)}

    def test_a_finder_of_an_editable_install(self, env: Environment) -> None:
        package = env.shared / "src" / "package"
        package.mkdir(parents=True)
        (env.site / "__editable___demo_finder.py").write_text(f"MAPPING = {{'package': {str(package)!r}}}\n")
        (env.site / "__editable__.demo.pth").write_text("import __editable___demo_finder\n")
        (leak,) = env.leaks()
        assert (leak["what"], leak["path"], leak["count"]) == ("module", str(env.shared), 1)
        assert "--editable snapshot" in leak["remedy"]

    def test_a_package_that_is_a_link(self, env: Environment) -> None:
        (env.shared / "package").mkdir()
        (env.shared / "package" / "__init__.py").touch()
        (env.site / "package").symlink_to(env.shared / "package")
        (env.site / "load.pth").write_text("import package\n")
        assert env.found() == {("module", str(env.shared), 1)}

    def test_the_python_path_with_what_is_loaded_from_it(self, env: Environment) -> None:
        (env.shared / "sitecustomize.py").touch()
        assert env.found(PYTHONPATH=f"{env.root}:{env.shared}") == {("PYTHONPATH", str(env.shared), 2)}

    def test_the_user_site(self, tmp_path: Path) -> None:
        env = make(tmp_path, "--system-site-packages")
        variables = {"PYTHONUSERBASE": str(env.shared)}
        user = env.shared / env.site.relative_to(env.root)
        assert env.found(**variables) == set()
        user.mkdir(parents=True)
        (user / "usercustomize.py").touch()
        assert env.found(**variables) == {("user-site", str(user), 2)}
        assert env.found(**variables, PYTHONNOUSERSITE="1") == set()

    def test_a_name_that_is_not_utf_8(self, env: Environment) -> None:
        folder = env.shared / os.fsdecode(b"odd\xff")
        folder.mkdir()
        assert env.found(PYTHONPATH=str(folder)) == {("PYTHONPATH", str(folder), 1)}


@pytest.mark.processes
class TestLibraries:
    """What the dynamic linker finds elsewhere."""

    @pytest.fixture
    def library(self, env: Environment) -> Path:
        import sqlite3  # noqa: F401 - so that its library is mapped here

        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libsqlite3" in line}
        if not mapped:
            pytest.skip("the sqlite3 of this Python has no library of its own")
        return Path(shutil.copy(mapped.pop(), env.shared / "libsqlite3.so.0"))

    def test_the_library_path_with_what_is_loaded_from_it(self, env: Environment, library: Path) -> None:
        assert env.found(LD_LIBRARY_PATH=str(env.shared)) == {("LD_LIBRARY_PATH", str(env.shared), 2)}

    def test_a_library_by_its_full_path(self, env: Environment, library: Path) -> None:
        (env.site / "sitecustomize.py").write_text(f"import ctypes; ctypes.CDLL({str(library)!r})")
        assert env.found() == {("library", str(env.shared), 1)}


@pytest.mark.processes
class TestCaches:
    """Where packages keep what they compile."""

    def test_a_variable(self, env: Environment) -> None:
        cache = env.shared / "not" / "yet"
        (leak,) = env.leaks(TRITON_CACHE_DIR=str(cache))
        assert (leak["what"], leak["path"]) == ("cache", str(cache))
        assert f"source {env.root}/env.sh" in leak["remedy"]

    def test_a_default_counts_for_who_is_installed(self, env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(env.shared))
        assert env.found() == set()
        (env.site / "triton").mkdir()
        (env.site / "matplotlib.py").touch()
        caches = {("cache", f"{env.shared}/.triton/cache", 1), ("cache", f"{env.shared}/.cache/matplotlib", 1)}
        assert env.found() == caches
        local = str(env.root.parent / "local")
        assert env.found(TRITON_CACHE_DIR=local, XDG_CACHE_HOME=local) == set()


class TestFilesystems:
    """A type that is shared counts whatever is known."""

    @pytest.fixture
    def mounted(self, env: Environment) -> Iterator[Path]:
        if shutil.which("bindfs") is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
            pytest.skip("no bindfs, or no /dev/fuse")
        target = env.root.parent / "mounted"
        target.mkdir()
        subprocess.run(["bindfs", env.root.parent, target], check=True)
        try:
            yield target
        finally:
            subprocess.run(["fusermount", "-u", "-z", target], check=True)

    def test_what_is_on_it(self, env: Environment, mounted: Path) -> None:
        code = mounted / "shared"
        found = env.found("/nowhere", PYTHONPATH=str(code), MPLCONFIGDIR=f"{code}/config")
        assert found == {("PYTHONPATH", str(code), 1), ("cache", f"{code}/config", 1)}

    def test_a_destination_on_it(self, env: Environment, mounted: Path) -> None:
        (leak,) = Environment(mounted / "env", env.shared).leaks("/nowhere")
        assert (leak["what"], leak["path"]) == ("destination", f"{mounted}/env")
        assert "--dst" in leak["remedy"]


@pytest.mark.processes
class TestBroken:
    """A Python that cannot tell is a refusal, and nothing of it is left."""

    def refusal(self, env: Environment) -> AgentError:
        with pytest.raises(AgentError) as caught:
            env.leaks()
        return caught.value

    def script(self, env: Environment, text: str) -> None:
        for name in ("python", "python3"):
            path = env.root / "bin" / name
            path.unlink()
            path.write_text(text)
            path.chmod(0o755)

    def test_none_at_all(self, env: Environment) -> None:
        shutil.rmtree(env.root / "bin")
        refusal = self.refusal(env)
        assert refusal.code == "smoke-failed"
        assert str(env.root) in refusal.message

    def test_a_link_to_what_is_gone(self, env: Environment) -> None:
        for path in (env.root / "bin").iterdir():
            path.unlink()
        (env.root / "bin" / "python3").symlink_to("/gone/bin/python3")
        assert self.refusal(env).code == "smoke-failed"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("#!/bin/sh\necho no stdlib >&2\nexit 3\n", "exit status 3: no stdlib"),
            ("#!/bin/sh\nkill -SEGV $$\n", "SIGSEGV"),
            ("#!/gone\n", "No such file"),
            ("#!/bin/sh\nexit 0\n", "before it had answered"),
        ],
        ids=["it says why", "a signal", "no program", "no answer"],
    )
    def test_one_that_does_not_work(self, env: Environment, text: str, reason: str) -> None:
        self.script(env, text)
        refusal = self.refusal(env)
        assert refusal.code == "smoke-failed"
        assert reason in refusal.message

    def test_modules_that_fail_or_print_are_no_matter(self, env: Environment) -> None:
        (env.site / "numpy.py").write_text("print('hello' * 99999); raise SystemExit('no GPU')")
        assert env.leaks() == []

    def test_one_that_hangs(self, env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        pids = self.hang(env)
        monkeypatch.setattr(leaks, "TIMEOUT", 1.0)
        assert self.refusal(env).code == "timed-out"
        assert len(pids.read_text().split()) == 2
        wait_until(
            lambda: not any(alive(int(pid)) for pid in pids.read_text().split()), "the end of all that it started"
        )

    def test_one_that_nobody_waits_for_any_more(self, env: Environment) -> None:
        pids = self.hang(env)

        def leave() -> None:
            if pids.exists() and len(pids.read_text().split()) == 2:
                raise KeyboardInterrupt

        request = LeaksRequest(dst=str(env.root), known=[], environ={})
        with pytest.raises(KeyboardInterrupt):
            leaks.find_leaks(request, ProgressToken(NEVER, leave))
        wait_until(
            lambda: not any(alive(int(pid)) for pid in pids.read_text().split()), "the end of all that it started"
        )

    def test_what_it_leaves_running_is_ended(self, env: Environment) -> None:
        program = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
        pid = int(
            run_python(
                python_of(os.fsencode(env.root)),
                program,
                dict(os.environ),
                NEVER,
                20.0,
                cwd=os.fsencode(env.root),
            )
        )
        wait_until(lambda: not alive(pid), "the end of what it left")

    def hang(self, env: Environment) -> Path:
        """Make its Python hang at the start, with a child, and write both their numbers into a file."""
        pids = env.root.parent / "pids"
        (env.site / "sitecustomize.py").write_text(
            "import os, signal, subprocess\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            f"open({str(pids)!r}, 'w').write('%d %d' % (os.getpid(), subprocess.Popen(['sleep', '600']).pid))\n"
            "signal.pause()\n"
        )
        return pids


@pytest.mark.processes
@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_of_any_python_answers_and_gives_up_when_nobody_listens(env: Environment, name: str) -> None:
    agent = Piped(interpreter(name))
    request: dict[str, Any] = {"dst": str(env.root), "known": [str(env.shared)]}
    answer = agent.ask("leaks", **request, environ={"PYTHONPATH": str(env.shared)})
    assert [(leak["what"], leak["path"]) for leak in answer["leaks"]] == [("PYTHONPATH", str(env.shared))]
    assert answer["python"] == sys.version.split()[0]
    pids = TestBroken().hang(env)
    agent.send("leaks", **request, environ={})
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    assert agent.hang_up() == 0
    wait_until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()), "the end of all of it")
    agent.close()


def test_only_what_leads_a_python_somewhere_is_taken_from_a_job() -> None:
    job = {"PYTHONPATH": "/a", "LD_LIBRARY_PATH": "/b", "TRITON_CACHE_DIR": "/c", "HOME": "/h", "PATH": "/p", "X": "y"}
    assert set(leaks.job_environ(job)) == {"PYTHONPATH", "LD_LIBRARY_PATH", "TRITON_CACHE_DIR"}


PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5).map(
    lambda parts: b"/" + "/".join(parts).encode()
)


@given(st.dictionaries(PATHS, st.sets(st.binary(min_size=1), min_size=1), max_size=30))
def test_folders_are_few_and_lose_nothing(groups: Mapping[bytes, set[bytes]]) -> None:
    merged = leaks.group_by_directory(dict(groups))
    assert len(merged) <= leaks.MAX_DIRECTORIES
    assert set().union(*merged.values()) == set().union(*groups.values())
    for folder in groups:
        assert any(folder == top or folder.startswith(top.rstrip(b"/") + b"/") for top in merged)
    apart = sorted(merged)
    assert not any(second.startswith(first + b"/") for first, second in pairwise(apart))


def test_how_many_there_are_in_words() -> None:
    node = Node("n1", "n1", "n1")
    leak = Leak("module", "/lus/me", 3, "do something")
    report = LeakReport("/tmp/my env", node, "3.12.1", (leak, leak))
    words = describe_leaks(report.destination, len(report.leaks))
    assert "2 places on a shared filesystem" in words
    assert "`ezpz yeet status --leaks '/tmp/my env'`" in words
    assert (report.exit_code, LeakReport("/tmp/env", node, "3.12.1", ()).exit_code) == (1, 0)


def test_the_page_and_the_schema_have_every_kind() -> None:
    reference = REPOSITORY / "docs" / "reference"
    schema = json.loads((reference / "schemas" / "yeet-leaks.schema.json").read_text())
    kinds = schema["properties"]["leaks"]["items"]["properties"]["what"]["enum"]
    assert kinds == list(leaks.REMEDIES)
    text = (reference / "cli.md").read_text().partition("### Leaks")[2].partition("\n## ")[0]
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")] == kinds
