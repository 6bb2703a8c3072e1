"""`ezpz yeet status` and `ezpz yeet clean`: click only."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ezpz.cli.options import node_options
from ezpz.cli.output import Output, output_options
from ezpz.yeet.cli.options import PREFIX, excludes, option, transport_option

if TYPE_CHECKING:
    from ezpz.cluster.allocation import Allocation

DESTINATION = click.argument("dst", required=False, type=click.Path(), envvar=f"{PREFIX}_DST")


@click.command("status")
@DESTINATION
@option(
    "--verify",
    is_flag=True,
    callback=excludes("leaks", "watch"),
    help="Read every file, on all nodes at once, and list what differs.",
)
@option(
    "--leaks",
    is_flag=True,
    callback=excludes("verify", "watch"),
    help="What still points at a shared filesystem, on one node.",
)
@option(
    "--watch",
    is_flag=True,
    callback=excludes("verify", "leaks"),
    help="Follow a run that is under way, until it ends.",
)
@node_options(PREFIX)
@transport_option()
@output_options(PREFIX)
@click.pass_context
def status_command(
    ctx: click.Context, /, *, dst: str | None, verify: bool, leaks: bool, watch: bool, output: Output, **where: Any
) -> None:
    """Tell what stands at DST on every node: exit 0 only if every node is current.

    Without DST: every yeet under the usual places on each node, such as /tmp and TMPDIR. A node is current, stale
    (another version is newer, or the source has changed since), modified (not as it was published), partial, absent,
    foreign (nothing of ours) or unreachable. With --leaks: run the environment's python on one node and list what it
    still uses of a shared filesystem, with what to do about it; exit 0 only if nothing.

    \b
    Examples:
      ezpz yeet status                          what stands anywhere
      ezpz yeet status /tmp/torch --verify      is every byte as it was sent?
      ezpz yeet status --watch                  how far is the run in the other terminal?
      ezpz yeet status --leaks /tmp/torch
      ezpz yeet status --json | jq '.destinations[].nodes[] | select(.state != "current")'
    """
    from ezpz.cluster.detect import detect
    from ezpz.yeet.cli import show_status

    transport = where.pop("transport")
    destination = None if dst is None else os.path.abspath(dst)
    if leaks:
        ctx.exit(_leaks(output, destination, transport, where))
    allocation = detect(**where, environ=os.environ)
    show_status.show_allocation(output, allocation)
    how = (allocation.nodes, destination or "", os.environ, transport_of(transport, allocation))
    if watch:
        from ezpz.yeet.cli.live_progress import Watch
        from ezpz.yeet.inventory.progress import watch_runs

        with Watch(output) as shown:
            report = watch_runs(*how, shown)
    else:
        from ezpz.yeet.inventory.status import ask

        report = ask(*how, verify=verify)
    show_status.show_status(output, report, verify=verify)
    ctx.exit(report.exit_code)


def _leaks(output: Output, destination: str | None, wanted: str, where: dict[str, Any]) -> int:
    from ezpz.cluster.detect import detect
    from ezpz.yeet.cli import show_status
    from ezpz.yeet.inventory.leaks import find_leaks
    from ezpz.yeet.model.source import default_destination
    from ezpz.yeet.source.inspect import active_environment, inspect

    place = destination or default_destination(inspect(active_environment(os.environ)))
    allocation = detect(**where, environ=os.environ)
    found = find_leaks(allocation, place, os.environ, transport_of(wanted, allocation))
    show_status.show_leaks(output, allocation, found)
    return found.exit_code


def transport_of(wanted: str, allocation: Allocation) -> str:
    """What starts things on the nodes; as for a run. Raises UsageError."""
    from ezpz.remote.transports import TRANSPORTS, usable
    from ezpz.yeet.model.plan import Request, transport_choice

    return transport_choice(Request(transport=wanted), allocation, tuple(TRANSPORTS), usable(os.environ)).name


@click.command("clean")
@DESTINATION
@option(
    "--keep",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Keep the N newest versions: at DST, or without DST of each source.",
)
@option("--yes", is_flag=True, callback=excludes("dry_run"), help="Remove without asking.")
@option("--dry-run", is_flag=True, callback=excludes("yes"), help="Show what would be removed, and remove nothing.")
@node_options(PREFIX)
@transport_option()
@output_options(PREFIX)
@click.pass_context
def clean_command(
    ctx: click.Context, /, *, dst: str | None, keep: int, yes: bool, dry_run: bool, output: Output, **where: Any
) -> None:
    """Remove from every node what ezpz put at DST, and what dead runs left there.

    Without DST: every yeet under the usual places on each node, such as /tmp and TMPDIR. Only what a receipt, or the
    name of a staging directory, proves to be yours goes, and nothing that a run holds. It shows what would go, and
    asks; where nobody can be asked it removes nothing and exits with 2, unless --yes is given.

    \b
    Examples:
      ezpz yeet clean                           all that was ever put there
      ezpz yeet clean /tmp/torch --yes
      ezpz yeet clean --keep 1                  older versions of each source, wherever they stand
      ezpz yeet clean --dry-run --json
    """
    from ezpz.cluster.detect import detect
    from ezpz.yeet.cli import show_clean, show_status
    from ezpz.yeet.inventory import clean
    from ezpz.yeet.model.plan import new_run_id

    wanted = where.pop("transport")
    allocation = detect(**where, environ=os.environ)
    show_status.show_allocation(output, allocation)
    transport = transport_of(wanted, allocation)
    destination = "" if dst is None else os.path.abspath(dst)
    found = replace(clean.find_removable(allocation.nodes, destination, os.environ, transport, keep), dry=dry_run)
    show_clean.show_preview(output, found)
    if found.removals and not dry_run and (yes or show_clean.agreed(output, found)):
        found = clean.remove(found, new_run_id(), transport)
    show_clean.show_outcome(output, found)
    ctx.exit(found.exit_code)
