"""`ezpz launch`: options -> LaunchRequest, Question and Care; everything else is elsewhere."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ezpz.cli.options import node_options
from ezpz.cli.output import Output, output_options
from ezpz.launch.cli.options import PREFIX, LaunchCommand, option, place_options, theirs, topology_options
from ezpz.launch.cli.supervision_options import care_of, watch_options

if TYPE_CHECKING:
    from ezpz.cli.preparation import Prepared
    from ezpz.cluster.allocation import Node
    from ezpz.launch.execute.options import SupervisionOptions
    from ezpz.launch.plan.discover import LaunchContext
    from ezpz.launch.plan.plan import LaunchPlan


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
    yeeting = YeetHook(output, options) if options["yeet_first"] else None
    outlook = _look(command, theirs(ctx), options, yeeting.planned() if yeeting else None)
    planned = outlook.plan()
    if yeeting and not options["dry_run"]:
        prepared = yeeting.done(_fewest(planned), of=len(outlook.allocation.nodes))
        if prepared.exit_code:
            output.note("nothing was launched")
            output.document(prepared.document or {})
            ctx.exit(prepared.exit_code)
        outlook = _look(command, theirs(ctx), options, prepared)
        planned = outlook.plan()
    _tell(planned, output)
    care = care_of(options, planned)
    if options["dry_run"]:
        _show(planned.labelled() if care.watching.labels else planned, output, yeeting)
        return
    ctx.exit(_run(outlook, planned, care, output))


def _show(planned: LaunchPlan, output: Output, yeeting: YeetHook | None) -> None:
    """What would be run; a yeet that comes first as the line that does it."""
    for line in (*((f"first     {yeeting.line}",) if yeeting else ()), *planned.to_lines()):
        output.line(line)
    output.document(planned.to_dict())


def _fewest(planned: LaunchPlan) -> int:
    """With how many nodes the run can do."""
    nhosts = planned.request.wish.nhosts
    return nhosts.least if nhosts else planned.topology.nodes


def _run(outlook: LaunchContext, planned: LaunchPlan, care: SupervisionOptions, output: Output) -> int:
    """Run it, watched if anything was asked for that needs it; the exit status."""
    if not care.is_plain:
        from ezpz.launch.execute.supervisor import supervise, surroundings

        outlook = replace(outlook, environ=surroundings(care, outlook.environ))
        return supervise(care, outlook.allocation, outlook.replan, outlook.plan(), output)
    from ezpz.launch.execute.run import execute

    stdout = sys.stderr.fileno() if output.json else None
    status = execute(planned, environ=os.environ, stdout=stdout, grace=care.watching.grace)
    output.document({**planned.to_dict(), "exit_code": status})
    return status


class YeetHook:
    """The yeet that comes first. Its nodes are those of the launch; all else is as the variables of `ezpz yeet` say."""

    def __init__(self, output: Output, options: dict[str, Any]) -> None:
        self.output = output
        self.args = [f"--hsn={options['hsn']}"]
        if options["env"] is not None:
            self.args.append(f"--dst={options['env']}")
        if options["exclude"]:
            self.args.append(f"--hosts={','.join(node.given for node in _nodes(options))}")
        else:
            self.args += [f"--{name}={options[name]}" for name in ("hosts", "hostfile") if options[name] is not None]

    @property
    def line(self) -> str:
        """What would be typed."""
        return shlex.join(("ezpz", "yeet", "env", *self.args))

    def planned(self) -> Prepared:
        """Where to, and from where; nothing is moved."""
        return self._prepare(dry_run=True)

    def done(self, fewest: int, *, of: int) -> Prepared:
        """Yeet. The run can do with `fewest` nodes, so the yeet can as well, unless its own variables say more."""
        if fewest < of and not any(os.environ.get(f"EZPZ_YEET_MIN_SUCCESS_{kind}") for kind in ("NODES", "FRACTION")):
            self.args.append(f"--min-success-nodes={fewest}")
        return self._prepare(dry_run=False)

    def _prepare(self, *, dry_run: bool) -> Prepared:
        from ezpz.cli.preparation import PREPARATIONS

        return PREPARATIONS.load("yeet")(self.output, self.args, dry_run=dry_run)


def _nodes(options: dict[str, Any]) -> tuple[Node, ...]:
    """The nodes without those that are excluded."""
    from ezpz.cluster.detect import detect
    from ezpz.launch.plan.usable_nodes import choose

    allocation = detect(hosts=options["hosts"], hostfile=options["hostfile"], hsn="off", environ=os.environ)
    return choose(allocation, exclude=options["exclude"]).allocation.nodes


def _look(
    command: tuple[str, ...], launchers: tuple[str, ...], options: dict[str, Any], prepared: Prepared | None
) -> LaunchContext:
    from ezpz.launch.plan.discover import PlacementOptions, look
    from ezpz.launch.plan.plan import LaunchRequest
    from ezpz.launch.plan.topology import RankRequest

    failed = prepared.failed if prepared else None
    wish = RankRequest(*(options[name] for name in ("nproc", "ppn", "nhosts", "spares", "gpus_per_rank")))
    if failed:  # they were spares
        wish = replace(wish, spares=max(0, wish.spares - len(failed)))
    request = LaunchRequest(command, wish, options["cpu_bind"], launchers, options["launcher"])
    question = PlacementOptions(
        options["hosts"],
        options["hostfile"],
        options["hsn"],
        options["exclude"],
        prepared.destination if prepared else options["env"],
        original=prepared.original if prepared else "",
        failed=failed,
        site=options["site"],
    )
    return look(request, question, os.environ)


def _tell(planned: LaunchPlan, output: Output) -> None:
    for warning in (*planned.job.allocation.warnings, *planned.warnings):
        output.warn(warning)
    for line in (*planned.job.allocation.evidence, *planned.evidence, f"{planned.launcher}: {planned.reason}"):
        output.detail(line)
