"""`ezpz launch`: options -> LaunchRequest, Question and Care; everything else is elsewhere."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ezpz.cli.options import node_options
from ezpz.cli.output import Output, output_options
from ezpz.launch.options import PREFIX, LaunchCommand, option, place_options, theirs, topology_options
from ezpz.launch.watch_options import care_of, watch_options

if TYPE_CHECKING:
    from ezpz.cli.preparation import Prepared
    from ezpz.cluster.model import Node
    from ezpz.launch.care import Care
    from ezpz.launch.look import Outlook
    from ezpz.launch.plan import LaunchPlan
    from ezpz.launch.topology import NodeCount


@click.command(
    cls=LaunchCommand,
    context_settings={"allow_interspersed_args": False},
    short_help="Run a command on every node of the job.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGS]...")
@topology_options
@node_options(PREFIX)
@place_options
@watch_options(PREFIX)
@option("--dry-run", is_flag=True, envvar=f"{PREFIX}_DRY_RUN", help="Show what would be run, and run nothing.")
@output_options(PREFIX)
@click.pass_context
def launch(ctx: click.Context, /, command: tuple[str, ...], *, output: Output, **options: Any) -> None:
    """Run COMMAND on every node of the job, through srun, PALS, MPICH or Open MPI, or right here without a scheduler.

    Its exit status is COMMAND's. With --json the document comes when COMMAND has ended, and what COMMAND prints goes to
    stderr. What stands after COMMAND is COMMAND's, also what looks like an option of ours. An option that ezpz does not
    know goes to the launcher, if `--` stands before COMMAND.

    \b
    Examples:
      ezpz launch python train.py                one rank for each accelerator
      ezpz launch --yeet -- python3 -m my_app.train
      ezpz launch -n 4 --hosts n[1-2] -- ./a.out --verbose
      ezpz launch --ppn 4 --no-vni --depth 8 -- ./a.out
      ezpz launch --dry-run python train.py      which line, and why
    """
    prepared = _prepare(output, options) if options["yeet_first"] else None
    if prepared is not None and prepared.exit_code:
        output.note("nothing was launched")
        output.document(prepared.document or {})
        ctx.exit(prepared.exit_code)
    outlook = _look(command, theirs(ctx), options, prepared)
    planned = outlook.plan()
    _tell(planned, output)
    if options["dry_run"]:
        for line in planned.to_lines():
            output.line(line)
        output.document(planned.to_dict())
        return
    ctx.exit(_run(outlook, planned, care_of(options, planned), output))


def _run(outlook: Outlook, planned: LaunchPlan, care: Care, output: Output) -> int:
    """Run it, watched if anything was asked for that needs it; the exit status."""
    if not care.is_plain:
        from ezpz.launch.supervise import supervise, surroundings

        outlook = replace(outlook, environ=surroundings(care, outlook.environ))
        return supervise(care, outlook.allocation, outlook.replan, outlook.plan(), output)
    from ezpz.launch.run import execute

    stdout = sys.stderr.fileno() if output.json else None
    status = execute(planned, environ=os.environ, stdout=stdout, grace=care.watching.grace)
    output.document({**planned.to_dict(), "exit_code": status})
    return status


def _prepare(output: Output, options: dict[str, Any]) -> Prepared:
    """Yeet first. The nodes are those of the launch; all else is as the variables of `ezpz yeet` say."""
    from ezpz.cli.preparation import PREPARATIONS

    args = [f"--hsn={options['hsn']}"]
    if options["env"] is not None:
        args.append(f"--dst={options['env']}")
    if options["exclude"]:
        args.append(f"--hosts={','.join(node.given for node in _nodes(options))}")
    else:
        args += [f"--{name}={options[name]}" for name in ("hosts", "hostfile") if options[name] is not None]
    if (options["spares"] or options["nhosts"]) and not any(os.environ.get(name) for name in _THRESHOLDS):
        args.append(f"--min-success-nodes={_needed(options)}")
    return PREPARATIONS.load("yeet")(output, args, dry_run=options["dry_run"])


_THRESHOLDS = ("EZPZ_YEET_MIN_SUCCESS_NODES", "EZPZ_YEET_MIN_SUCCESS_FRACTION")


def _needed(options: dict[str, Any]) -> int:
    """On how many nodes a yeet must succeed: all but the spares, which may take the place of those where it fails."""
    count, spares = len(_nodes(options)), int(options["spares"])
    nhosts: NodeCount | None = options["nhosts"]
    return max(1, min(nhosts.least, count) if nhosts else count - spares)


def _nodes(options: dict[str, Any]) -> tuple[Node, ...]:
    """The nodes without those that are excluded."""
    from ezpz.cluster.detect import detect
    from ezpz.launch.roster import choose

    allocation = detect(hosts=options["hosts"], hostfile=options["hostfile"], hsn="off", environ=os.environ)
    return choose(allocation, exclude=options["exclude"]).allocation.nodes


def _look(
    command: tuple[str, ...], launchers: tuple[str, ...], options: dict[str, Any], prepared: Prepared | None
) -> Outlook:
    from ezpz.launch.look import Question, look
    from ezpz.launch.plan import LaunchRequest
    from ezpz.launch.topology import Wish

    wish = Wish(*(options[name] for name in ("nproc", "ppn", "nhosts", "spares", "gpus_per_rank")))
    request = LaunchRequest(command, wish, options["cpu_bind"], launchers)
    question = Question(
        options["hosts"],
        options["hostfile"],
        options["hsn"],
        options["exclude"],
        prepared.destination if prepared else options["env"],
        original=prepared.original if prepared else "",
        failed=prepared.failed if prepared and not options["dry_run"] else None,
        site=options["site"],
    )
    return look(request, question, os.environ)


def _tell(planned: LaunchPlan, output: Output) -> None:
    for warning in (*planned.job.allocation.warnings, *planned.warnings):
        output.warn(warning)
    for line in (*planned.job.allocation.evidence, *planned.evidence, f"{planned.launcher}: {planned.reason}"):
        output.detail(line)
