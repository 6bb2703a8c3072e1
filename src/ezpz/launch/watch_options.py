"""Options of `ezpz launch` about bad nodes and about watching: click to a `Wish`, and nothing else."""

from __future__ import annotations

import functools
import os
import re
import shutil
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ezpz.launch.wish import Wish

F = TypeVar("F", bound="Callable[..., Any]")
_MOST_RESTARTS = 1000
_SECONDS = click.FloatRange(min=0, min_open=True)


def node_count(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """The fewest and the most of `N` or `MIN:MAX`; the callback of an option."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)(?::(\d+))?", value)
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= fewest <= most:
        raise click.BadParameter(f"{value!r} is neither a number of nodes nor MIN:MAX.")
    return fewest, most


def regex(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
    """The pattern, or patterns, if they are regular expressions; the callback of an option."""
    patterns = value if isinstance(value, tuple) else (value,)
    try:
        for pattern in patterns:
            re.compile(pattern)
    except re.error as e:
        raise click.BadParameter(f"{pattern!r} is no regular expression: {e}.") from e
    return value


def watch_options(prefix: str) -> Callable[[F], F]:
    """Give a command these options; `wish_of` makes a wish of what it gets."""

    def decorate(function: F) -> F:
        decorated: Any = function
        for option in reversed(_options(prefix)):
            decorated = option(decorated)
        result: F = decorated
        return result

    return decorate


def _options(prefix: str) -> tuple[Callable[[F], F], ...]:
    def option(*names: str, **settings: Any) -> Callable[[F], F]:
        variable = f"{prefix}_{names[-1].lstrip('-').upper().replace('-', '_')}"
        return click.option(*names, envvar=variable, show_envvar=True, **settings)

    natural = functools.partial(click.IntRange, min=0)
    return (
        option(
            "--nhosts",
            metavar="N|MIN:MAX",
            callback=node_count,
            help="Use so many nodes; the others are spares.",
        ),
        option("--spares", metavar="K", type=natural(), default=0, help="Keep K nodes back as spares."),
        option("--check", is_flag=True, help="Look at every node first, and leave out those that fail."),
        option("--check-path", metavar="PATH", multiple=True, help="What must exist on every node; implies --check."),
        option(
            "--check-room",
            metavar="MB",
            type=natural(),
            default=100,
            show_default=True,
            help="What must be free in /tmp, for --check.",
        ),
        option(
            "--check-timeout",
            metavar="SECONDS",
            type=_SECONDS,
            default=5.0,
            show_default=True,
            help="How long each look at a node may take.",
        ),
        option(
            "--max-restarts",
            metavar="N",
            type=natural(max=_MOST_RESTARTS),
            default=0,
            help="Start COMMAND again when it fails, at most N times, without the node that is to blame.",
        ),
        option(
            "--progress-regex",
            metavar="REGEX",
            callback=regex,
            default="step[=:]",
            show_default=True,
            help="What COMMAND prints when it gets on; two attempts without it are enough.",
        ),
        option("--idle-timeout", metavar="SECONDS", type=_SECONDS, help="End COMMAND when it is silent for so long."),
        option(
            "--grace",
            metavar="SECONDS",
            type=click.FloatRange(min=0),
            default=10.0,
            show_default=True,
            help="How long COMMAND may take to end when it is asked to.",
        ),
        option("--log-dir", metavar="DIR", type=click.Path(), help="Keep a log of every attempt, and a summary."),
        option(
            "--filter",
            metavar="REGEX",
            callback=regex,
            multiple=True,
            help="Do not show what matches; logs have it.",
        ),
        option("--no-filter", is_flag=True, help="Show every line."),
        option("--pty", is_flag=True, help="Give COMMAND a terminal, for colours and progress bars."),
    )


def wish_of(
    options: dict[str, Any],
    command: Sequence[str],
    *,
    noise: Sequence[str] = (),
    culprits: Sequence[str] = (),
    victims: Sequence[str] = (),
) -> Wish:
    """What was asked for. noise, culprits, victims: regular expressions of the site. Raises click.UsageError."""
    from ezpz.launch.wish import Watching, Wish

    if options["nhosts"] and options["spares"]:
        raise click.UsageError("--nhosts and --spares exclude each other: what --nhosts leaves are the spares.")
    again = options["max_restarts"] > 0
    fewest, most = options["nhosts"] or (None, None)
    watching = Watching(
        idle=options["idle_timeout"],
        grace=options["grace"],
        pty=options["pty"],
        labels=again or options["log_dir"] is not None,
        noise=() if options["no_filter"] else (*noise, *options["filter"]),
        progress=options["progress_regex"],
        culprits=tuple(culprits) if again else (),
        victims=tuple(victims) if again else (),
        end_when_lost=again,
    )
    return Wish(
        watching,
        fewest,
        most,
        options["spares"],
        options["max_restarts"],
        _wanted(options, command) if options["check"] or options["check_path"] else None,
        options["log_dir"],
    )


def _wanted(options: dict[str, Any], command: Sequence[str]) -> Any:
    from ezpz.launch.checks import Wanted, absolute

    return Wanted(
        programs=absolute((shutil.which(command[0]),)),
        paths=absolute([os.path.abspath(path) for path in options["check_path"]]),
        shared=(os.getcwd(),),
        room=options["check_room"] * 1_000_000,
        timeout=options["check_timeout"],
    )
