"""Output of `ezpz yeet tar`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ezpz.agent.common.text import format_bytes
from ezpz.runtime.text import pluralize
from ezpz.yeet.pack.archive_plan import EMBEDDED
from ezpz.yeet.pack.make import UNCHANGED

if TYPE_CHECKING:
    from ezpz.cli.output import Output
    from ezpz.yeet.pack.make import Archive


def show_archive(output: Output, archive: Archive) -> None:
    """Print which archive was made, or that it is up to date, and what to do with it."""
    output.document(archive.to_dict())
    for warning in archive.warnings:
        output.warn(warning.text)
    if archive.before is not None:
        output.note(f"what stood there was out of date: {archive.before.summary}")
    amount = (
        f"{format_bytes(archive.size)} from {pluralize(archive.files, 'file')}, {format_bytes(archive.content_bytes)}"
    )
    if archive.outcome == UNCHANGED:
        output.line(f"{archive.path} is up to date: {amount}", fg="green", bold=True)
    else:
        rate = f" at {format_bytes(archive.content_bytes / archive.seconds)}/s" if archive.seconds > 1 else ""
        output.line(f"{archive.path}: {amount}, in {archive.seconds:.1f} s{rate}", fg="green", bold=True)
    base = archive.description.base
    if base.mode == EMBEDDED:
        output.line(f"{base.python} came along, from {base.prefix}")
    output.line(f"next:\n  ezpz yeet {shlex.quote(archive.path)}")
