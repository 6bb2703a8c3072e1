"""Options of the `ezpz yeet` commands, each with an environment variable named after it."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ezpz.cli.options import exclusive

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.cluster.allocation import Allocation

F = TypeVar("F", bound="Callable[..., Any]")
PREFIX = "EZPZ_YEET"


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """Return a click option with an environment variable EZPZ_YEET_… named after it, shown in --help."""
    long = next(name for name in names if name.startswith("--"))
    settings.setdefault("envvar", f"{PREFIX}_{long.lstrip('-').upper().replace('-', '_')}")
    return click.option(*names, show_envvar=True, **settings)


def excludes(*others: str) -> Any:
    """Return the callback of an option that excludes others, which are given by parameter name."""
    return lambda ctx, param, value: exclusive(ctx, param, value, *others)


destination_argument = click.argument("dst", required=False, type=click.Path(), envvar=f"{PREFIX}_DST")


def transport_option() -> Callable[[F], F]:
    """Return the option --transport."""
    return option(
        "--transport",
        type=click.Choice(["auto", "ssh", "srun"]),
        default="auto",
        show_default=True,
        help="What starts things on the nodes; auto is srun inside a Slurm job, else ssh.",
    )


def transport_name(choice: str, allocation: Allocation) -> str:
    """Return the name of the transport for a value of --transport, as a run chooses it. Raises UsageError."""
    from ezpz.remote.transports import TRANSPORTS, usable
    from ezpz.yeet.model.plan import Request, transport_choice

    return transport_choice(Request(transport=choice), allocation, tuple(TRANSPORTS), usable(os.environ)).name


class Finite(click.FloatRange):
    """Parameter type for a number in a range, without nan and inf."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail as click does."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number
