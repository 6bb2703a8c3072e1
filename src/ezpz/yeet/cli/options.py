"""Options as the commands of `ezpz yeet` have them: each with an environment variable of its name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ezpz.cli.options import exclusive

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")
PREFIX = "EZPZ_YEET"


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """A click option with the environment variable EZPZ_YEET_… of its name, shown in --help."""
    long = next(name for name in names if name.startswith("--"))
    settings.setdefault("envvar", f"{PREFIX}_{long.lstrip('-').upper().replace('-', '_')}")
    return click.option(*names, show_envvar=True, **settings)


def excludes(*others: str) -> Any:
    """A callback for an option that excludes others, by parameter name."""
    return lambda ctx, param, value: exclusive(ctx, param, value, *others)


def transport_option() -> Callable[[F], F]:
    """--transport, which several commands have."""
    return option(
        "--transport",
        type=click.Choice(["auto", "ssh", "srun"]),
        default="auto",
        show_default=True,
        help="What starts things on the nodes; auto is srun inside a Slurm job, else ssh.",
    )


class Finite(click.FloatRange):
    """A number in a range; nan is in none and inf is no number of seconds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number
