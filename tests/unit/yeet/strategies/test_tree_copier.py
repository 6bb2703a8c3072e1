"""Fill: what is written is what was read, holes and hard links included, although the source may change meanwhile."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common.cancel import CancelToken
from ezpz.errors import SourceChanged, SourceUnreadable
from ezpz.yeet.relocate.extra_entries import ExtraEntries
from ezpz.yeet.relocate.formats.prefix import PrefixMap
from ezpz.yeet.relocate.large_file import MAX_WHOLE_FILE, LargeFileRewriter, data_ranges
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.source.io import read_whole
from ezpz.yeet.source.scanner import scan_directory
from ezpz.yeet.strategies import tree_copier
from ezpz.yeet.strategies.base import CopyJob
from ezpz.yeet.strategies.tree_copier import TreeCopier
from ezpz.yeet.transfer.copy_sinks import StagingSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ezpz.yeet.relocate.recorder import RewriteResult
    from ezpz.yeet.source.scan import Scan

DESTINATION = b"/tmp/on-the-node/env"


@dataclass
class Copy:
    """A source, and a copy of it."""

    source: Path
    target: Path

    def run(
        self,
        recorder: RelocationRecorder | None = None,
        before: Callable[[], object] = lambda: None,
        scanned: Scan | None = None,
    ) -> RelocationRecorder:
        """Scan it (or take what was), let something happen, and copy it."""
        root = os.fsencode(self.source)
        scanned = scanned or scan_directory(root)
        before()
        self.target.mkdir()
        recorder = recorder or RelocationRecorder(self.relocation)
        target = os.fsencode(self.target)
        sinks = (StagingSink(target),)
        job = CopyJob(root, scanned, target, recorder, CancelToken(), lambda _: None, sinks=sinks)
        TreeCopier(job, (entry for batch in scanned.batches() for entry in batch)).run()
        return recorder

    @property
    def relocation(self) -> Relocation:
        """As for an environment: all content is looked at."""
        root = os.fsencode(self.source)
        moves = PrefixMap({root: DESTINATION})
        return Relocation(DESTINATION, text=moves, links=moves, root=root)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    (tmp_path / "S").mkdir()
    return Copy(tmp_path / "S", tmp_path / "target")


@pytest.fixture(params=["environment", "data"])
def plain(request: pytest.FixtureRequest) -> RelocationRecorder | None:
    """Ledgers of copies whose content is looked at, and of such where it is not."""
    return None if request.param == "environment" else RelocationRecorder(Relocation(DESTINATION))


class TestSparse:
    """Holes are neither read nor written."""

    @pytest.mark.parametrize(
        ("size", "data"),
        [
            (8 << 20, {3 << 20: b"middle"}),
            (8 << 20, {0: b"begin"}),
            (8 << 20, {(8 << 20) - 3: b"end"}),
            (8 << 20, {}),
            ((8 << 20) + 17, {2 << 20: b"x" * (3 << 20), 6 << 20: b"y"}),
        ],
        ids=["middle", "begin", "end", "nothing", "odd"],
    )
    def test_case_43_a_sparse_file_keeps_its_holes(
        self, copy: Copy, plain: RelocationRecorder | None, size: int, data: dict[int, bytes]
    ) -> None:
        with (copy.source / "sparse").open("wb") as file:
            file.truncate(size)
            for offset, content in data.items():
                file.seek(offset)
                file.write(content)
        before = (copy.source / "sparse").stat()
        if before.st_blocks * 512 >= size:
            pytest.skip("this filesystem has no holes")
        copy.run(plain)
        after = (copy.target / "sparse").stat()
        assert (copy.target / "sparse").read_bytes() == (copy.source / "sparse").read_bytes()
        assert after.st_size == size
        assert after.st_blocks <= before.st_blocks + 64

    def test_case_43_a_file_without_holes_is_one_extent(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(os.urandom(200_000))
        with (tmp_path / "f").open("rb") as file:
            assert list(data_ranges(file.fileno(), os.fstat(file.fileno()))) == [(0, 200_000)]

    def test_an_old_path_in_a_sparse_file_is_replaced(self, copy: Copy) -> None:
        old = os.fsencode(copy.source)
        with (copy.source / "sparse.txt").open("wb") as file:
            file.write(b"#" * 4096 + old)
            file.truncate(8 << 20)
        recorder = copy.run()
        assert (copy.target / "sparse.txt").stat().st_size == 8 << 20
        assert recorder.notices.counts == {"baked-prefix": 1}  # with NULs it is no text


def meddle(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object], times: int) -> None:
    """Let something happen to the source before a large file is read, the first few times."""
    left: Iterator[Callable[[], object]] = iter([happens] * times)

    class Meddling(LargeFileRewriter):
        def rewrite(self, output: int | None) -> RewriteResult:
            next(left, lambda: None)()
            return super().rewrite(output)

    monkeypatch.setattr(tree_copier, "LargeFileRewriter", Meddling)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Remove a path and make something else there."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


class TestChanges:
    """A file is what it was at one time, or the run ends."""

    @pytest.fixture
    def large(self, copy: Copy) -> Path:
        path = copy.source / "large"
        path.write_bytes(b"first " * (MAX_WHOLE_FILE // 3))
        os.utime(path, ns=(10**18, 10**18))
        return path

    def test_case_44_a_file_that_changes_while_it_is_read_ends_the_run(
        self, copy: Copy, large: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meddle(monkeypatch, lambda: os.utime(large, ns=(0, 1)), 1)
        with pytest.raises(SourceChanged, match="'large' changed during the run") as caught:
            copy.run()
        assert "installed" in caught.value.hint

    def test_case_44_one_that_changes_its_size_ends_the_run(
        self, copy: Copy, large: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def grow() -> None:
            with large.open("ab") as file:
                file.write(b"more")

        meddle(monkeypatch, grow, 1)
        with pytest.raises(SourceChanged, match="'large'"):
            copy.run()

    def test_case_44_so_does_a_small_one(self, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
        path = copy.source / "small"
        path.write_bytes(b"1 one")

        def meddling(fd: int, size: int, place: bytes) -> bytes:
            data = read_whole(fd, size, place)
            path.write_bytes(b"2 two")
            os.utime(path, ns=(0, 1))
            return data

        monkeypatch.setattr(tree_copier, "read_whole", meddling)
        with pytest.raises(SourceChanged, match="'small' changed during the run"):
            copy.run()

    @pytest.mark.parametrize(
        "happens",
        [
            lambda path: path.write_text("longer than it was"),
            lambda path: path.write_text(""),
            lambda path: path.unlink(),
            replaced(os.mkfifo),
            replaced(os.mkdir),
            replaced(lambda path: path.symlink_to("/etc/passwd")),
        ],
        ids=["grew", "shrank", "went away", "is a FIFO", "is a folder", "is a link"],
    )
    def test_case_44_what_is_not_what_was_scanned_ends_the_run(
        self, copy: Copy, happens: Callable[[Path], object]
    ) -> None:
        (copy.source / "file").write_text("content")
        with pytest.raises(SourceChanged, match="'file' changed during the run"):
            copy.run(before=lambda: happens(copy.source / "file"))
        assert not (copy.target / "file").exists() or (copy.target / "file").stat().st_size == 0


class TestUnreadable:
    """An error that comes from reading the source names the file of the source; another one is the local disk's."""

    MEMORY = b"/proc/%d/mem" % os.getpid()  # of which the first bytes cannot be read

    def test_a_file_that_cannot_be_read(self, copy: Copy) -> None:
        grafts = ExtraEntries()
        grafts.add_file(b"memory", self.MEMORY)
        with pytest.raises(SourceUnreadable, match=r"cannot read '/proc/.*/mem': Input/output error") as caught:
            copy.run(scanned=grafts.scan)
        assert "allowed" not in caught.value.hint

    @pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
    def test_an_error_on_the_way_is_blamed_on_what_cannot_be_read(self, tmp_path: Path, number: int) -> None:
        (tmp_path / "file").write_bytes(b"x" * 100)
        error = OSError(number, os.strerror(number))
        with open(self.MEMORY, "rb") as file, pytest.raises(SourceUnreadable, match="'mem': Input/output error"):
            tree_copier.refuse_unreadable(file.fileno(), b"mem", error)
        with open(tmp_path / "file", "rb") as file:
            tree_copier.refuse_unreadable(file.fileno(), b"file", error)
            assert os.read(file.fileno(), 1) == b"x"


