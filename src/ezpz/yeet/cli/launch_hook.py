"""Preparation of `ezpz launch --yeet`: copy an environment before the ranks start."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from ezpz.cli.preparation import PreparationOutput, Prepared
from ezpz.yeet.cli.env_command import env_command, request_from
from ezpz.yeet.model.run_id import new_run_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.cli.output import Output


def prepare(output: Output, args: Sequence[str], *, dry_run: bool) -> Prepared:
    """Copy an environment as `ezpz yeet env` does, with its output on stderr.

    Args:
        output: the output of the command that follows
        args: the arguments of `ezpz yeet env`; its environment variables count, too
        dry_run: only determine the destination
    """
    from ezpz.yeet.cli.progress import ProgressDisplay
    from ezpz.yeet.cli.show_report import show_report
    from ezpz.yeet.model.results import Outcome
    from ezpz.yeet.model.source import default_destination
    from ezpz.yeet.pipeline.run import execute
    from ezpz.yeet.source.inspect import active_environment, inspect_source

    with env_command.make_context("ezpz yeet env", list(args)) as ctx:
        options = {name: value for name, value in ctx.params.items() if name not in ("dry_run", "report_path")}
    request = request_from(options)
    aside = PreparationOutput.like(output)
    if dry_run:
        source = inspect_source(request.src or active_environment(os.environ))
        return Prepared(request.dst or default_destination(source), source.path)
    with ProgressDisplay(aside) as display:
        report = execute(new_run_id(), request, os.environ, display, random.Random())  # noqa: S311 - spreads load
    show_report(aside, report, advise=False)
    failed = tuple(result.node.name for result in report.results if result.outcome is not Outcome.OK)
    plan = report.plan
    return Prepared(plan.destination, plan.source.path, failed, report.exit_code, report.to_dict())
