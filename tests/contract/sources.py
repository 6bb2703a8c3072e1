"""What the suites of strategies share: every way to read a source, scans and archives made once, jobs, relocation."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ezpz.agent.common import manifest
from ezpz.agent.common.cancel import CancelToken
from ezpz.yeet.pipeline.replay import feed_tree
from ezpz.yeet.relocate.additions.plan import Snapshot, plan_relocation
from ezpz.yeet.relocate.in_place import relocate_tree
from ezpz.yeet.relocate.inspect.aliases import find_aliases
from ezpz.yeet.relocate.inspect.environment import Environment, link_policy_of
from ezpz.yeet.relocate.inspect.tree_reader import TreeReader
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.source.archive_formats import FORMATS, GZIP, SQUASHFS
from ezpz.yeet.source.identity import identity_of
from ezpz.yeet.source.inspect import kind_of
from ezpz.yeet.source.scan import Scan
from ezpz.yeet.source.scanner import scan_directory
from ezpz.yeet.strategies import fill_staging
from ezpz.yeet.strategies.base import STRATEGIES, CopyJob
from ezpz.yeet.strategies.tree_copier import TreeCopier
from ezpz.yeet.transfer.copy_sinks import StagingSink
from ezpz.yeet.transfer.entry_tee import EntryTee
from ezpz.yeet.transfer.previous_version import NO_PREVIOUS_VERSION, PreviousVersion
from tests.contract.packing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ezpz.yeet.model.entry import Entry

DESTINATION = b"/tmp/on-the-node/env"
POSIX, GNU, PLAIN = "tar --format=posix", "tar --format=gnu", ""
OURS = {f"ezpz yeet tar --format {name}": each for name, each in FORMATS.items()}


@dataclass(frozen=True)
class Way:
    """A strategy, and for one that reads archives, what makes them."""

    strategy: str
    maker: str = PLAIN

    def __str__(self) -> str:
        return f"{self.strategy} of {self.maker}" if self.maker else self.strategy

    @property
    def keeps_nanoseconds(self) -> bool:
        return self.maker != GNU and OURS.get(self.maker) is not SQUASHFS


def ways() -> Iterator[Way]:
    """Every strategy of the registry, the one for archives once for each way to make one."""
    for name in STRATEGIES.names():
        strategy = STRATEGIES.load(name)
        ours = tuple(maker for maker, each in OURS.items() if each.strategy == name)
        others = (POSIX, GNU) if name == GZIP.strategy else ()
        if all(shutil.which(tool) for tool in strategy.tools):
            yield from (Way(name, maker) for maker in ((*ours, *others) if strategy.reads_archives else (PLAIN,)))


EVERY = tuple(ways())
"""Each of them; a test of all is parametrized with it."""


def nothing(_: int) -> None:
    """Take what `moved` is told."""


class Sources:
    """Scans and archives of trees, each made once; with `follow`, links that lead out of them are followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._scans: dict[tuple[Path, tuple[str, ...], bool], Scan] = {}
        self._archives: dict[tuple[Path, str, tuple[str, ...], bool], Path] = {}

    def scan(self, source: Path, exclude: tuple[str, ...] = (), *, follow: bool = False) -> Scan:
        key = (source, exclude, follow)
        if key not in self._scans:
            root = os.fsencode(source)
            boundary = link_policy_of(kind_of(root), (root,)) if follow else None
            self._scans[key] = scan_directory(root, exclude=exclude, link_policy=boundary)
        return self._scans[key]

    def archive(self, source: Path, maker: str, exclude: tuple[str, ...] = (), *, follow: bool = False) -> Path:
        key = (source, maker, exclude, follow)
        if key not in self._archives:
            path = self.folder / f"{len(self._archives)}{OURS.get(maker, GZIP).suffixes[0]}"
            (self._ours if maker in OURS else self._gnu)(self.scan(source, exclude, follow=follow), path, maker)
            self._archives[key] = path
        return self._archives[key]

    def _ours(self, scanned: Scan, path: Path, _: str) -> None:
        pack(scanned, str(path), nothing)

    def _gnu(self, scanned: Scan, path: Path, maker: str) -> None:
        names = b"./\0" + b"".join(b"./%b\0" % entry.path for batch in scanned.batches() for entry in batch)
        tar = [*maker.split(), "--create", "--gzip", "--no-recursion", "--null", "--verbatim-files-from"]
        subprocess.run([*tar, "-C", scanned.root, "--files-from=-", f"--file={path}"], input=names, check=True)

    def job(
        self,
        way: Way,
        source: Path,
        staging: Path,
        *,
        exclude: tuple[str, ...] = (),
        follow: bool = False,
        along: Scan | None = None,
        relocation: Relocation | None = None,
        cancel: CancelToken | None = None,
        moved: Callable[[int], None] = nothing,
        previous: Path | None = None,
    ) -> CopyJob:
        """The job that `ezpz yeet` would give to a strategy; the archive of `source` for one that reads archives.

        along: what comes along with the entries of a directory
        """
        staging.mkdir(parents=True)
        staging.chmod(0o700)
        archive = os.fsencode(self.archive(source, way.maker, exclude, follow=follow)) if way.maker else b""
        counted = Scan(b"", archive=identity_of(os.stat(archive))) if archive else None
        scanned = counted or self.scan(source, exclude, follow=follow)
        if along is not None and not way.maker:
            scanned = joined(scanned, along)
        known = NO_PREVIOUS_VERSION if previous is None else known_of(previous)
        return CopyJob(
            root=archive or os.fsencode(source),
            scan=scanned,
            staging=os.fsencode(staging),
            recorder=RelocationRecorder(relocation or Relocation(DESTINATION)),
            cancel=cancel or CancelToken(),
            moved=moved,
            previous=known,
            sinks=() if archive else (StagingSink(os.fsencode(staging), known),),
        )


