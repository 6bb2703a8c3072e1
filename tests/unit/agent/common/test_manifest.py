"""The manifest: what is written is read again, what is damaged is refused, what a tree has unlike it is found."""

from __future__ import annotations

import contextlib
import io
import os
import random
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common import manifest, tree_version
from ezpz.agent.common.cancel import NEVER, CancelToken
from ezpz.agent.common.manifest import BLOCK, ManifestEntry, Unreadable
from ezpz.agent.common.messages.receipt import Receipt
from ezpz.agent.common.wire_paths import encode_path
from ezpz.agent.destination import installed
from ezpz.yeet.model.entry import Entry, Provenance
from ezpz.yeet.pipeline.replay import feed_tree
from ezpz.yeet.transfer.entry_tee import EntryTee
from tests.lab.nasty import nasty_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ezpz.yeet.transfer.manifest_builder import ManifestSummary

names = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name and not name.startswith(b"/"))
paths = names.filter(lambda name: b".." not in name).map(encode_path)
numbers = st.integers(0, 2**63)
records = st.one_of(
    st.tuples(st.just("d"), paths, numbers, numbers),
    st.tuples(st.just("f"), paths, numbers, numbers, numbers, st.text(max_size=64)),
    st.tuples(st.just("l"), paths, numbers, paths),
).map(lambda record: manifest.parse_entry(list(record)))


def packed(lines: list[bytes]) -> bytes:
    file = io.BytesIO()
    manifest.write(file, {}, lines)
    return file.getvalue()


def arrays(made: ManifestSummary) -> list[list[Any]]:
    return sorted(entry.to_json() for entry in manifest.read(made.manifest))


def taken(root: Path) -> ManifestSummary:
    intake = EntryTee()
    feed_tree(os.fsencode(root), intake, CancelToken())
    found = intake.end()
    intake.close()
    return found


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    return nasty_tree(tmp_path / "nasty")


def differences(root: Path, made: ManifestSummary, *, contents: bool = False) -> manifest.Differences:
    records = manifest.by_name(manifest.read(made.manifest))
    return manifest.compare(os.fsencode(root), records, NEVER, contents=contents)


class TestLines:
    @given(st.lists(records, max_size=30), st.randoms())
    def test_what_is_written_is_read_again_and_its_order_does_not_matter(
        self, entries: list[ManifestEntry], rng: random.Random
    ) -> None:
        lines = [manifest.line_of(entry) for entry in entries]
        assert manifest.read(packed(lines)) == entries
        assert [manifest.parse_line(line) for line in lines] == entries
        contents = manifest.content_digest(sum(map(manifest.line_hash, lines)))
        rng.shuffle(lines)
        assert manifest.content_digest(sum(map(manifest.line_hash, lines))) == contents

    @given(st.lists(records, min_size=1, max_size=5), st.data())
    def test_one_that_is_damaged_is_refused(self, entries: list[ManifestEntry], data: st.DataObject) -> None:
        whole = packed([manifest.line_of(entry) for entry in entries])
        receipt = Receipt(manifest=manifest.manifest_digest(whole))
        assert installed.check_manifest(whole, receipt) == entries
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
        for wrong in (damaged, whole[:at], whole + b"x"):
            with pytest.raises(Unreadable):
                installed.check_manifest(wrong, receipt)
            with contextlib.suppress(Unreadable):  # whatever else is raised would be a traceback on a node
                manifest.read(wrong)

    @pytest.mark.parametrize(
        "line",
        [
            b"", b"{}", b"[]", b"[1]", b'["q","a"]', b'["f","a",1,1,1]', b'["f","a","1",1,1,""]', b'["d",1,1,1]',
            b"[" * 9999, b'[{},"a",1,1]', b"\xff",
        ],
    )  # fmt: skip
    def test_a_line_that_is_no_entry(self, line: bytes) -> None:
        with pytest.raises(Unreadable):
            manifest.parse_line(line)

    @pytest.mark.parametrize(
        "content",
        [b"", b"\n", b'{"format": "ezpz/manifest/9"}\n', b'{"format": "ezpz/manifest/1"}', b"[]\n", b"1\n\n"]
        + [b'{"format": "ezpz/manifest/1"}\n' + line + b"\n" for line in (b"{}", b"[]", b"[1]", b'["f"]', b"1,", b"]")],
    )
    def test_what_is_no_manifest(self, content: bytes) -> None:
        with pytest.raises(Unreadable):
            manifest.read(zlib.compress(content))


class TestDigest:
    @pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
    def test_of_bytes_and_of_a_file_are_one(self, tmp_path: Path, size: int) -> None:
        data = random.Random(size).randbytes(size)
        path = tmp_path / "file"
        path.write_bytes(data)
        with path.open("rb") as file:
            assert manifest.digest_file(file.fileno(), size) == manifest.digest(data)


