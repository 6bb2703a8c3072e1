"""The `ezpz` group as real processes: plugins, failures, exit codes, and how fast it starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ezpz import __version__
from tests.cli.support import clean_environ, ezpz, make_package
from tests.waiting import DEADLINE

ACME = """
import sys
import click
from ezpz.cli.output import output_options
from ezpz.errors import NoSpace

print("acme is loaded", file=sys.stderr)

@click.command(short_help="Do what acme does.")
@click.option("--times", type=click.IntRange(min=1), default=1)
@output_options("EZPZ_ACME")
def acme(times, output):
    output.line("acme " * times)
    output.document({"times": times})

@click.command()
@output_options("EZPZ_ACME")
def full(output):
    raise NoSpace("no space left on n003:/tmp", hint="free some")

@click.command()
@output_options("EZPZ_ACME")
def buggy(output):
    return {}["nothing"]

@click.command()
@output_options("EZPZ_ACME")
def late(output):
    output.document({"done": True})
    raise NoSpace("no space left after all")

@click.command()
def slow():
    import time
    print("ready", flush=True)
    time.sleep(600)

@click.command()
def talk():
    for number in range(1_000_000):
        click.echo(number)

@click.command()
def three():
    raise SystemExit(3)

@click.command()
def seven():
    click.get_current_context().exit(7)

@click.command()
def returns():
    return 5
"""
COMMANDS = ("acme", "full", "buggy", "late", "slow", "talk", "three", "seven", "returns")


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third-party package with commands that do all the things that commands do."""
    return make_package(tmp_path_factory.mktemp("acme"), "acme", {name: f"acme:{name}" for name in COMMANDS}, ACME)


def test_help_lists_our_commands() -> None:
    done = ezpz("--help")
    assert done.returncode == 0
    assert "launch" in done.stdout
    assert "Run a command on every node" in done.stdout
    assert done.stderr == ""


def test_version() -> None:
    assert ezpz("--version").stdout == f"ezpz, version {__version__}\n"


def test_no_arguments_show_the_help_and_fail() -> None:
    done = ezpz()
    assert done.returncode == 2
    assert "Usage: ezpz" in done.stderr
    assert done.stdout == ""


def test_a_third_partys_command_is_a_command_like_ours(acme: Path) -> None:
    assert "Do what acme does." in ezpz("--help", paths=(acme,)).stdout
    assert ezpz("acme", "--times", "2", paths=(acme,)).stdout == "acme acme \n"
    assert json.loads(ezpz("acme", "--json", paths=(acme,)).stdout) == {"times": 1}
    assert json.loads(ezpz("acme", paths=(acme,), variables={"EZPZ_ACME_JSON": "1"}).stdout) == {"times": 1}
    assert "EZPZ_ACME_QUIET" in ezpz("acme", "--help", paths=(acme,)).stdout


def test_a_command_is_loaded_only_when_it_is_called(acme: Path) -> None:
    assert "acme is loaded" not in ezpz("launch", "--help", paths=(acme,)).stderr
    assert "acme is loaded" in ezpz("acme", paths=(acme,)).stderr


BROKEN = {
    "raise RuntimeError('half installed\\nreally')": "RuntimeError: half installed really",
    "import no_such_module_here": "ModuleNotFoundError: No module named 'no_such_module_here'",
    "def broken(:": "SyntaxError: invalid syntax",
    "broken = 4": "it is a int, not a click command",
    "": "AttributeError: module 'wreck' has no attribute 'broken'",
    "raise SystemExit('bye')": "SystemExit: bye",
}


@pytest.mark.parametrize(("source", "reason"), BROKEN.items(), ids=lambda text: text[:20] or "empty")
def test_a_broken_plugin_costs_only_itself(tmp_path: Path, source: str, reason: str) -> None:
    site = make_package(tmp_path, "wreck", {"broken": "wreck:broken"}, source)
    listed = ezpz("--help", paths=(site,))
    assert listed.returncode == 0
    assert "Run a command on every node" in listed.stdout
    assert [line for line in listed.stdout.splitlines() if "broken:" in line and reason in line]
    called = ezpz("broken", "--whatever", "x", paths=(site,))
    assert called.returncode == 3
    assert reason.partition(" ")[0] in called.stderr
    assert "wreck 1.2" in called.stderr
    assert "Traceback" not in called.stderr
    assert ezpz("launch", "--help", paths=(site,)).returncode == 0


def test_a_broken_plugin_in_json(tmp_path: Path) -> None:
    site = make_package(tmp_path, "wreck", {"broken": "wreck:broken"}, "import no_such_module_here")
    error = json.loads(ezpz("broken", "--json", paths=(site,)).stdout)["error"]
    assert (error["code"], error["exit_code"]) == ("plugin", 3)


def test_two_plugins_of_one_name_are_an_error_of_that_name(tmp_path: Path) -> None:
    source = "import click\n@click.command()\ndef run(): print('ran')\n"
    sites = tuple(make_package(tmp_path, name, {"twin": f"{name}:run"}, source) for name in ("castor", "pollux"))
    called = ezpz("twin", paths=sites)
    assert called.returncode == 3
    assert "castor:run" in called.stderr
    assert "pollux:run" in called.stderr
    assert "ran" not in called.stdout
    listed = ezpz("--help", paths=sites)
    assert "twin: 2 plugins declare the command 'twin': castor:run, pollux:run" in listed.stdout
    assert ezpz("launch", "--help", paths=sites).returncode == 0


