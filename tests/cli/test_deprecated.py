"""The older names: they say their new name once, and then are it."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ezpz.cli.deprecated import TAR_STRAYS, YEET_STRAYS, without_stray
from tests.cli.support import clean_environ, ezpz
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from pathlib import Path

SCRIPTS = {"ezpz-yeet-env": "yeet_env", "ezpz-tar-env": "tar_env", "ezpz-launch": "launch"}


def old(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run what the console script runs."""
    code = (
        f"import sys; from ezpz.cli.deprecated import {SCRIPTS[script]} as f; sys.argv[0] = '{script}'; sys.exit(f())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=DEADLINE, env=clean_environ()
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory to yeet."""
    path = tmp_path / "data"
    path.mkdir()
    (path / "file").write_text("content")
    return path


@pytest.mark.parametrize(
    ("args", "strays", "left"),
    [
        (["yeet", "x"], YEET_STRAYS, ["x"]),
        (["yeet-env"], YEET_STRAYS, []),
        (["yeet", "yeet"], YEET_STRAYS, ["yeet"]),
        (["./yeet"], YEET_STRAYS, ["./yeet"]),
        (["--dry-run", "yeet"], YEET_STRAYS, ["--dry-run", "yeet"]),
        (["yeet", "tar", "x"], TAR_STRAYS, ["x"]),
        (["tar", "x"], TAR_STRAYS, ["x"]),
        (["tar-env", "x"], TAR_STRAYS, ["x"]),
        ([], TAR_STRAYS, []),
    ],
)
def test_one_stray_token_is_tolerated(args: list[str], strays: tuple[str, ...], left: list[str]) -> None:
    assert without_stray(args, strays) == left


@pytest.mark.parametrize(
    ("script", "new"),
    [("ezpz-yeet-env", "ezpz yeet"), ("ezpz-tar-env", "ezpz yeet tar"), ("ezpz-launch", "ezpz launch")],
    ids=SCRIPTS,
)
def test_one_line_says_the_new_name(script: str, new: str) -> None:
    done = old(script, "--help")
    assert done.returncode == 0
    assert done.stderr == f"warning: '{script}' is deprecated: use '{new}'\n"
    assert f"Usage: {new}" in done.stdout


@pytest.mark.parametrize("stray", [[], ["yeet"], ["yeet-env"]], ids=str)
def test_yeet_env_is_yeet(source: Path, stray: list[str]) -> None:
    line = [str(source), "--dry-run", "--hosts", "localhost", "--dst", str(source.parent / "there")]
    new, done = ezpz("yeet", *line), old("ezpz-yeet-env", *stray, *line)
    assert new.returncode == done.returncode == 0
    assert str(source) in done.stdout
    assert not (source.parent / "there").exists()


def test_failures_keep_their_exit_code(tmp_path: Path) -> None:
    assert old("ezpz-yeet-env", "--no-such-option").returncode == 2
    assert old("ezpz-yeet-env", str(tmp_path / "missing")).returncode == 10


@pytest.mark.parametrize("command", ["yeet-env", "tar-env"])
def test_the_subcommands_are_deprecated_likewise(command: str) -> None:
    done = ezpz(command, "--help")
    assert done.returncode == 0
    assert done.stderr.count("deprecated") == 1


class TestOldModulePath:
    """`ezpz.utils.yeet_env`, as documented."""

    def test_parse_args_is_a_namespace_of_the_one_parser(self) -> None:
        from ezpz.utils.yeet_env import parse_args

        args = parse_args(["/env", "--dst", "/tmp/env", "--dry-run", "--json"])
        assert isinstance(args, argparse.Namespace)
        assert (args.src, args.dst, args.dry_run, args.json) == ("/env", "/tmp/env", True, True)
        assert parse_args(["--src", "/env"]).src == "/env"
        assert parse_args([]).src is None

    def test_a_stray_token_is_tolerated(self) -> None:
        from ezpz.utils.yeet_env import parse_args

        assert parse_args(["yeet"]).src is None
        assert parse_args(["yeet-env", "/env"]).src == "/env"

    def test_argv_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from ezpz.utils.yeet_env import parse_args

        monkeypatch.setattr(sys, "argv", ["ezpz-yeet-env", "yeet", "/env"])
        assert parse_args().src == "/env"

    @pytest.mark.parametrize("line", [["--no-such-option"], ["/a", "--src", "/b"], ["--retries", "many"], ["/a", "/b"]])
    def test_a_bad_line_exits_with_2(self, line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        from ezpz.utils.yeet_env import parse_args

        with pytest.raises(SystemExit) as caught:
            parse_args(line)
        assert caught.value.code == 2
        assert capsys.readouterr().err

    def test_run_and_main_return_the_exit_status(self, tmp_path: Path, source: Path) -> None:
        from ezpz.utils import yeet_env

        assert yeet_env.run([str(tmp_path / "missing")]) == 10
        assert yeet_env.main([str(source), "--dry-run", "--hosts", "localhost", "--dst", str(tmp_path / "there")]) == 0

    def test_pick_source(self) -> None:
        from ezpz.yeet.engines.copy_tree import pick_source

        assert callable(pick_source)


def test_ezpz_launch_is_launch() -> None:
    here = ("--hosts", socket.gethostname())
    for line in (here, ("launch", *here)):
        done = old("ezpz-launch", *line, "-n", "1", "sh", "-c", "echo $RANK; exit 4")
        assert (done.stdout, done.returncode) == ("0\n", 4)
        assert done.stderr == "warning: 'ezpz-launch' is deprecated: use 'ezpz launch'\n"
