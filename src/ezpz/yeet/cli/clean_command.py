"""Command `ezpz yeet clean`."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import click

from ezpz.cli.options import node_options
from ezpz.cli.output import Output, output_options
from ezpz.yeet.cli.options import PREFIX, destination_argument, excludes, option, transport_name, transport_option


@click.command("clean")
@destination_argument
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
    asks; if there is no terminal it removes nothing and exits with 2, unless --yes is given.

    \b
    Examples:
      ezpz yeet clean                           all that was ever put there
      ezpz yeet clean /tmp/torch --yes
      ezpz yeet clean --keep 1                  older versions of each source, wherever they stand
      ezpz yeet clean --dry-run --json
    """
    from ezpz.cluster.detect_nodes import detect_nodes
    from ezpz.yeet.cli import show_clean, show_status
    from ezpz.yeet.inventory import clean
    from ezpz.yeet.model.run_id import new_run_id

    choice = where.pop("transport")
    allocation = detect_nodes(**where, environ=os.environ)
    show_status.show_allocation(output, allocation)
    transport = transport_name(choice, allocation)
    destination = "" if dst is None else os.path.abspath(dst)
    report = clean.find_removable(allocation.nodes, destination, os.environ, transport, keep)
    report = replace(report, dry_run=dry_run)
    show_clean.show_preview(output, report)
    if report.removals and not dry_run and (yes or show_clean.confirm_removal(output, report)):
        report = clean.remove(report, new_run_id(), transport)
    show_clean.show_outcome(output, report)
    ctx.exit(report.exit_code)