def known_of(previous: Path) -> PreviousVersion:
    """What a version in place tells of itself."""
    root = os.fsencode(previous)
    with contextlib.closing(EntryTee()) as intake:
        feed_tree(root, intake, CancelToken())
        return PreviousVersion(manifest.read(intake.end().manifest), root)


def relocation_of(root: Path, known: Path | None) -> Relocation:
    """How a tree is relocated that stands at `root`, and is known by a name of its own or only by what it says."""
    tree_root = os.fsencode(root)
    names = () if known is None else (os.fsencode(known),)
    kind = kind_of(tree_root)
    folder = TreeReader(tree_root)
    aliases = find_aliases(names, read=folder.read, scripts=folder.scripts) if kind.is_environment else names
    return plan_relocation(DESTINATION, Environment(kind, aliases), tree_root if names else None, None, Snapshot())


def entries(scanned: Scan) -> Iterator[Entry]:
    return (entry for batch in scanned.batches() for entry in batch)


def joined(*scans: Scan) -> Scan:
    """One scan of the entries of several, with the first one's root."""
    both = Scan(scans[0].root, left_out=list(scans[0].left_out), latency=scans[0].latency)
    for scanned in scans:
        for batch in scanned.batches():
            both.add(batch)
        both.listings.update(scanned.listings)
    return both


def fill(way: Way, job: CopyJob) -> None:
    fill_staging.fill_staging(way.strategy, job)


def arrive(
    way: Way,
    sources: Sources,
    source: Path,
    staging: Path,
    *,
    change: Callable[[Relocation], Relocation] = lambda relocation: relocation,
    follow: bool = False,
    along: Scan | None = None,
    previous: Path | None = None,
) -> RelocationRecorder:
    """Fill and relocate as a run does; `change` is made to the relocation. Returns what it has counted."""
    relocation = change(relocation_of(source, source))
    job = sources.job(way, source, staging, follow=follow, along=along, relocation=relocation, previous=previous)
    fill(way, job)
    if not way.maker:
        return job.recorder
    unpacked = replace(job, recorder=RelocationRecorder(change(relocation_of(staging, None))))
    relocate_tree(unpacked.staging, unpacked.recorder, unpacked.cancel)
    if along is not None:
        status = staging.stat()
        staging.chmod(0o700)
        copier = TreeCopier(replace(unpacked, sinks=(StagingSink(unpacked.staging),)), entries(along))
        copier.run()
        copier.finish()
        os.utime(staging, ns=(status.st_atime_ns, status.st_mtime_ns))
        staging.chmod(status.st_mode & 0o7777)
    return unpacked.recorder
