"""Command `ezpz yeet env`, and the group of all `ezpz yeet` commands."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ezpz.cli.complete import complete_engines, complete_strategies
from ezpz.cli.deprecated import TAR_STRAYS, YEET_STRAYS, deprecation, without_stray
from ezpz.cli.group import DefaultGroup
from ezpz.cli.options import node_options
from ezpz.cli.output import Output, output_options
from ezpz.yeet.cli.clean_command import clean_command
from ezpz.yeet.cli.options import PREFIX, Finite, excludes, option, transport_option
from ezpz.yeet.cli.status_command import status_command
from ezpz.yeet.cli.tar_command import tar_command
from ezpz.yeet.model.run_id import new_run_id

if TYPE_CHECKING:
    from ezpz.yeet.model.plan import Request
    from ezpz.yeet.model.report import RunReport
    from ezpz.yeet.reporting.timeline import Timeline

SOURCE = click.argument("src_arg", metavar="[SRC]", required=False, type=click.Path(), callback=excludes("src"))


@click.group(cls=DefaultGroup, invoke_without_command=False, no_args_is_help=False)
def yeet() -> None:
    """Put an environment, a directory or an archive on the local disk of every node.

    `ezpz yeet [SRC]` is the same as `ezpz yeet env [SRC]`; a path that is named like a subcommand is written `./tar`.

    \b
    Examples:
      ezpz yeet                                 the active venv or conda environment
      ezpz yeet /lus/me/models/llama --dst /tmp/llama
      ezpz yeet env.tar.zst --min-success-fraction 0.9
      ezpz yeet --dry-run                       what would be done, and why
      ezpz yeet status                          the state on each node
      ezpz yeet clean                           remove it again
    """


@yeet.command("env")
@SOURCE
@option("--src", type=click.Path(), callback=excludes("src_arg"), help="What to put on the nodes; the same as SRC.")
@option("--dst", type=click.Path(), help="Where it goes on every node.  [default: /tmp/NAME]")
@node_options(PREFIX)
@option(
    "--strategy",
    metavar="NAME",
    callback=excludes("copy", "compress"),
    shell_complete=complete_strategies,
    help="How it is read here: direct, rsync, cp, compress, tarball or squashfs.",
)
@option("--copy", is_flag=True, callback=excludes("strategy", "compress"), help="Short for --strategy cp.")
@option("--compress", is_flag=True, callback=excludes("strategy", "copy"), help="Short for --strategy compress.")
@option(
    "--engine", metavar="NAME", shell_complete=complete_engines, help="How it gets to the other nodes: stream or rsync."
)
@transport_option()
@option("--encrypt", is_flag=True, help="Send nothing but through ssh, the data as well.")
@option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    help="Leave out what matches; may be repeated. Without a slash it matches any name, else the path from SRC.",
)
@option(
    "--min-success-nodes",
    metavar="N",
    type=click.IntRange(min=1),
    callback=excludes("min_success_fraction"),
    help="Succeed when at least N nodes have it.",
)
@option(
    "--min-success-fraction",
    metavar="F",
    type=Finite(0, 1, min_open=True),
    callback=excludes("min_success_nodes"),
    help="Succeed when at least this share of the nodes has it, as 0.9.",
)
@option(
    "--base",
    type=click.Choice(["auto", "embed", "keep"]),
    default="auto",
    show_default=True,
    help="The base interpreter of a venv: embed it, keep it where it is, or embed it unless every node has it.",
)
@option(
    "--editable",
    type=click.Choice(["snapshot", "keep", "refuse"]),
    default="snapshot",
    show_default=True,
    help="Editable installs: bring their code along, leave them where they are, or refuse them.",
)
@option(
    "--compile",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="Bytecode that is missing: make it once, before anything is sent, or never.",
)
@option("--orig-prefix", metavar="PATH", help="Where the environment in an archive stood, when that cannot be told.")
@option("--checksum", is_flag=True, help="Read all of SRC again, instead of trusting its sizes and times.")
@option("--skip-unreadable", is_flag=True, help="Leave out what you may not read, instead of refusing.")
@option("--public", is_flag=True, help="Let others read the copies as the modes in SRC say; else you alone can.")
@option("--replace", is_flag=True, help="Replace a directory at the destination that is not from an earlier yeet.")
@option(
    "--retries",
    metavar="N",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    envvar=[f"{PREFIX}_RETRIES", f"{PREFIX}_RSYNC_RETRIES"],
    help="Further attempts for a node that failed.",
)
@option(
    "--timeout",
    metavar="SECONDS",
    type=Finite(min=0),
    default=3600.0,
    show_default=True,
    envvar=[f"{PREFIX}_TIMEOUT", f"{PREFIX}_RSYNC_TIMEOUT"],
    help="End a copy to one node after this long; 0 for never.",
)
@option("--dry-run", is_flag=True, help="Print the plan and move nothing.")
@option(
    "--report",
    "report_path",
    metavar="FILE.html",
    type=click.Path(dir_okay=False, writable=True),
    help="Write a page about the run: what happened on every node, and when.",
)
@output_options(PREFIX)
@click.pass_context
def env_command(
    ctx: click.Context, /, *, output: Output, dry_run: bool, report_path: str | None, **options: Any
) -> None:
    """Put SRC on the local disk of every node of the job.

    SRC is a directory or an archive; by default the active venv or conda environment.

    \b
    Examples:
      ezpz yeet env
      ezpz yeet env /lus/me/envs/torch --hosts 'n[001-016]'
      ezpz yeet env --exclude '*.ipynb' --exclude tests
    """
    from ezpz.yeet.cli.show_report import show_report, suggest_archive
    from ezpz.yeet.reporting.html.page import check_report_path

    request = request_from(options)
    page_path = None if report_path is None else check_report_path(report_path)
    if request.src is None:
        suggest_archive(output, os.environ)
    if dry_run:
        _show_plan(output, request)
        return
    import random

    from ezpz.yeet.cli.progress import ProgressDisplay
    from ezpz.yeet.pipeline.run import execute
    from ezpz.yeet.reporting.timeline import Timeline

    timeline = Timeline() if page_path else None
    with ProgressDisplay(output, timeline) as display:
        report = execute(new_run_id(), request, os.environ, display, random.Random())  # noqa: S311 - spreads load
    show_report(output, report)
    failed = timeline is not None and page_path is not None and not _write_page(output, page_path, report, timeline)
    ctx.exit(report.exit_code or int(failed))


def _show_plan(output: Output, request: Request) -> None:
    """Print what the run would do."""
    from ezpz.yeet.cli.show_report import show_plan
    from ezpz.yeet.pipeline.make_plan import plan_run
    from ezpz.yeet.pipeline.preflight import check_request

    decision = plan_run(new_run_id(), request, check_request(request, os.environ), os.environ)
    decision.contents.close()
    show_plan(output, decision.plan, tuple(warning.text for warning in decision.warnings))


def _write_page(output: Output, path: str, report: RunReport, timeline: Timeline) -> bool:
    """Write the page of `--report`, print where it is or why there is none, and return whether there is one."""
    from ezpz.errors import EzpzError
    from ezpz.yeet.reporting.html.page import render_page, write_report

    try:
        write_report(path, render_page(report, timeline))
    except EzpzError as e:
        output.error(e)
        return False
    output.note(f"the report is in {path}")
    return True


yeet.add_command(tar_command)
yeet.add_command(status_command)
yeet.add_command(clean_command)


def request_from(options: dict[str, Any]) -> Request:
    """Return the request in the options of `ezpz yeet env`."""
    from ezpz.yeet.model.plan import Request

    known = dict(options)
    positional, option_value = known.pop("src_arg"), known.pop("src")
    source = option_value if positional is None else positional
    copy, compress = known.pop("copy"), known.pop("compress")
    strategy = "cp" if copy else "compress" if compress else known.pop("strategy")
    known.pop("strategy", None)
    return Request(src=source, strategy=strategy, **known)


def _deprecated_command(old: str, new: str, target: click.Command, strays: tuple[str, ...]) -> click.Command:
    """Return a command that warns about its old name and then runs the new one.

    Args:
        old: the old name
        new: the new name
        target: the command of the new name
        strays: old command names, one of which older scripts pass as the first argument
    """

    @click.command(
        old,
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        short_help=f"Deprecated: use `{new}`.",
        hidden=True,
    )
    @click.argument("args", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def command(ctx: click.Context, args: tuple[str, ...]) -> None:
        Output().warn(deprecation(f"ezpz {old}", new))
        with target.make_context(new, without_stray(args, strays), parent=ctx.parent) as inner:
            target.invoke(inner)

    return command


yeet_env = _deprecated_command("yeet-env", "ezpz yeet", env_command, YEET_STRAYS)
tar_env = _deprecated_command("tar-env", "ezpz yeet tar", tar_command, TAR_STRAYS)
