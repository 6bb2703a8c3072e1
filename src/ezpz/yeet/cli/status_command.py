"""Command `ezpz yeet status`."""

from __future__ import annotations

import os
from typing import Any

import click

from ezpz.cli.options import node_options
from ezpz.cli.output import Output, output_options
from ezpz.yeet.cli.options import PREFIX, destination_argument, excludes, option, transport_name, transport_option


@click.command("status")
@destination_argument
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
    """Show the state of DST on every node. Exit with 0 only if every node is current.

    Without DST: every yeet under the usual places on each node, such as /tmp and TMPDIR. A node is current, stale
    (another version is newer, or the source has changed since), modified (not as it was published), partial, absent,
    `foreign` (not created by ezpz) or unreachable. With --leaks: run the environment's python on one node and list
    what it still uses of a shared filesystem, with what to do about it; exit 0 only if nothing.

    \b
    Examples:
      ezpz yeet status                          every copy on every node
      ezpz yeet status /tmp/torch --verify      is every byte as it was sent?
      ezpz yeet status --watch                  how far is the run in the other terminal?
      ezpz yeet status --leaks /tmp/torch
      ezpz yeet status --json | jq '.destinations[].nodes[] | select(.state != "current")'
    """
    from ezpz.cluster.detect_nodes import detect_nodes
    from ezpz.yeet.cli import show_status

    transport = where.pop("transport")
    destination = None if dst is None else os.path.abspath(dst)
    if leaks:
        ctx.exit(_show_leaks(output, destination, transport, where))
    allocation = detect_nodes(**where, environ=os.environ)
    show_status.show_allocation(output, allocation)
    query = (allocation.nodes, destination or "", os.environ, transport_name(transport, allocation))
    if watch:
        from ezpz.yeet.cli.watch_display import WatchDisplay
        from ezpz.yeet.inventory.progress import watch_runs

        with WatchDisplay(output) as display:
            report = watch_runs(*query, display)
    else:
        from ezpz.yeet.inventory.status import query_status

        report = query_status(*query, verify=verify)
    show_status.show_status(output, report, verify=verify)
    ctx.exit(report.exit_code)


def _show_leaks(output: Output, destination: str | None, transport: str, where: dict[str, Any]) -> int:
    """Find and print leaks, and return the exit code."""
    from ezpz.cluster.detect_nodes import detect_nodes
    from ezpz.yeet.cli.show_leaks import show_leaks
    from ezpz.yeet.inventory.leaks import find_leaks
    from ezpz.yeet.model.source import default_destination
    from ezpz.yeet.source.inspect import active_environment, inspect_source

    place = destination or default_destination(inspect_source(active_environment(os.environ)))
    allocation = detect_nodes(**where, environ=os.environ)
    found = find_leaks(allocation, place, os.environ, transport_name(transport, allocation))
    show_leaks(output, allocation, found)
    return found.exit_code
