"""Options of `ezpz launch` about failed nodes and about monitoring, converted to `SupervisionOptions`."""

from __future__ import annotations

import functools
import math
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.launch.execute.node_checks import CheckRequest
    from ezpz.launch.execute.options import SupervisionOptions
    from ezpz.launch.plan.plan import LaunchPlan

F = TypeVar("F", bound="Callable[..., Any]")
_MAX_RESTARTS = 1000
_MAX_SECONDS = 1e8  # seconds: three years


class Seconds(click.FloatRange):
    """A finite number of seconds, not `nan`."""

    def __init__(self, *, allow_zero: bool = False) -> None:
        super().__init__(min=0, min_open=not allow_zero, max=_MAX_SECONDS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a value as click does, and reject `nan`, which click accepts."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds


def check_regex(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
    """Return the pattern or patterns if they are regular expressions for bytes, as a callback of an option."""
    pattern = ""
    try:
        for pattern in value if isinstance(value, tuple) else (value,):
            re.compile(os.fsencode(pattern))
    except (re.error, ValueError, OverflowError) as e:
        raise click.BadParameter(f"{pattern!r} is no regular expression: {e}.") from e
    return value


def check_not_empty(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths if none is empty (such as an unset variable), as a callback of an option."""
    if "" in value:
        raise click.BadParameter("a path is empty.")
    return value


def supervision_options(prefix: str) -> Callable[[F], F]:
    """Return a decorator that adds these options. `make_supervision_options` takes their values."""

    def decorate(function: F) -> F:
        decorated: Any = function
        for option in reversed(_options(prefix)):
            decorated = option(decorated)
        result: F = decorated
        return result

    return decorate


NATURAL = functools.partial(click.IntRange, min=0)


def _options(prefix: str) -> tuple[Callable[[F], F], ...]:
    def option(*names: str, **settings: Any) -> Callable[[F], F]:
        variable = f"{prefix}_{names[-1].lstrip('-').upper().replace('-', '_')}"
        return click.option(*names, envvar=variable, show_envvar=True, **settings)

    return (*_check_options(option), *_restart_options(option), *_output_options(option))


def _check_options(option: Callable[..., Callable[[F], F]]) -> tuple[Callable[[F], F], ...]:
    return (
        option("--check", is_flag=True, help="Look at every node first, and leave out those that fail."),
        option(
            "--check-path",
            metavar="PATH",
            callback=check_not_empty,
            multiple=True,
            help="What must exist on every node; implies --check.",
        ),
        option(
            "--check-room",
            metavar="MB",
            type=NATURAL(),
            default=100,
            show_default=True,
            help="What must be free in /tmp, for --check.",
        ),
        option(
            "--check-timeout",
            metavar="SECONDS",
            type=Seconds(),
            default=5.0,
            show_default=True,
            help="How long each look at a node may take.",
        ),
    )


def _restart_options(option: Callable[..., Callable[[F], F]]) -> tuple[Callable[[F], F], ...]:
    return (
        option(
            "--max-restarts",
            metavar="N",
            type=NATURAL(max=_MAX_RESTARTS),
            default=0,
            help="Start COMMAND again when it fails, at most N times, without the node that is to blame.",
        ),
        option(
            "--progress-regex",
            metavar="REGEX",
            callback=check_regex,
            default="step[=:]",
            show_default=True,
            help="What COMMAND prints when it gets on; two attempts without it are enough.",
        ),
    )


def _output_options(option: Callable[..., Callable[[F], F]]) -> tuple[Callable[[F], F], ...]:
    return (
        option("--idle-timeout", metavar="SECONDS", type=Seconds(), help="End COMMAND when it is silent for so long."),
        option(
            "--grace",
            metavar="SECONDS",
            type=Seconds(allow_zero=True),
            default=10.0,
            show_default=True,
            help="How long COMMAND may take to end when it is asked to.",
        ),
        option("--log-dir", metavar="DIR", type=click.Path(), help="Keep a log of every attempt, and a summary."),
        option(
            "--filter",
            metavar="REGEX",
            callback=check_regex,
            multiple=True,
            help="Do not show what matches; logs have it.",
        ),
        option("--no-filter", is_flag=True, help="Show every line."),
        option("--pty", is_flag=True, help="Give COMMAND a terminal, for colours and progress bars."),
    )


def make_supervision_options(options: dict[str, Any], planned: LaunchPlan) -> SupervisionOptions:
    """Return the supervision that the options and the site of the plan request.

    The noise of the site is not hidden if a local command prints to a terminal, which it has for itself.
    """
    from ezpz.launch.execute.options import MonitorOptions, SupervisionOptions

    restarts = options["max_restarts"] > 0
    local = planned.started_by.is_local and sys.stdout.isatty()
    monitor = MonitorOptions(
        idle=options["idle_timeout"],
        grace=options["grace"],
        pty=options["pty"],
        labels=restarts or options["log_dir"] is not None,
        noise=() if options["no_filter"] else (*(() if local else planned.site.noise), *options["filter"]),
        progress=options["progress_regex"],
        failures=planned.site.failures if restarts else (),
        end_when_lost=restarts,
    )
    check = _make_check_request(options, planned) if options["check"] or options["check_path"] else None
    return SupervisionOptions(monitor, options["max_restarts"], check, options["log_dir"])


def _make_check_request(options: dict[str, Any], planned: LaunchPlan) -> CheckRequest:
    from ezpz.launch.execute.node_checks import CheckRequest, absolute_paths

    environment, command = planned.facts.environment, planned.request.command
    program: str | None = (environment.resolve_command(command, planned.facts.exists) if environment else command)[0]
    copy = environment.prefix if environment and environment.is_copy else None
    if not os.path.isabs(str(program)):
        found = None if copy else shutil.which(str(program))  # PATH in a copy is known only on the nodes
        program = os.path.abspath(found) if found else None
    return CheckRequest(
        programs=absolute_paths((program,)),
        paths=absolute_paths([*map(os.path.abspath, options["check_path"]), copy]),
        shared=(os.getcwd(),),
        room=options["check_room"] * 1_000_000,
        timeout=options["check_timeout"],
    )
