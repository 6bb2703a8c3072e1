"""`ezpz launch`: options -> LaunchRequest; everything else is elsewhere."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from ezpz.cli.options import node_options
from ezpz.cli.output import Output, output_options
from ezpz.launch.watch_options import watch_options, wish_of

if TYPE_CHECKING:
    from ezpz.cluster.model import Allocation
    from ezpz.launch.plan import LaunchPlan

PREFIX = "EZPZ_LAUNCH"
_option = functools.partial(click.option, show_envvar=True)
_AT_LEAST_ONE = click.IntRange(min=1)


@click.command(
    context_settings={"allow_interspersed_args": False},
    short_help="Run a command on every node of the job.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGS]...")
@_option(
    "-n",
    "--nproc",
    metavar="N",
    type=_AT_LEAST_ONE,
    envvar=f"{PREFIX}_NPROC",
    help="Ranks in all.  [default: nodes x ppn]",
)
@_option(
    "--ppn",
    metavar="N",
    type=_AT_LEAST_ONE,
    envvar=f"{PREFIX}_PPN",
    help="Ranks a node.  [default: 1, or what -n makes of it]",
)
@node_options(PREFIX)
@watch_options(PREFIX)
@_option("--dry-run", is_flag=True, envvar=f"{PREFIX}_DRY_RUN", help="Show what would be run, and run nothing.")
@output_options(PREFIX)
@click.pass_context
def launch(ctx: click.Context, /, command: tuple[str, ...], *, output: Output, **options: Any) -> None:
    """Run COMMAND on every node of the job, through srun, PALS, MPICH or Open MPI, or right here without a scheduler.

    Its exit status is COMMAND's. With --json the document comes when COMMAND has ended, and what COMMAND prints goes to
    stderr. What stands after COMMAND is COMMAND's, also what looks like an option of ours.

    \b
    Examples:
      ezpz launch hostname                       one rank on every node
      ezpz launch --ppn 12 python train.py       twelve on every node
      ezpz launch -n 4 --hosts n[1-2] -- ./a.out --verbose
      ezpz launch --dry-run python train.py      which launcher, and why
    """
    from ezpz.launch.wish import first_nodes

    wish = wish_of(options, command)
    allocation = _allocation(options)
    replan = functools.partial(_plan, command, options)
    planned = replan(first_nodes(wish, allocation))
    _tell(planned, output)
    if options["dry_run"]:
        for line in planned.to_lines():
            output.line(line)
        output.document(planned.to_dict())
        return
    if not wish.is_plain:
        from ezpz.launch.supervise import supervise

        ctx.exit(supervise(wish, allocation, replan, planned, output))
    from ezpz.launch.run import execute

    stdout = sys.stderr.fileno() if output.json else None
    status = execute(planned, environ=os.environ, stdout=stdout, grace=wish.watching.grace)
    output.document({**planned.to_dict(), "exit_code": status})
    ctx.exit(status)


def _allocation(options: dict[str, Any]) -> Allocation:
    from ezpz.cluster.detect import detect

    return detect(hosts=options["hosts"], hostfile=options["hostfile"], hsn=options["hsn"], environ=os.environ)


def _plan(command: tuple[str, ...], options: dict[str, Any], allocation: Allocation) -> LaunchPlan:
    from ezpz.launch.plan import LaunchRequest, plan
    from ezpz.launch.run import PathTools

    request = LaunchRequest(command, options["nproc"], options["ppn"])
    return plan(request, allocation, PathTools(), environ=os.environ)


def _tell(planned: LaunchPlan, output: Output) -> None:
    for warning in planned.job.allocation.warnings:
        output.warn(warning)
    for line in (*planned.job.allocation.evidence, *planned.evidence, f"{planned.launcher}: {planned.reason}"):
        output.detail(line)
