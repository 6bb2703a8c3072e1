"""No strategy makes a tree of a source that changes after it was counted, before or while it is read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ezpz.errors import SourceChanged
from ezpz.yeet.relocate.extra_entries import ExtraEntries
from tests.contract.sources import EVERY, PLAIN, Sources, fill

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.sources import Way

of_directories = pytest.mark.parametrize("way", [way for way in EVERY if way.maker == PLAIN], ids=str)
of_archives = pytest.mark.parametrize("way", [way for way in EVERY if way.maker != PLAIN], ids=str)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("archives"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "sub").mkdir(parents=True)
    (root / "other").mkdir()
    (root / "sub" / "file").write_text("V = 1\n")
    (root / "other" / "file").write_text("V = 1\n")
    (root / "link").symlink_to("sub/file")
    (root / "large").write_bytes(b"1" * (3 << 20))
    settle(root)
    return root


def settle(*roots: Path) -> None:
    """Return once a change from now on gets a time of its own: filesystems count in ticks of the kernel."""
    probe = roots[0].parent / "clock"
    probe.touch()
    newest = max(path.lstat().st_ctime_ns for root in roots for path in (root, *root.rglob("*")))
    while probe.stat().st_ctime_ns <= newest:
        os.utime(probe)
    probe.unlink()


def beside(path: Path, text: str) -> None:
    """Replace a file by another of the same size, as an installer does."""
    path.with_name(".new").write_text(text)
    path.with_name(".new").replace(path)


def beside_with_its_time(root: Path) -> None:
    before = (root / "sub" / "file").stat()
    beside(root / "sub" / "file", "V = 2\n")
    os.utime(root / "sub" / "file", ns=(before.st_atime_ns, before.st_mtime_ns))


def within_with_its_time(root: Path) -> None:
    before = (root / "sub" / "file").stat()
    (root / "sub" / "file").write_text("V = 2\n")
    os.utime(root / "sub" / "file", ns=(before.st_atime_ns, before.st_mtime_ns))


def large_within_with_its_time(root: Path) -> None:
    before = (root / "large").stat()
    (root / "large").write_bytes(b"2" * (3 << 20))
    os.utime(root / "large", ns=(before.st_atime_ns, before.st_mtime_ns))


def link_elsewhere(root: Path) -> None:
    (root / "new").symlink_to("other/file")
    (root / "new").replace(root / "link")


def file_by_link(root: Path) -> None:
    (root / "sub" / "file").unlink()
    (root / "sub" / "file").symlink_to("../other/file")


def directory(root: Path) -> None:
    (root / "new").mkdir()
    beside(root / "new" / "file", "V = 2\n")
    (root / "sub").rename(root.parent / "old")
    (root / "new").rename(root / "sub")


IN_PLACE: dict[str, tuple[Callable[[Path], object], str]] = {
    "written, with its time": (within_with_its_time, "sub/file"),
    "large, written, with its time": (large_within_with_its_time, "large"),
}
BY_NAME: dict[str, tuple[Callable[[Path], object], str]] = {
    "replaced": (lambda root: beside(root / "sub" / "file", "V = 2\n"), "sub/file"),
    "replaced, with its time": (beside_with_its_time, "sub/file"),
    "a link leads elsewhere": (link_elsewhere, "link"),
    "a file is a link": (file_by_link, "sub/file"),
    "a directory is another": (directory, "sub"),
    "added": (lambda root: (root / "sub" / "more").write_text("V = 2\n"), "sub/more"),
    "removed": (lambda root: (root / "sub" / "file").unlink(), "sub/file"),
}


@of_directories
@pytest.mark.parametrize("change", [*IN_PLACE, *BY_NAME])
def test_before_it_is_read(way: Way, change: str, source: Path, sources: Sources, tmp_path: Path) -> None:
    happens, name = {**IN_PLACE, **BY_NAME}[change]
    job = sources.job(way, source, tmp_path / "tree")
    happens(source)
    with pytest.raises(SourceChanged, match=f"'{name}.*' changed during the run") as caught:
        fill(way, job)
    assert "run it again" in caught.value.hint


@of_directories
@pytest.mark.parametrize("change", BY_NAME)
def test_while_it_is_read(way: Way, change: str, source: Path, sources: Sources, tmp_path: Path) -> None:
    happens, name = BY_NAME[change]
    left = [happens]

    def moved(_: int) -> None:
        while left:
            left.pop()(source)

    job = sources.job(way, source, tmp_path / "tree", moved=moved)
    with pytest.raises(SourceChanged, match=f"'{name}.*' changed during the run"):
        fill(way, job)
    assert left == []


@of_directories
@pytest.mark.parametrize("change", IN_PLACE)
def test_what_another_program_read_is_compared_afterwards(
    way: Way, change: str, source: Path, sources: Sources, tmp_path: Path
) -> None:
    if way.strategy == "direct":
        pytest.skip("it has compared each file by then: what it copied is what was counted")
    happens, name = IN_PLACE[change]

    def moved(_: int) -> None:
        happens(source)

    job = sources.job(way, source, tmp_path / "tree", moved=moved)
    with pytest.raises(SourceChanged, match=f"'{name}' changed during the run"):
        fill(way, job)


@of_directories
def test_what_does_not_come_along_may_change(way: Way, source: Path, sources: Sources, tmp_path: Path) -> None:
    """Bytecode comes from running what is there, perhaps ezpz itself; and what is excluded is not looked at."""
    (source / "logs").mkdir()
    settle(source)
    job = sources.job(way, source, tmp_path / "tree", exclude=("logs", "*.log"))
    (source / "sub" / "__pycache__").mkdir()
    (source / "sub" / "__pycache__" / "file.pyc").touch()
    (source / "sub" / "x.log").touch()
    (source / "logs" / "today").touch()
    os.mkfifo(source / "sub" / "fifo")
    if way.strategy == "cp":
        (source / "sub" / "x.log").unlink()  # it copies what is there
        (source / "sub" / "fifo").unlink()
    fill(way, job)
    assert (tmp_path / "tree" / "sub" / "file").read_text() == "V = 1\n"


@of_directories
@pytest.mark.parametrize("change", ["replaced", "replaced, with its time", "written, with its time", "added"])
def test_what_comes_along(way: Way, change: str, source: Path, sources: Sources, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    (elsewhere / "sub" / "file").write_text("V = 1\n")
    (elsewhere / "python").write_text("V = 1\n")
    settle(elsewhere)
    grafts = ExtraEntries()
    grafts.add_directory(b".editable/pkg", os.fsencode(elsewhere / "sub"))
    grafts.add_file(b".python/bin/python3.11", os.fsencode(elsewhere / "python"))
    job = sources.job(way, source, tmp_path / "tree", along=grafts.scan)
    {**IN_PLACE, **BY_NAME}[change][0](elsewhere)
    with pytest.raises(SourceChanged, match=r"'(\.editable/pkg/file|more)' changed during the run|file' changed"):
        fill(way, job)


@of_directories
def test_a_single_file_that_comes_along(way: Way, source: Path, sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("V = 1\n")
    grafts = ExtraEntries()
    grafts.add_file(b".python/bin/python3.11", os.fsencode(tmp_path / "python"))
    job = sources.job(way, source, tmp_path / "tree", along=grafts.scan)
    beside(tmp_path / "python", "V = 2\n")
    with pytest.raises(SourceChanged, match=r"python.* changed during the run"):
        fill(way, job)


@of_archives
@pytest.mark.parametrize("during", [False, True], ids=["before it is read", "while it is read"])
@pytest.mark.parametrize("how", ["replaced", "cut short"])
def test_an_archive(way: Way, how: str, *, during: bool, source: Path, sources: Sources, tmp_path: Path) -> None:
    def happens() -> None:
        path = Path(os.fsdecode(job.root))
        if how == "cut short":
            os.truncate(path, path.stat().st_size // 2)
            return
        (tmp_path / "new").write_bytes(path.read_bytes())
        os.utime(tmp_path / "new", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        (tmp_path / "new").replace(path)

    once = iter([happens] if during else [])
    job = sources.job(way, source, tmp_path / "tree")
    job = replace(job, moved=lambda _: next(once, lambda: None)())
    if not during:
        happens()
    with pytest.raises(SourceChanged, match=f"'{os.fsdecode(job.root)}' changed during the run"):
        fill(way, job)