class TestLarge:
    """Large files are read in pieces."""

    @pytest.mark.parametrize(
        "offset", [MAX_WHOLE_FILE - 1, MAX_WHOLE_FILE - 5, MAX_WHOLE_FILE, 2 * MAX_WHOLE_FILE - 3, 100]
    )
    def test_an_old_path_across_two_pieces_is_replaced(self, copy: Copy, offset: int) -> None:
        old = os.fsencode(copy.source)
        text = b"#" * offset + b"\n" + old + b"/bin/python\n" + b"#" * MAX_WHOLE_FILE
        (copy.source / "large.txt").write_bytes(text)
        recorder = copy.run()
        assert (copy.target / "large.txt").read_bytes() == text.replace(old, DESTINATION)
        assert (recorder.files, recorder.replaced) == (1, 1)

    def test_one_without_is_copied_as_it_is(self, copy: Copy, plain: RelocationRecorder | None) -> None:
        data = os.urandom(3 * MAX_WHOLE_FILE + 1)
        (copy.source / "large").write_bytes(data)
        assert copy.run(plain).files == 0
        assert (copy.target / "large").read_bytes() == data

    def test_a_longer_name_is_another_path(self, copy: Copy) -> None:
        text = b"#" * (MAX_WHOLE_FILE - 3) + os.fsencode(copy.source) + b"-python/bin\n" + b"#" * MAX_WHOLE_FILE
        (copy.source / "large.txt").write_bytes(text)
        assert copy.run().files == 0
        assert (copy.target / "large.txt").read_bytes() == text


