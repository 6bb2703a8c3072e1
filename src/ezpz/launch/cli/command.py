"""Command `ezpz launch`: converts options to a LaunchRequest, PlacementOptions, and SupervisionOptions."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ezpz.cli.options import node_options
from ezpz.cli.output import Output, output_options
from ezpz.launch.cli.options import PREFIX, LaunchCommand, launcher_options, option, place_options, topology_options
from ezpz.launch.cli.supervision_options import make_supervision_options, supervision_options

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
@supervision_options(PREFIX)
@option("--dry-run", is_flag=True, envvar=f"{PREFIX}_DRY_RUN", help="Show what would be run, and run nothing.")
@output_options(PREFIX)
@click.pass_context
def launch(ctx: click.Context, /, command: tuple[str, ...], *, output: Output, **options: Any) -> None:
    """Run COMMAND on every node of the job, through srun, PALS, MPICH or Open MPI, or right here without a scheduler.

    Its exit status is COMMAND's. With --json the document comes when COMMAND has ended, and what COMMAND prints goes to
    stderr. What follows COMMAND is COMMAND's, also what looks like an option of ours. An option that ezpz does not
    know goes to the launcher, if `--` precedes COMMAND.

    \b
    Examples:
      ezpz launch python train.py                one rank for each accelerator
      ezpz launch --yeet -- python3 -m my_app.train
      ezpz launch -n 4 --hosts n[1-2] -- ./a.out --verbose
      ezpz launch --ppn 4 --no-vni --depth 8 -- ./a.out
      ezpz launch --dry-run python train.py      which line, and why
    """
    hook = YeetHook(output, options) if options["yeet_first"] else None
    context = _discover(command, launcher_options(ctx), options, hook.planned() if hook else None)
    planned = context.plan()
    if hook and not options["dry_run"]:
        prepared = hook.run(_fewest(planned), of=len(context.allocation.nodes))
        if prepared.exit_code:
            output.note("nothing was launched")
            output.document(prepared.document or {})
            ctx.exit(prepared.exit_code)
        context = _discover(command, launcher_options(ctx), options, prepared)
        planned = context.plan()
    _report_plan(planned, output)
    supervision = make_supervision_options(options, planned)
    if options["dry_run"]:
        _show(planned.with_labels() if supervision.monitor.labels else planned, output, hook)
        return
    ctx.exit(_run(context, planned, supervision, output))


def _show(planned: LaunchPlan, output: Output, hook: YeetHook | None) -> None:
    """Print the plan, after the command line of the `ezpz yeet` that precedes it."""
    for line in (*((f"first     {hook.line}",) if hook else ()), *planned.to_lines()):
        output.line(line)
    output.document(planned.to_dict())


def _fewest(planned: LaunchPlan) -> int:
    """Return the number of nodes that the run needs."""
    nhosts = planned.request.rank_request.nhosts
    return nhosts.minimum if nhosts else planned.topology.nodes


def _run(context: LaunchContext, planned: LaunchPlan, supervision: SupervisionOptions, output: Output) -> int:
    """Run the plan, supervised if an option needs it, and return the exit status."""
    if not supervision.is_plain:
        from ezpz.launch.execute.supervisor import supervise, supervised_environment

        context = replace(context, environ=supervised_environment(supervision, context.environ))
        return supervise(supervision, context.allocation, context.replan, context.plan(), output)
    from ezpz.launch.execute.run import execute

    stdout = sys.stderr.fileno() if output.json else None
    status = execute(planned, environ=os.environ, stdout=stdout, grace=supervision.monitor.grace)
    output.document({**planned.to_dict(), "exit_code": status})
    return status


class YeetHook:
    """The `ezpz yeet` before the launch, on the same nodes. Its other options come from its own variables."""

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
        """The command line."""
        return shlex.join(("ezpz", "yeet", "env", *self.args))

    def planned(self) -> Prepared:
        """Return the source and the destination. Nothing is copied."""
        return self._prepare(dry_run=True)

    def run(self, min_nodes: int, *, of: int) -> Prepared:
        """Run it. Like the launch, it needs `min_nodes` of the nodes, unless its own variables set another minimum."""
        if min_nodes < of and not any(
            os.environ.get(f"EZPZ_YEET_MIN_SUCCESS_{kind}") for kind in ("NODES", "FRACTION")
        ):
            self.args.append(f"--min-success-nodes={min_nodes}")
        return self._prepare(dry_run=False)

    def _prepare(self, *, dry_run: bool) -> Prepared:
        from ezpz.cli.preparation import PREPARATIONS

        return PREPARATIONS.load("yeet")(self.output, self.args, dry_run=dry_run)


def _nodes(options: dict[str, Any]) -> tuple[Node, ...]:
    """Return the nodes without the excluded ones."""
    from ezpz.cluster.detect_nodes import detect_nodes
    from ezpz.launch.plan.usable_nodes import choose_nodes

    allocation = detect_nodes(hosts=options["hosts"], hostfile=options["hostfile"], hsn="off", environ=os.environ)
    return choose_nodes(allocation, exclude=options["exclude"]).allocation.nodes


def _discover(
    command: tuple[str, ...], launchers: tuple[str, ...], options: dict[str, Any], prepared: Prepared | None
) -> LaunchContext:
    from ezpz.launch.plan.discover import PlacementOptions, discover
    from ezpz.launch.plan.plan import LaunchRequest
    from ezpz.launch.plan.topology import RankRequest

    failed = prepared.failed if prepared else None
    rank_request = RankRequest(*(options[name] for name in ("nproc", "ppn", "nhosts", "spares", "gpus_per_rank")))
    if failed:  # they would have been spares
        rank_request = replace(rank_request, spares=max(0, rank_request.spares - len(failed)))
    request = LaunchRequest(command, rank_request, options["cpu_bind"], launchers, options["launcher"])
    placement = PlacementOptions(
        options["hosts"],
        options["hostfile"],
        options["hsn"],
        options["exclude"],
        prepared.destination if prepared else options["env"],
        original=prepared.original if prepared else "",
        failed=failed,
        site=options["site"],
    )
    return discover(request, placement, os.environ)


def _report_plan(planned: LaunchPlan, output: Output) -> None:
    for warning in (*planned.spec.allocation.warnings, *planned.warnings):
        output.warn(warning)
    for line in (*planned.spec.allocation.evidence, *planned.evidence, f"{planned.launcher}: {planned.reason}"):
        output.detail(line)
