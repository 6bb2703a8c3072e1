"""The completions as users meet them: in a real bash, zsh and fish, with the files that lie in completions/."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.cli.support import clean_environ, make_package
from tests.waiting import DEADLINE, read_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

REPOSITORY = Path(__file__).parents[2]
COMPLETIONS = REPOSITORY / "completions"
ESCAPES = re.compile(r"\x1b(\[[0-9;?=>]*[A-Za-z]|[=>()][A-Z0-9]?)")

STRATEGIES = ("compress", "cp", "direct", "rsync", "tarball")
CASES = {
    "commands": ("ezpz ", ("launch", "yeet"), ("tar-env", "yeet-env")),
    "subcommands": ("ezpz yeet st", ("status", "stuff.tar.gz"), ("dataset",)),
    "subcommands and paths": ("ezpz yeet ", ("env", "tar", "status", "dataset", "stuff.tar.gz"), ()),
    "options": ("ezpz launch --ho", ("--hosts", "--hostfile"), ("--hsn",)),
    "options without env": ("ezpz yeet --str", ("--strategy",), ()),
    "strategies": ("ezpz yeet env --strategy ", STRATEGIES, ()),
    "strategies without env": ("ezpz yeet --strategy ", STRATEGIES, ()),
    "engines": ("ezpz yeet --engine ", ("rsync",), ()),
    "hosts": ("ezpz launch --hosts ", ("n001", "n002", "n010", "login1"), ()),
    "hosts by prefix": ("ezpz yeet --hosts n00", ("n001", "n002"), ("login1",)),
    "hosts after a comma": ("ezpz yeet env --hosts n001,n0", ("n001,n002", "n001,n010"), ("login1",)),
    "hosts of a hostfile": ("ezpz yeet status --hostfile others --hosts ", ("m1", "m2"), ("n001",)),
    "paths": ("ezpz yeet env da", ("dataset",), ("stuff",)),
    "a path after an option": ("ezpz yeet --dst s", ("stuff.tar.gz",), ("status",)),
}

Complete: TypeAlias = "Callable[[str, tuple[str, ...]], str]"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with things to complete, and `ezpz` in its bin/."""
    root = tmp_path_factory.mktemp("place")
    (root / "dataset").mkdir()
    (root / "stuff.tar.gz").touch()
    (root / "others").write_text("m1\nm2\n")
    (root / "nodefile").write_text("n001\nn001\nn002\nn010\nlogin1\n")
    (root / "home").mkdir()
    (root / "bin").mkdir()
    script = root / "bin" / "ezpz"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m ezpz "$@"\n')
    script.chmod(0o755)
    return root


@pytest.fixture(scope="module")
def environ(place: Path) -> dict[str, str]:
    """Inside a PBS job, in a plain shell."""
    return clean_environ(
        PATH=f"{place}/bin:{os.environ['PATH']}",
        PBS_NODEFILE=str(place / "nodefile"),
        PBS_JOBID="1.server",
        HOME=str(place / "home"),
        XDG_CONFIG_HOME=str(place / "home"),
        XDG_DATA_HOME=str(place / "home"),
        TERM="xterm",
        COLUMNS="200",
        INPUTRC="/dev/null",
    )


class Typed:
    """An interactive shell on a terminal, and fingers that press Tab."""

    def __init__(self, argv: list[str], setup: str, cwd: Path, environ: Mapping[str, str]) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execvpe(argv[0], argv, environ)
        self.type(f"{setup}; echo re''ady\n")
        self.read_until(lambda said: "ready" in said)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.terminal, text.encode())

    def read_until(self, enough: Callable[[str], bool]) -> str:
        """What it shows, without escape sequences, until that is enough."""
        return plain(read_until(self.terminal, lambda said: enough(plain(said))))

    def complete(self, line: str, wanted: tuple[str, ...]) -> str:
        """What is shown after the line and a press of Tab."""
        self.type(line)
        self.read_until(lambda said: line.strip() in said)
        self.type("\t")
        return self.read_until(lambda said: all(word in line + said for word in wanted))

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


def plain(said: bytes) -> str:
    """Text as a terminal would show it, near enough."""
    return ESCAPES.sub("", said.decode(errors="replace")).replace("\x07", "").replace("\r", "")


