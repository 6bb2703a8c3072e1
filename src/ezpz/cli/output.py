"""Output of all commands: text for people, or one JSON document for programs.

The result goes to stdout, everything else to stderr. Color is for terminals, and never used if NO_COLOR is set.
"""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click
from click.core import ParameterSource

from ezpz.errors import EzpzError
from ezpz.runtime.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

F = TypeVar("F", bound="Callable[..., Any]")

ERROR_SCHEMA = "ezpz/error/1"
_META = "ezpz.output"


@dataclass(slots=True)
class Output:
    """The output of one command: `json` replaces text by one document, `verbose` counts -v, `quiet` is -q.

    | call     | goes to | with --json | with -q | with -v |
    |----------|---------|-------------|---------|---------|
    | line     | stdout  | silent      | silent  | yes     |
    | document | stdout  | the one     | (json)  | (json)  |
    | note     | stderr  | silent      | silent  | yes     |
    | detail   | stderr  | only -v     | silent  | yes     |
    | warn     | stderr  | yes         | yes     | yes     |
    """

    json: bool = False
    verbose: int = 0
    quiet: bool = False
    documented: bool = False

    def line(self, text: str = "", *, fg: str | None = None, bold: bool = False) -> None:
        """Print a line of the result. `fg` is a color name of click, used only on a terminal."""
        if not (self.json or self.quiet):
            _write(sys.stdout, text, fg=fg, bold=bold or None)

    def note(self, text: str) -> None:
        """Print what is being done, on stderr."""
        if not (self.json or self.quiet):
            _write(sys.stderr, text)

    def detail(self, text: str) -> None:
        """Print a detail, on stderr, with -v only."""
        if self.verbose:
            _write(sys.stderr, text, dim=True)

    def warn(self, text: str) -> None:
        """Print a warning, on stderr, with all options."""
        _write(sys.stderr, text, label="warning", fg="yellow")

    def error(self, error: EzpzError) -> None:
        """Print why the run ends: a message and a hint on stderr, or with --json the error document on stdout."""
        if self.json and not self.documented:
            self.document(error_document(error))
            return
        _write(sys.stderr, error.message, label="error", fg="red")
        if error.hint:
            _write(sys.stderr, error.hint, label="hint", fg="cyan")

    def document(self, mapping: Mapping[str, Any]) -> None:
        """Print the JSON document of this run, keys sorted, in ASCII. Print nothing without --json.

        bytes and paths become strings by os.fsdecode. Raises RuntimeError when called twice.
        """
        if not self.json:
            return
        if self.documented:
            raise RuntimeError("a run prints one JSON document, and this would be the second")
        import json

        text = json.dumps(mapping, indent=2, sort_keys=True, default=_plain)
        self.documented = True
        _write(sys.stdout, text)

    @property
    def live(self) -> bool:
        """Whether a display may redraw itself: the output is text, on a terminal that can move its cursor."""
        return not (self.json or self.quiet) and _is_terminal(sys.stderr)

    @classmethod
    def of(cls, ctx: click.Context) -> Output:
        """Return the Output of this run, made from the options that were parsed so far."""
        output: Output = ctx.meta.setdefault(_META, cls())
        return output

    @classmethod
    def guess(cls, args: Sequence[str]) -> Output:
        """Return the Output for a command line that cannot be parsed, or whose command has no output options."""
        own = args[: args.index("--")] if "--" in args else args
        return cls(json="--json" in own, verbose=sum(arg in ("-v", "--verbose") for arg in own))


def output_of(ctx: click.Context | None, args: Sequence[str]) -> Output:
    """Return the Output of a run that has failed: its own, or else a guess from its arguments."""
    if ctx is not None and _META in ctx.meta:
        return Output.of(ctx)
    return Output.guess(args)


def output_options(prefix: str) -> Callable[[F], F]:
    """Give a command --json, -v and -q, and its function the keyword argument `output`.

    The names of their environment variables start with `prefix`: "EZPZ_YEET" makes EZPZ_YEET_JSON, _VERBOSE and _QUIET.
    The options may come before or after the name of a subcommand: they are merged. -q with -v is a usage error.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def command(*args: Any, **kwargs: Any) -> Any:
            return function(*args, output=Output.of(click.get_current_context()), **kwargs)

        decorated: Any = command
        for option in reversed(_options(prefix)):
            decorated = option(decorated)
        result: F = decorated
        return result

    return decorate


def _options(prefix: str) -> tuple[Callable[[F], F], ...]:
    def option(*names: str, **settings: Any) -> Callable[[F], F]:
        return click.option(
            *names,
            envvar=f"{prefix}_{names[-1].lstrip('-').upper()}",
            show_envvar=True,
            is_eager=True,
            expose_value=False,
            callback=_merge,
            **settings,
        )

    return (
        option("--json", is_flag=True, help="Print one JSON document on stdout, and no text."),
        option("-v", "--verbose", count=True, help="Tell more, on stderr."),
        option("-q", "--quiet", is_flag=True, help="Tell only warnings and errors."),
    )


def _merge(ctx: click.Context, param: click.Parameter, value: int) -> None:
    output, name = Output.of(ctx), str(param.name)
    if not value or (name != "json" and _is_overridden(ctx, name, output)):
        return
    if name == "verbose":
        output.verbose += value
    else:
        setattr(output, name, True)


def _is_overridden(ctx: click.Context, name: str, output: Output) -> bool:
    """Return whether -q or -v, from the environment, loses to the other on the command line. Raises if neither does."""
    other = "quiet" if name == "verbose" else "verbose"
    if not getattr(output, other):
        return False
    if ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT and (
        ctx.get_parameter_source(other) is not ParameterSource.ENVIRONMENT
    ):
        return True
    raise click.UsageError("'-q' / '--quiet' and '-v' / '--verbose' exclude each other.", ctx)


def error_document(error: EzpzError) -> dict[str, Any]:
    """Return the JSON document that a failed run prints, in the schema "ezpz/error/1"."""
    return {
        "schema": ERROR_SCHEMA,
        "error": {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code},
    }


def wants_colour(stream: TextIO | None) -> bool:
    """Return whether to color what is written to `stream`: on a terminal with colors, unless NO_COLOR is set."""
    return not os.environ.get("NO_COLOR") and _is_terminal(stream)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _write(stream: TextIO | None, text: str, *, label: str = "", **style: Any) -> None:
    """Write a line by one call, so that lines of two processes do not mix. Ignore a closed stream (`>&-`)."""
    if stream is None:
        return
    text = printable(text)
    if wants_colour(stream):
        if label:
            text = f"{click.style(f'{label}:', bold=True, **style)} {text}"
        elif any(style.values()):
            text = click.style(text, **style)
    elif label:
        text = f"{label}: {text}"
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(f"{text}\n".encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        raise EzpzError(f"cannot write to {stream.name.strip('<>')}: {e.strerror}") from e


def _plain(value: object) -> object:
    if isinstance(value, (bytes, os.PathLike)):
        return os.fsdecode(value)
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no place in a JSON document")