def test_a_plugin_cannot_take_a_name_of_ours(tmp_path: Path) -> None:
    site = make_package(
        tmp_path, "usurper", {"launch": "usurper:run"}, "import click\n@click.command()\ndef run(): 1\n"
    )
    assert ezpz("launch", "true", paths=(site,)).returncode == 3


@pytest.mark.parametrize(("word", "meant"), [("lunch", "launch"), ("yete", "yeet"), ("xyzzy", "")])
def test_an_unknown_command_is_answered_with_close_names(word: str, meant: str) -> None:
    done = ezpz(word)
    assert done.returncode == 2
    assert f"No such command '{word}'." in done.stderr
    assert ("Did you mean" in done.stderr) == bool(meant)
    assert meant in done.stderr


def test_usage_errors_name_option_and_value(acme: Path) -> None:
    done = ezpz("acme", "--times", "0", paths=(acme,))
    assert done.returncode == 2
    assert "'--times': 0 is not in the range" in done.stderr
    assert "ezpz acme --help" in done.stderr
    as_json = ezpz("acme", "--json", "--times", "0", paths=(acme,))
    document = json.loads(as_json.stdout)
    assert (document["schema"], document["error"]["code"]) == ("ezpz/error/1", "usage")
    assert as_json.returncode == document["error"]["exit_code"] == 2


def test_usage_errors_in_json_when_the_line_cannot_even_be_parsed(acme: Path) -> None:
    for line in (("acme", "--bogus", "--json"), ("--bogus", "--json"), ("bogus", "--json")):
        assert json.loads(ezpz(*line, paths=(acme,)).stdout)["error"]["exit_code"] == 2
    assert ezpz("acme", "--bogus", "--", "--json", paths=(acme,)).stdout == ""


def test_a_known_failure_is_a_message_a_hint_and_a_code(acme: Path) -> None:
    done = ezpz("full", paths=(acme,))
    assert done.returncode == 23
    assert done.stderr.endswith("error: no space left on n003:/tmp\nhint: free some\n")
    as_json = ezpz("full", "--json", paths=(acme,))
    assert as_json.returncode == 23
    assert json.loads(as_json.stdout) == {
        "schema": "ezpz/error/1",
        "error": {"code": "no-space", "message": "no space left on n003:/tmp", "hint": "free some", "exit_code": 23},
    }


def test_stdout_holds_one_document_whatever_happens_later(acme: Path) -> None:
    done = ezpz("late", "--json", paths=(acme,))
    assert json.loads(done.stdout) == {"done": True}
    assert "no space left after all" in done.stderr
    assert done.returncode == 23


def test_a_bug_is_one_clear_line(acme: Path) -> None:
    done = ezpz("buggy", paths=(acme,))
    assert done.returncode == 70
    assert "this is a bug in ezpz: KeyError: 'nothing'" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(ezpz("buggy", "--json", paths=(acme,)).stdout)["error"]["code"] == "bug"


def test_a_bug_shows_its_traceback_when_asked(acme: Path) -> None:
    assert "Traceback" in ezpz("buggy", "-v", paths=(acme,)).stderr
    assert "Traceback" in ezpz("buggy", paths=(acme,), variables={"EZPZ_DEBUG": "1"}).stderr
    assert "Traceback" not in ezpz("buggy", paths=(acme,), variables={"EZPZ_DEBUG": "0"}).stderr


@pytest.mark.parametrize(("command", "status"), [("three", 3), ("seven", 7), ("returns", 0)])
def test_a_command_decides_its_exit_status_as_click_has_it(acme: Path, command: str, status: int) -> None:
    assert ezpz(command, paths=(acme,)).returncode == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt(acme: Path, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "ezpz", "slow"],
        env=clean_environ(acme),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + number
    assert err.endswith("error: interrupted\n")


def test_a_reader_that_goes_away_is_no_error(acme: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "ezpz", "talk"],
        env=clean_environ(acme),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"acme is loaded\n"
        assert process.wait(DEADLINE) == 141


def test_closed_and_full_stdout(acme: Path) -> None:
    closed = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m ezpz acme >&-"], env=clean_environ(acme), capture_output=True
    )
    assert closed.returncode == 0
    full = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m ezpz acme >/dev/full"],
        env=clean_environ(acme),
        capture_output=True,
    )
    assert full.returncode == 1
    assert b"cannot write to stdout: No space left on device" in full.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from ezpz.cli.app import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'rich', 'asyncio', 'ClusterShell', 'concurrent', 'logging'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=clean_environ(), capture_output=True, text=True)
    assert done.stderr == "[]\n"


def test_python_m_and_the_script_are_the_same() -> None:
    script = Path(sys.executable).with_name("ezpz")
    if not os.access(script, os.X_OK):
        pytest.skip("ezpz is not installed beside this Python")
    done = subprocess.run([script, "--help"], env=clean_environ(), capture_output=True, text=True)
    assert done.stdout == ezpz("--help").stdout