class TestHardLinks:
    """Names of one file are names of one file afterwards, whatever was done to it."""

    def test_case_37_hard_links_stay(self, copy: Copy, plain: RelocationRecorder | None) -> None:
        for folder in ("a", "b"):
            (copy.source / folder).mkdir()
        (copy.source / "a" / "one").write_text("content")
        for name in ("a/two", "b/three"):
            os.link(copy.source / "a" / "one", copy.source / name)
        copy.run(plain)
        inodes = {(copy.target / name).stat().st_ino for name in ("a/one", "a/two", "b/three")}
        assert len(inodes) == 1
        assert (copy.target / "b" / "three").read_text() == "content"
        assert (copy.target / "a" / "one").stat().st_nlink == 3

    def test_case_37_a_patched_file_is_patched_under_all_its_names(self, copy: Copy) -> None:
        (copy.source / "one").write_text(f"#!{copy.source}/bin/python\n")
        os.link(copy.source / "one", copy.source / "two")
        recorder = copy.run()
        assert (copy.target / "two").read_text() == "#!/tmp/on-the-node/env/bin/python\n"
        assert (copy.target / "one").samefile(copy.target / "two")
        assert recorder.files == 1

    def test_case_38_the_source_is_another_file(self, copy: Copy) -> None:
        (copy.source / "one").write_text(f"#!{copy.source}/bin/python\n")
        os.link(copy.source / "one", copy.source.parent / "cache")
        copy.run()
        assert (copy.source.parent / "cache").read_text() == f"#!{copy.source}/bin/python\n"
        assert (copy.target / "one").stat().st_nlink == 1

    def test_case_37_a_link_with_two_names_leads_to_the_same_from_both(self, copy: Copy) -> None:
        """Made relative, it says something else in each folder."""
        for folder in ("a", "b/c"):
            (copy.source / folder).mkdir(parents=True)
        (copy.source / "file").write_text("content")
        (copy.source / "a" / "link").symlink_to(copy.source / "file")
        os.link(copy.source / "a" / "link", copy.source / "b" / "c" / "link", follow_symlinks=False)
        (copy.source / "a" / "plain").symlink_to("../file")
        os.link(copy.source / "a" / "plain", copy.source / "a" / "again", follow_symlinks=False)
        copy.run()
        assert [(copy.target / name).readlink() for name in ("a/link", "b/c/link")] == [
            Path("../file"),
            Path("../../file"),
        ]
        plain = [os.lstat(copy.target / "a" / name).st_ino for name in ("plain", "again")]
        assert plain[0] == plain[1]


def test_a_bug_while_writing_ends_the_copy_and_does_not_hang(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many more batches than the queue holds, and every worker meets it."""
    for number in range(1000):
        (copy.source / f"{number}").write_bytes(b"x")
    monkeypatch.setattr(tree_copier, "BATCH_FILES", 1)

    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(RelocationRecorder, "relocate_content", broken)
    with pytest.raises(ZeroDivisionError):
        copy.run()
