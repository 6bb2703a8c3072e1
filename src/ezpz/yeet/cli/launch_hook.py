"""`ezpz launch --yeet`: a yeet as the first half of another command."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from ezpz.cli.preparation import PreparationOutput, Prepared
from ezpz.yeet.cli.env_command import env_command, request_of
from ezpz.yeet.model.plan import new_run_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.cli.output import Output


def prepare(output: Output, args: Sequence[str], *, dry_run: bool) -> Prepared:
    """Do what `ezpz yeet env ARGS` does, its variables included; say it on stderr. With dry_run, only look where to."""
    from ezpz.yeet.cli import progress
    from ezpz.yeet.model.results import Outcome
    from ezpz.yeet.model.source import default_destination
    from ezpz.yeet.pipeline.run import execute
    from ezpz.yeet.source.inspect import active_environment, inspect

    with env_command.make_context("ezpz yeet env", list(args)) as ctx:
        options = {name: value for name, value in ctx.params.items() if name not in ("dry_run", "report_path")}
    request = request_of(options)
    aside = PreparationOutput.like(output)
    if dry_run:
        source = inspect(request.src or active_environment(os.environ))
        return Prepared(request.dst or default_destination(source), source.path)
    with progress.ProgressDisplay(aside, None) as watch:
        report = execute(new_run_id(), request, os.environ, watch, random.Random())  # noqa: S311 - spreads load
    progress.show_report(aside, report, advise=False)
    failed = tuple(result.node.name for result in report.results if result.outcome is not Outcome.OK)
    plan = report.plan
    return Prepared(plan.destination, plan.source.path, failed, report.exit_code, report.to_dict())
