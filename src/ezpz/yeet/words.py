"""Words: what a report's numbers are called, in a line."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ezpz.runtime.text import pluralize
from ezpz.yeet.agent.place import human

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.yeet.report import Report

SHOWN = 100  # characters of a path that is longer than anybody reads


def beginning(text: str) -> str:
    """As much of a long text as fits into a line."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def relocated(report: Report) -> Iterator[str]:
    """What relocation did and what came along; nothing for what is no environment."""
    done = report.carried
    parts = []
    if done.base == "embedded":
        own = f", {human(done.base_site_packages)} of it its own packages" if done.base_site_packages else ""
        parts.append(f"{done.python} came along ({human(done.base_bytes)} as .python{own})")
    is_first = not any(result.replaced or result.unchanged for result in report.results)
    if done.files_patched and is_first:  # a later run takes most of them from the version in place
        parts.append(f"{pluralize(done.files_patched, 'file')} patched")
    if done.editables:
        parts.append(f"{pluralize(len(done.editables), 'editable install')} snapshotted")
    if done.links_followed:
        parts.append(f"{pluralize(done.links_followed, 'link')} out of it replaced by {human(done.followed_bytes)}")
    if done.bytecode_compiled:
        parts.append(f"{pluralize(done.bytecode_compiled, 'file')} compiled")
    if parts:
        yield "; ".join(parts)
    if report.leaks:
        yield leaks_in_words(report.plan.destination, report.leaks)


def leaks_in_words(destination: str, leaks: int) -> str:
    """How many there are and how to see them, in a line."""
    status = f"ezpz yeet status --leaks {shlex.quote(destination)}"
    return f"it still uses {pluralize(leaks, 'place')} on a shared filesystem: `{status}` lists them"
