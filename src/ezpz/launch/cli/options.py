"""Options of `ezpz launch`, and the command class that splits its command line."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ezpz.cli.complete import complete_hosts
from ezpz.launch.cli.arguments import split_command_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.launch.plan.topology import NodeCount

PREFIX = "EZPZ_LAUNCH"
POSITIVE = click.IntRange(min=1)
_LAUNCHER_OPTIONS = "ezpz.launch.cli.options"

F = TypeVar("F", bound="Callable[..., Any]")
option = functools.partial(click.option, show_envvar=True)


class LaunchCommand(click.Command):
    """A command that accepts options of the launcher before `--`; see `launcher_options`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        line = split_command_line(args, self._own(ctx))
        ctx.meta[_LAUNCHER_OPTIONS] = line.launcher_options
        return super().parse_args(ctx, [*line.our_options, *(("--", *line.command) if line.command else ())])

    def _own(self, ctx: click.Context) -> dict[str, int]:
        """Return all names of the options of ezpz, each with its number of values."""
        found = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option):
                values = 0 if param.is_flag or param.count else param.nargs
                found.update(dict.fromkeys((*param.opts, *param.secondary_opts), values))
        return found


def launcher_options(ctx: click.Context) -> tuple[str, ...]:
    """Return the options of the launcher before `--` in their order."""
    words: tuple[str, ...] = ctx.meta.get(_LAUNCHER_OPTIONS, ())
    return words


def node_count(_ctx: click.Context, _param: click.Parameter, value: str | None) -> NodeCount | None:
    """Convert N or MIN:MAX to a NodeCount, as a callback of click. Raise click.BadParameter."""
    from ezpz.launch.plan.topology import NodeCount

    if value is None:
        return None
    minimum, colon, maximum = value.partition(":")
    numbers = (minimum, maximum if colon else minimum)
    if not all(number.isascii() and number.isdigit() and int(number) > 0 for number in numbers):
        raise click.BadParameter(f"{value!r} is neither a number of nodes nor MIN:MAX")
    if int(numbers[0]) > int(numbers[1]):
        raise click.BadParameter(f"{value!r}: {numbers[0]} > {numbers[1]}")
    return NodeCount(int(numbers[0]), int(numbers[1]))


def topology_options(function: F) -> F:
    """Add the options about the number of ranks: nproc, ppn, nhosts, spares, gpus_per_rank, cpu_bind."""
    decorated: Any = function
    for each in reversed(_TOPOLOGY):
        decorated = each(decorated)
    result: F = decorated
    return result


_TOPOLOGY = (
    option(
        "-n",
        "--nproc",
        "-np",
        "--np",
        metavar="N",
        type=POSITIVE,
        envvar=f"{PREFIX}_NPROC",
        help="Ranks in all.  [default: nodes x ppn]",
    ),
    option(
        "--ppn",
        "-ppn",
        "--nproc_per_node",
        "--nproc-per-node",
        metavar="N",
        type=POSITIVE,
        envvar=f"{PREFIX}_PPN",
        help="Ranks a node.  [default: what -n makes of it, or one for each accelerator]",
    ),
    option(
        "--nhosts",
        "-nh",
        "--nnodes",
        metavar="N|MIN:MAX",
        callback=node_count,
        envvar=f"{PREFIX}_NHOSTS",
        help="Run on so many nodes; the others are spares.  [default: all]",
    ),
    option(
        "--spares",
        metavar="K",
        type=click.IntRange(min=0),
        default=0,
        envvar=f"{PREFIX}_SPARES",
        help="Keep K nodes back as spares.",
    ),
    option(
        "--gpus-per-rank",
        metavar="N",
        type=POSITIVE,
        envvar=f"{PREFIX}_GPUS_PER_RANK",
        help="Accelerators that each rank gets for itself.",
    ),
    option(
        "--cpu-bind",
        metavar="HOW",
        envvar=f"{PREFIX}_CPU_BIND",
        help="How ranks are bound to cores, in the launcher's own words.  [default: CPU_BIND, or the site's]",
    ),
)


def place_options(function: F) -> F:
    """Add the options about nodes, environment, site, and launcher."""
    decorated: Any = function
    for each in reversed(_PLACE):
        decorated = each(decorated)
    result: F = decorated
    return result


_PLACE = (
    option(
        "--exclude",
        metavar="NODESET",
        multiple=True,
        envvar=f"{PREFIX}_EXCLUDE",
        shell_complete=complete_hosts,
        help="Nodes to leave out; may be repeated.",
    ),
    option(
        "--env",
        metavar="DST",
        type=click.Path(),
        envvar=f"{PREFIX}_ENV",
        help="The copy of an environment that a yeet has put on the nodes.  [default: the active environment]",
    ),
    option(
        "--yeet",
        "yeet_first",
        is_flag=True,
        envvar=f"{PREFIX}_YEET",
        help="Yeet the active environment first, to --env if that is given, and run from the copy.",
    ),
    option("--site", metavar="NAME", envvar=f"{PREFIX}_SITE", help="The machine.  [default: by host name]"),
    option(
        "--launcher",
        metavar="NAME",
        envvar=f"{PREFIX}_LAUNCHER",
        help="What starts the ranks: srun, pals, hydra, openmpi or local.  [default: the first of them that can]",
    ),
)