def needs(shell: str) -> None:
    """Skip, by name, what this host cannot try."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.fixture
def bash(place: Path, environ: dict[str, str]) -> Iterator[Complete]:
    """Lines typed into bash."""
    needs("bash")
    quick = "; ".join(f"bind 'set {setting}'" for setting in ("page-completions off", "show-all-if-ambiguous on"))
    setup = f"PS1='$ '; {quick}; source {COMPLETIONS}/ezpz.bash"
    shell = Typed(["bash", "--norc", "--noprofile", "-i"], setup, place, environ)
    yield shell.complete
    shell.close()


@pytest.fixture
def zsh(place: Path, environ: dict[str, str]) -> Iterator[Complete]:
    """Lines typed into zsh, which finds the file in its fpath."""
    needs("zsh")
    quick = "LISTMAX=999; setopt NO_LIST_AMBIGUOUS"
    setup = f"PS1='$ '; {quick}; fpath=({COMPLETIONS} $fpath); autoload -Uz compinit; compinit -u -D"
    shell = Typed(["zsh", "-f", "-i"], setup, place, environ)
    yield shell.complete
    shell.close()


@pytest.fixture
def fish(place: Path, environ: dict[str, str]) -> Complete:
    """Lines that fish is asked to complete."""
    needs("fish")

    def complete(line: str, wanted: tuple[str, ...]) -> str:
        script = f"source {COMPLETIONS}/ezpz.fish; complete -C '{line}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script],
            cwd=place,
            env=environ,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.stderr == ""
        return done.stdout

    return complete


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(("line", "wanted", "unwanted"), CASES.values(), ids=CASES)
def test_the_shell_completes(
    request: pytest.FixtureRequest, shell: str, line: str, wanted: tuple[str, ...], unwanted: tuple[str, ...]
) -> None:
    shown = request.getfixturevalue(shell)(line, wanted)
    missing = [word for word in wanted if word not in line + shown]
    assert not missing, shown
    assert not [word for word in unwanted if word in shown], shown


def test_the_files_are_fresh(tmp_path: Path) -> None:
    subprocess.run([sys.executable, REPOSITORY / "scripts" / "completions", tmp_path], check=True, env=clean_environ())
    assert sorted(os.listdir(tmp_path)) == sorted(os.listdir(COMPLETIONS))
    for made in tmp_path.iterdir():
        assert made.read_text() == (COMPLETIONS / made.name).read_text(), "run `make completions`"


def answers(*words: str, **variables: str) -> list[str]:
    """What ezpz itself answers a shell whose line holds these words, the last one unfinished."""
    asked = {"_EZPZ_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "ezpz"],
        env=clean_environ(**asked, **variables),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.split()]


@pytest.mark.parametrize(
    "variables",
    [
        {"PBS_NODEFILE": "/no/such/file", "PBS_JOBID": "1"},
        {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n[1-"},
        {"HOSTFILE": "/dev/null"},
    ],
    ids=["no nodefile", "a broken nodelist", "an empty hostfile"],
)
def test_hosts_that_cannot_be_found_complete_to_silence(variables: dict[str, str]) -> None:
    assert answers("ezpz", "launch", "--hosts", "n", **variables) == []


def test_completing_hosts_starts_no_process(tmp_path: Path) -> None:
    for tool in ("qstat", "squeue"):
        (tmp_path / tool).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / tool).chmod(0o755)
    answers("ezpz", "launch", "--hosts", "", PATH=f"{tmp_path}:{os.environ['PATH']}", USER="someone")
    assert not (tmp_path / "started").exists()


def test_a_third_partys_strategy_is_completed_and_a_broken_command_is_not(tmp_path: Path) -> None:
    source = "raise RuntimeError('not to be loaded')\n"
    strategy = make_package(tmp_path, "warp", {"warp": "warp:Warp"}, source, group="ezpz.yeet.strategies")
    command = make_package(tmp_path, "wreck", {"wreck": "wreck:wreck"}, source)
    path = f"{strategy}{os.pathsep}{command}"
    assert "warp" in answers("ezpz", "yeet", "--strategy", "", PYTHONPATH=path)
    assert "wreck" not in answers("ezpz", "", PYTHONPATH=path)
