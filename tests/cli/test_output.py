"""Output: what is said where, under which options, on a terminal and off it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from ezpz.cli.output import Output, output_options, wants_colour
from ezpz.errors import EzpzError, NoSpace
from ezpz.runtime.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Terminal:
    """A pseudo-terminal that can take the place of stdout and stderr."""

    def __init__(self) -> None:
        self.ours, theirs = pty.openpty()
        self.stream = open(theirs, "w", encoding="utf-8")  # noqa: SIM115 - close() closes it

    def said(self, speak: Callable[[], None]) -> str:
        """What was written to it while `speak` ran."""
        with contextlib.redirect_stdout(self.stream), contextlib.redirect_stderr(self.stream):
            speak()
        return os.read(self.ours, 65536).decode()

    def close(self) -> None:
        """Both ends."""
        self.stream.close()
        os.close(self.ours)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal with colours."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    made = Terminal()
    yield made
    made.close()


def say_everything(output: Output) -> None:
    output.line("a line")
    output.note("a note")
    output.detail("a detail")
    output.warn("a warning")
    output.document({"a": "document"})


@pytest.mark.parametrize(
    ("output", "stdout", "stderr"),
    [
        (Output(), "a line", ["a note", "warning: a warning"]),
        (Output(verbose=1), "a line", ["a note", "a detail", "warning: a warning"]),
        (Output(quiet=True), "", ["warning: a warning"]),
        (Output(json=True), '{\n  "a": "document"\n}', ["warning: a warning"]),
        (Output(json=True, verbose=2), '{\n  "a": "document"\n}', ["a detail", "warning: a warning"]),
    ],
    ids=["text", "verbose", "quiet", "json", "json-verbose"],
)
def test_who_hears_what(output: Output, stdout: str, stderr: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    say_everything(output)
    heard = capsys.readouterr()
    assert heard.out.strip() == stdout
    assert heard.err.splitlines() == stderr


def test_off_a_terminal_there_is_no_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(verbose=1)
    say_everything(output)
    output.line("green", fg="green", bold=True)
    output.error(NoSpace("full", hint="free some"))
    heard = capsys.readouterr()
    assert "\x1b" not in heard.out + heard.err
    assert "error: full\nhint: free some\n" in heard.err


def test_colour_on_a_terminal(terminal: Terminal) -> None:
    assert terminal.said(lambda: Output().warn("careful")) == "\x1b[33m\x1b[1mwarning:\x1b[0m careful\r\n"
    assert terminal.said(lambda: Output().line("done", fg="green")) == "\x1b[32mdone\x1b[0m\r\n"
    assert terminal.said(lambda: Output().line("plain")) == "plain\r\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_it_is_not_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert terminal.said(lambda: Output().warn("careful")) == "warning: careful\r\n"


def test_an_empty_no_color_does_not_count(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert wants_colour(terminal.stream)


@pytest.mark.parametrize(
    ("output", "live"), [(Output(), True), (Output(json=True), False), (Output(quiet=True), False)], ids=str
)
def test_a_live_display_is_for_people_at_terminals(terminal: Terminal, output: Output, *, live: bool) -> None:
    with contextlib.redirect_stderr(terminal.stream):
        assert output.live == live


def test_no_live_display_elsewhere() -> None:
    assert not Output().live


def test_a_document_is_stable_and_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xc3\xa9-\xff")
    Output(json=True).document({"b": Path("/tmp"), "a": name, "c": b"raw-\xff", "d": {"y": 1, "x": frozenset("ba")}})
    text = capsys.readouterr().out
    assert text.isascii()
    assert text.index('"a"') < text.index('"b"') < text.index('"x"') < text.index('"y"')
    assert json.loads(text) == {"a": name, "b": "/tmp", "c": os.fsdecode(b"raw-\xff"), "d": {"x": ["a", "b"], "y": 1}}


def test_what_has_no_place_in_json_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no place"):
        Output(json=True).document({"a": object()})


def test_there_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True)
    output.document({"a": 1})
    with pytest.raises(RuntimeError, match="second"):
        output.document({"a": 2})
    output.error(NoSpace("full"))
    heard = capsys.readouterr()
    assert json.loads(heard.out) == {"a": 1}
    assert heard.err == "error: full\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é ✓", "plain é ✓"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        (os.fsdecode(b"caf\xe9"), "caf\\xe9"),
        ("evil \x1b[2J name\r", "evil \\x1b[2J name\\r"),
        ("right\u202eleft", "right\\u202eleft"),
    ],
)
def test_what_could_harm_a_terminal_is_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_stream_that_cannot_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Output().line("é")
    assert raw.getvalue() == b"\\xe9\n"


def test_a_full_disk_is_an_error_and_a_closed_stream_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    Output().line("nobody hears this")
    with contextlib.suppress(OSError), open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(EzpzError, match="cannot write to /dev/full: No space left on device"):
            Output().line("x")


@click.group(invoke_without_command=True)
@output_options("EZPZ_TRY")
def outer(output: Output) -> None:
    """A command with output options, and a subcommand that has them too."""
    if click.get_current_context().invoked_subcommand is None:
        click.echo(f"{output.json} {output.verbose} {output.quiet}")


@outer.command()
@output_options("EZPZ_TRY")
def inner(output: Output) -> None:
    """The subcommand."""
    click.echo(f"{output.json} {output.verbose} {output.quiet}")


@pytest.mark.parametrize(
    ("line", "environ", "said"),
    [
        ("", {}, "False 0 False"),
        ("--json -vv", {}, "True 2 False"),
        ("-q", {}, "False 0 True"),
        ("--json inner", {}, "True 0 False"),
        ("-v inner -v", {}, "False 2 False"),
        ("inner --json", {}, "True 0 False"),
        ("", {"EZPZ_TRY_JSON": "1", "EZPZ_TRY_VERBOSE": "3"}, "True 3 False"),
        ("-v", {"EZPZ_TRY_QUIET": "1"}, "False 1 False"),
        ("-q", {"EZPZ_TRY_VERBOSE": "1"}, "False 0 True"),
        ("", {"EZPZ_TRY_QUIET": "0"}, "False 0 False"),
    ],
)
def test_output_options(line: str, environ: dict[str, str], said: str) -> None:
    result = CliRunner().invoke(outer, line.split(), env=environ)
    assert result.output.strip() == said


@pytest.mark.parametrize(
    ("line", "environ"),
    [
        ("-q -v", {}),
        ("-v -q", {}),
        ("-q inner -v", {}),
        ("", {"EZPZ_TRY_QUIET": "1", "EZPZ_TRY_VERBOSE": "1"}),
    ],
)
def test_quiet_and_verbose_exclude_each_other(line: str, environ: dict[str, str]) -> None:
    result = CliRunner().invoke(outer, line.split(), env=environ)
    assert result.exit_code == 2
    assert "'-q' / '--quiet' and '-v' / '--verbose' exclude each other" in result.output


def test_help_shows_the_environment_variables() -> None:
    text = CliRunner().invoke(outer, ["inner", "--help"]).output
    assert all(f"EZPZ_TRY_{name}" in text for name in ("JSON", "VERBOSE", "QUIET"))
