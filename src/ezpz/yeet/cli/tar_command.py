"""Command `ezpz yeet tar`."""

from __future__ import annotations

import os
from typing import Any

import click
from click.core import ParameterSource

from ezpz.cli.output import Output, output_options
from ezpz.errors import Interrupted
from ezpz.yeet.cli.options import PREFIX, excludes, option

SOURCE = click.argument("src", metavar="[SRC]", required=False, type=click.Path(), envvar=f"{PREFIX}_SRC")


@click.command("tar")
@SOURCE
@click.option(
    "-o",
    "--output",
    "target",
    metavar="FILE",
    type=click.Path(),
    envvar=f"{PREFIX}_OUTPUT",
    show_envvar=True,
    callback=excludes("unpack"),
    help="The archive.  [default: NAME.tar.zst beside SRC]",
)
@option(
    "--format",
    type=click.Choice(["tar.zst", "tar.gz", "tar", "squashfs"]),
    callback=excludes("unpack"),
    help="What is made when the name of FILE does not tell.",
)
@option(
    "--level", metavar="N", type=int, callback=excludes("unpack"), help="How hard it is compressed; 1 is the fastest."
)
@option(
    "--base",
    type=click.Choice(["auto", "embed", "keep"]),
    default="auto",
    show_default=True,
    help="The base interpreter of a venv: embed it, keep it where it is, or (auto) embed it unless it is below /usr on "
    "this host's own disk. With --unpack: as in `ezpz yeet env`.",
)
@option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    callback=excludes("unpack"),
    help="Leave out what matches, as in `ezpz yeet env`.",
)
@option(
    "--unpack",
    metavar="FILE DST",
    nargs=2,
    type=click.Path(),
    callback=excludes("target", "format", "level", "exclude"),
    help="Unpack FILE to DST on this host, so that it works there.",
)
@output_options(PREFIX)
@click.pass_context
def tar_command(
    ctx: click.Context, /, *, output: Output, unpack: tuple[str, str] | None, target: str | None, **options: Any
) -> None:
    """Make the archive of SRC that `ezpz yeet FILE` takes; by default of EZPZ_YEET_SRC, or the active environment.

    If a good one of the same is there already, nothing is done.

    \b
    Examples:
      ezpz yeet tar                              NAME.tar.zst next to the active environment
      ezpz yeet tar /lus/me/envs/torch -o /lus/me/torch.tar.gz
      ezpz yeet tar --base embed --level 9       for another machine, and small
      ezpz yeet tar --unpack torch.tar.zst /tmp/torch
    """
    from ezpz.agent.common.cancel import Cancelled, CancelToken
    from ezpz.runtime.signals import cancel_on_signal
    from ezpz.yeet.cli.progress import ProgressDisplay
    from ezpz.yeet.cli.show_archive import show_archive
    from ezpz.yeet.pack.make import ArchiveRequest, make_archive

    if unpack is not None:
        if options["src"] and ctx.get_parameter_source("src") is ParameterSource.COMMANDLINE:
            raise click.UsageError("'SRC' and '--unpack' exclude each other.", ctx)
        ctx.exit(_unpack(output, *unpack, base=options["base"]))
    cancel = CancelToken()
    with cancel_on_signal(cancel.cancel) as received, ProgressDisplay(output) as display:
        try:
            archive = make_archive(ArchiveRequest(output=target, **options), os.environ, display, cancel)
        except (Cancelled, KeyboardInterrupt):
            raise Interrupted("interrupted; no archive was made", signal=received.first) from None
    show_archive(output, archive)


def _unpack(output: Output, archive: str, destination: str, *, base: str) -> int:
    """Copy an archive to this host alone, and return the exit code."""
    import random

    from ezpz.errors import UsageError
    from ezpz.yeet.cli.progress import ProgressDisplay
    from ezpz.yeet.cli.show_report import show_report
    from ezpz.yeet.model.plan import Request
    from ezpz.yeet.model.run_id import new_run_id
    from ezpz.yeet.pipeline.run import execute
    from ezpz.yeet.source.inspect import inspect_source

    if not inspect_source(archive).is_archive:
        raise UsageError(f"--unpack '{archive}' is no archive", hint="`ezpz yeet env` takes a directory")
    request = Request(src=archive, dst=os.path.abspath(destination), hosts="localhost", base=base)
    with ProgressDisplay(output) as display:
        report = execute(new_run_id(), request, os.environ, display, random.Random())  # noqa: S311 - nothing is drawn
    show_report(output, report)
    return report.exit_code
