"""The protocol of a strategy, and the job that a strategy gets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from ezpz.agent.common.text import printable_path
from ezpz.errors import SourceUnreadable
from ezpz.runtime.plugins import Registry
from ezpz.yeet.source.archive_formats import detect_format
from ezpz.yeet.transfer.previous_version import NO_PREVIOUS_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.source import Source
    from ezpz.yeet.relocate.recorder import RelocationRecorder
    from ezpz.yeet.source.scan import Scan
    from ezpz.yeet.transfer.copy_sinks import CopySink
    from ezpz.yeet.transfer.previous_version import PreviousVersion
    from ezpz.yeet.transfer.unpack_feed import UnpackFeed


@dataclass(frozen=True, slots=True)
class CopyJob:
    """One local copy.

    Attributes:
        root: The real path of the source.
        scan: The entries of the source. Empty for an archive.
        staging: An existing, empty, private directory.
        recorder: Relocates what is copied.
        cancel: Is canceled when the run is interrupted.
        moved: Is called with the number of further bytes of content that were copied.
        previous: What an earlier run made of the same source by the same rules. Unchanged files are not read.
        sinks: Where a strategy that `feeds` passes the entries of a directory: the engines, and staging if it is kept.
        unpack_feeds: What a strategy that `feeds` tells what it unpacks from an archive to staging.
    """

    root: bytes
    scan: Scan
    staging: bytes
    recorder: RelocationRecorder
    cancel: CancelToken
    moved: Callable[[int], None]
    previous: PreviousVersion = NO_PREVIOUS_VERSION
    sinks: tuple[CopySink, ...] = ()
    unpack_feeds: tuple[UnpackFeed, ...] = ()


class Strategy(Protocol):
    """A way to get a source into staging on the launch host: one file and one entry-point line.

    All strategies make the same tree. Modes, modification times, symbolic links, hard links, empty directories and
    names survive, what the scan left out is missing, and the environment is relocated.
    """

    name: ClassVar[str]
    reads_archives: ClassVar[bool]
    feeds: ClassVar[bool]
    """Whether `fill` passes what it reads to `job.sinks`, or what it unpacks to `job.unpack_feeds`. A strategy that
    does not fills `job.staging`, from which the copy is then sent."""
    tools: ClassVar[tuple[str, ...]]
    """Programs that must be on PATH on the launch host."""

    def fill(self, job: CopyJob) -> None:
        """Fill `job.staging` or `job.sinks`. Raise EzpzError or `Cancelled`; staging may then hold anything."""


STRATEGIES: Registry[type[Strategy]] = Registry("ezpz.yeet.strategies", "strategy")


def choose_strategy(source: Source, wanted: str | None) -> tuple[str, str]:
    """Return the name of the strategy for a source, and the reason. Raise SourceUnreadable."""
    if wanted is not None:
        return wanted, "asked for"
    if not source.is_archive:
        return "direct", "default for a directory"
    try:
        return detect_format(source.real).strategy, "the source is an archive"
    except OSError as e:
        raise SourceUnreadable(f"cannot read '{printable_path(os.fsencode(source.path))}': {e.strerror}") from e


def name_list(scan: Scan) -> bytes:
    """Return every path of a scan's own entries, NUL-terminated, as `--files-from` and `-T` take them."""
    own = (entry.path for batch in scan.batches() for entry in batch if not entry.is_foreign)
    return b"".join(b"./" + path + b"\0" for path in own)