class TestIntake:
    def test_it_counts_what_a_survey_counts(self, nasty: Path) -> None:
        found = taken(nasty)
        assert found.survey == tree_version.summarize(os.fsencode(nasty))
        assert taken(nasty).contents == found.contents
        assert differences(nasty, found, contents=True) == ([], [], [])

    def test_of_several_names_it_does_not_matter_which_was_taken_first(self) -> None:
        names = [b"b", b"a", b"c"]
        found = set()
        for first, *others in (names, names[::-1], [b"a", b"c", b"b"]):
            intake = EntryTee()
            intake.file(Entry(first, 0o100644, 1, 4), b"data", Provenance(4))
            for other in others:
                intake.hard_link(other, first)
            taken = intake.end()
            found.add((taken.contents, taken.survey))
            assert arrays(taken)[1:] == [["h", "b", "a"], ["h", "c", "a"]]
        assert len(found) == 1

    def test_what_was_superseded_does_not_count(self) -> None:
        intake = EntryTee()
        intake.directory(b"f", 0o700, 1)
        intake.file(Entry(b"f/a", 0o100644, 1, 3), b"old", Provenance(3))
        intake.file(Entry(b"gone", 0o100644, 1, 3), b"old")
        intake.barrier()
        for path in (b"f/a", b"gone"):
            intake.remove(path)
        intake.file(Entry(b"f/a", 0o100600, 2, 3), b"newer", Provenance(3, changed=True, replaced=2))
        intake.directory(b"f", 0o755, 3)
        found = arrays(intake.end())
        digest = manifest.digest(b"newer")
        assert found == [["d", "f", 0o755, 3], ["f", "f/a", 0o600, 2, 5, digest, [3, True, 2, "", ""]]]

    def test_blocks_in_any_order_are_one_file(self) -> None:
        data = random.Random(0).randbytes(3 * BLOCK + 5)
        entry = Entry(b"large", 0o100644, 1, len(data))
        starts = [*range(0, len(data), BLOCK)]
        for order in (starts, starts[::-1]):
            intake = EntryTee()
            for start in order:
                intake.block(entry, start, data[start : start + BLOCK])
            assert manifest.read(intake.end().manifest)[0].digest == manifest.digest(data)


def _shrink(path: Path) -> None:
    path.write_text("x")


def _flip(path: Path) -> None:
    """Another content of the same size and time."""
    times = path.stat()
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


class TestDifferences:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "root"
        (root / "folder").mkdir(parents=True)
        for name in ("a", "b", "folder/c"):
            (root / name).write_text(f"this is {name}")
        (root / "link").symlink_to("a")
        os.link(root / "a", root / "folder" / "further")
        return root

    @pytest.mark.parametrize(
        ("change", "changed", "missing", "extra"),
        [
            (lambda root: None, [], [], []),
            (lambda root: _shrink(root / "b"), ["b"], [], []),
            (lambda root: (root / "b").chmod(0o600), ["b"], [], []),
            (lambda root: (root / "folder").chmod(0o700), ["folder"], [], []),
            (lambda root: os.utime(root / "b", (1, 1)), ["b"], [], []),
            (lambda root: (root / "b").unlink(), [], ["b"], []),
            (lambda root: (root / "new").touch(), [], [], ["new"]),
            (lambda root: _shrink(root / "a"), ["a", "folder/further"], [], []),
            (lambda root: ((root / "link").unlink(), (root / "link").symlink_to("b")), ["link"], [], []),
            (lambda root: ((root / "b").unlink(), (root / "b").mkdir()), ["b"], [], []),
        ],
    )
    def test_each_is_found(
        self, root: Path, change: Callable[[Path], object], changed: list[str], missing: list[str], extra: list[str]
    ) -> None:
        made = taken(root)
        change(root)
        found = differences(root, made)
        assert [sorted(map(encode_path, each)) for each in found] == [changed, missing, extra]

    def test_content_alone_is_found_by_reading(self, root: Path) -> None:
        made = taken(root)
        _flip(root / "b")
        assert differences(root, made) == ([], [], [])
        assert differences(root, made, contents=True).changed == [b"b"]

    def test_a_time_that_its_filesystem_cannot_keep_is_the_same(self) -> None:
        told = 1_700_000_000_123_456_789
        same = (told, 1_700_000_000_123_456_700, 1_700_000_000_123_456_000, 1_700_000_000_000_000_000)
        assert all(manifest.same_time(standing_at, told) for standing_at in same)
        assert not any(manifest.same_time(told + by, told) for by in (1, -1, 1000, 10**9, -(10**9)))
