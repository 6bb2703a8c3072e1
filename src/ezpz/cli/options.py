"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ezpz.cli.complete import complete_hosts

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def node_options(prefix: str) -> Callable[[F], F]:
    """Give a command --hosts, --hostfile and --hsn (function arguments `hosts`, `hostfile`: str | None, `hsn`: str).

    The names of their environment variables start with `prefix`. --hosts with --hostfile is a usage error, unless one
    is on the command line and the other in the environment: the command line wins.
    """

    def decorate(function: F) -> F:
        decorated: Any = function
        for option in reversed(_node_options(prefix)):
            decorated = option(decorated)
        result: F = decorated
        return result

    return decorate


def _node_options(prefix: str) -> tuple[Callable[[F], F], ...]:
    return (
        click.option(
            "--hosts",
            metavar="NODESET",
            envvar=f"{prefix}_HOSTS",
            show_envvar=True,
            callback=lambda ctx, param, value: exclusive(ctx, param, value, "hostfile"),
            shell_complete=complete_hosts,
            help="The nodes, for example n[001-016,020].",
        ),
        click.option(
            "--hostfile",
            type=click.Path(),
            envvar=f"{prefix}_HOSTFILE",
            show_envvar=True,
            callback=lambda ctx, param, value: exclusive(ctx, param, value, "hosts"),
            help="A file that names the nodes, one a line.",
        ),
        click.option(
            "--hsn",
            metavar="auto|off|SUFFIX",
            default="auto",
            show_default=True,
            envvar=f"{prefix}_HSN",
            show_envvar=True,
            help="Reach nodes by their high-speed names (n001-hsn0): where they answer, never, or by this suffix.",
        ),
    )


def exclusive(ctx: click.Context, param: click.Parameter, value: Any, *others: str) -> Any:
    """Return the value of an option that excludes the `others` (parameter names), in the callback of each of them.

    If two were given, the one on the command line wins over the one in the environment, which becomes None. Two on the
    command line, or two in the environment, raise click.UsageError with both options and values.
    """
    if value in (None, False, ()):
        return value
    for other in others:
        theirs = ctx.params.get(other)
        if theirs in (None, False, ()):
            continue
        if not _from_environment(ctx, str(param.name)) or _from_environment(ctx, other):
            second = next(p for p in ctx.command.params if p.name == other)
            raise click.UsageError(f"{_shown(second, theirs)} and {_shown(param, value)} exclude each other.", ctx)
        return None
    return value


def _from_environment(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT


def _shown(param: click.Parameter, value: object) -> str:
    name = param.opts[-1] if isinstance(param, click.Option) else param.human_readable_name.strip("[]")
    return f"'{name}'" if value is True else f"'{name} {value}'"
