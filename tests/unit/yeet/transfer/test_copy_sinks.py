"""Every sink of a job gets the same tree, in one pass over the source."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common import manifest, tree_version
from ezpz.agent.common.cancel import CancelToken
from ezpz.yeet.pipeline.replay import feed_tree
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.source.io import open_counted
from ezpz.yeet.source.scan import entries_of
from ezpz.yeet.source.scanner import scan_directory
from ezpz.yeet.strategies import tree_copier
from ezpz.yeet.strategies.base import CopyJob
from ezpz.yeet.strategies.direct import Direct
from ezpz.yeet.transfer.copy_sinks import StagingSink, finish_directories
from ezpz.yeet.transfer.entry_tee import EntryTee
from ezpz.yeet.transfer.previous_version import NO_PREVIOUS_VERSION, PreviousVersion
from tests.lab.compare import compare_trees

if TYPE_CHECKING:
    from pathlib import Path

    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.transfer.copy_sinks import CopySink

LARGE = 3 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "bin" / "deep").mkdir(parents=True)
    (root / "bin" / "tool").write_text("#!/bin/sh\n")
    (root / "bin" / "deep" / "large").write_bytes(os.urandom(LARGE))
    (root / "link").symlink_to("bin/tool")
    os.link(root / "bin" / "tool", root / "same")
    os.link(root / "link", root / "same-link", follow_symlinks=False)
    for number, path in enumerate((root / "bin" / "tool", root / "bin" / "deep", root / "bin", root)):
        os.utime(path, ns=(10**18 + number, 10**18 + number))
    (root / "bin").chmod(0o555)
    return root


def job_of(source: Path, staging: Path, *sinks: CopySink, previous: PreviousVersion = NO_PREVIOUS_VERSION) -> CopyJob:
    root = os.fsencode(source)
    recorder = RelocationRecorder(Relocation(b"/tmp/x"))
    return CopyJob(
        root, scan_directory(root), os.fsencode(staging), recorder, CancelToken(), lambda _: None, previous, sinks
    )


def previous_of(copy: Path) -> PreviousVersion:
    root = os.fsencode(copy)
    with contextlib.closing(EntryTee()) as tee:
        feed_tree(root, tee, CancelToken())
        return PreviousVersion(manifest.read(tee.end().manifest), root)


def test_staging_and_manifest_get_the_same_tree(source: Path, tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    with contextlib.closing(EntryTee()) as tee:
        Direct().fill(job_of(source, staging, tee, StagingSink(os.fsencode(staging))))
        summary = tee.end()
    assert compare_trees(source, staging) == []
    assert summary.survey == tree_version.summarize(os.fsencode(source))


def test_without_a_sink_for_staging_nothing_stays_there(source: Path, tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    with contextlib.closing(EntryTee()) as tee:
        Direct().fill(job_of(source, staging, tee))
        summary = tee.end()
    assert list(staging.iterdir()) == []
    assert summary.survey == tree_version.summarize(os.fsencode(source))


def test_several_directories_can_be_filled_at_once(source: Path, tmp_path: Path) -> None:
    sinks = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        sinks.append(StagingSink(os.fsencode(tmp_path / name)))
    job = job_of(source, tmp_path / "one", *sinks)
    small = replace(job, scan=scan_directory(job.root, exclude=("large",)))
    Direct().fill(small)
    for name in ("one", "two"):
        assert [line for line in compare_trees(source, tmp_path / name) if "large" not in line] == []


class TestPreviousVersion:
    """Unchanged files are linked from it, and not read."""

    def test_an_unchanged_file_is_linked_and_not_read(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, again = tmp_path / "first", tmp_path / "again"
        for copy in (first, again):
            copy.mkdir()
        Direct().fill(job_of(source, first, StagingSink(os.fsencode(first))))
        previous = previous_of(source)
        previous.root = os.fsencode(first)
        read: list[bytes] = []

        def opening(root: bytes, entry: Entry) -> tuple[int, os.stat_result]:
            read.append(entry.path)
            return open_counted(root, entry)

        monkeypatch.setattr(tree_copier, "open_counted", opening)
        Direct().fill(job_of(source, again, StagingSink(os.fsencode(again), previous), previous=previous))
        assert b"bin/deep/large" not in read
        assert (again / "bin" / "deep" / "large").samefile(first / "bin" / "deep" / "large")
        assert compare_trees(source, again) == []

    def test_an_inode_is_linked_once(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "staging").mkdir()
        previous = previous_of(source)
        sink = StagingSink(os.fsencode(tmp_path / "staging"), previous)
        entry = next(
            entry for entry in entries_of(scan_directory(os.fsencode(source))) if entry.path == b"bin/deep/large"
        )
        file = previous.result_of(entry)
        assert file is not None
        unchanged = previous.find_unchanged(entry, file)
        assert unchanged is not None
        assert sink.can_reuse(entry, file, unchanged)
        assert not sink.can_reuse(entry, file, unchanged)

    def test_nothing_known_reads_everything(self) -> None:
        assert NO_PREVIOUS_VERSION.is_empty
        assert NO_PREVIOUS_VERSION.root is None


def test_directories_are_finished_from_below_and_the_top_at_last(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    finish_directories(os.fsencode(tmp_path), {b"": (0o700, 3), b"a": (0o555, 2), b"a/b": (0o500, 1)})
    assert [(path.stat().st_mode & 0o777, path.stat().st_mtime_ns) for path in (tmp_path, tmp_path / "a")] == [
        (0o700, 3),
        (0o555, 2),
    ]
    assert (tmp_path / "a" / "b").stat().st_mtime_ns == 1
