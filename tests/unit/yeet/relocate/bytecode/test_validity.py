"""The tracker of bytecode: what is valid, missing or stale does not depend on the order in which threads tell it."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import sys
import threading
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.model.entry import Entry
from ezpz.yeet.relocate.bytecode.validity import (
    CACHED_PATH,
    BytecodeTag,
    BytecodeTracker,
    StaleBytecode,
    estimate_missing,
    source_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

OURS = BytecodeTag(b"cpython-311", b"\xa7\x0d\x0d\x0a")
SITE = b"lib/python3.11/site-packages/"
TIME, SIZE = 1_700_000_000_123_456_789, 321
UNCHECKED, CHECKED = 1, 3


def source(path: bytes, mtime_ns: int = TIME, size: int = SIZE) -> Entry:
    return Entry(path, stat.S_IFREG | 0o644, mtime_ns, size)


def cached(path: bytes, tag: bytes = OURS.tag) -> bytes:
    folder, name = os.path.split(path)
    return os.path.join(folder, b"__pycache__", BytecodeTag(tag, b"").file_name(name))


def tracker_of(*paths: bytes, header: bytes | None = None) -> BytecodeTracker:
    """A tracker of sources, each with bytecode that begins like this."""
    tracker = BytecodeTracker(OURS)
    for path in paths:
        tracker.add_source(source(path))
        if header is not None:
            tracker.add_bytecode(cached(path), header)
    return tracker


class TestWhichAreExpected:
    """Those that import would compile."""

    @pytest.mark.parametrize(
        "path",
        [
            SITE + b"six.py", b"lib/python3.8/json/__init__.py", b"lib64/python3.13t/x.py", b"lib/python3.11/\xe9.py",
            b".python/lib/python3.11/os.py", b".editable/mine/mine/x.py", b"lib/python3.11/odd\nfolder/x.py",
        ],
    )  # fmt: skip
    def test_missing(self, path: bytes) -> None:
        assert tracker_of(path).stale() == StaleBytecode((path,), ())

    @pytest.mark.parametrize(
        "path",
        [
            b"bin/activate_this.py", b"share/lib/python3.11/x.py", b"lib/x.py", b"lib/python3/x.py", SITE + b"six.pyi",
            SITE + b"__pycache__/six.py", b"lib/python3.11/__pycache__/x.py", SITE + b"six.py.txt", b"x.py",
        ],
    )  # fmt: skip
    def test_nobody_misses(self, path: bytes) -> None:
        assert tracker_of(path).stale() == StaleBytecode((), ())


class TestHeaders:
    """Bytecode is judged as import judges it (PEP 552)."""

    PATH = SITE + b"six.py"

    @pytest.mark.parametrize(
        "header",
        [
            OURS.header(TIME, SIZE),
            OURS.magic + UNCHECKED.to_bytes(4, "little") + b"any hash",
            OURS.magic + CHECKED.to_bytes(4, "little") + b"any hash",
        ],
    )
    def test_valid(self, header: bytes) -> None:
        assert tracker_of(self.PATH, header=header).stale() == StaleBytecode((), ())

    @pytest.mark.parametrize(
        "header",
        [
            OURS.header(TIME + 10**9, SIZE), OURS.header(TIME, SIZE + 1), b"", OURS.header(TIME, SIZE)[:15],
            b"\0" + OURS.header(TIME, SIZE)[1:], OURS.magic + b"\2\0\0\0" + OURS.header(TIME, SIZE)[8:], bytes(16),
        ],
    )  # fmt: skip
    def test_stale(self, header: bytes) -> None:
        assert tracker_of(self.PATH, header=header).stale() == StaleBytecode((), (self.PATH,))

    @pytest.mark.parametrize("size", [0, 2**32 + 5])
    @pytest.mark.parametrize("seconds", [0, -1, 2**31, 2**32 + 7])
    def test_times_and_sizes_beyond_32_bits(self, seconds: int, size: int) -> None:
        tracker = BytecodeTracker(OURS)
        tracker.add_source(source(self.PATH, seconds * 10**9, size))
        number = (seconds & 0xFFFFFFFF).to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
        tracker.add_bytecode(cached(self.PATH), OURS.magic + bytes(4) + number)
        assert tracker.stale() == StaleBytecode((), ())

    @pytest.mark.parametrize("ns", [1_700_000_000_999_999_999, 1_700_000_000_999_999_700, -1_500_000_000, 1])
    def test_a_time_is_rounded_as_pythons_own_compiler_rounds_it(self, ns: int, tmp_path: Path) -> None:
        path = tmp_path / "six.py"
        path.write_bytes(b"x = 1\n")
        os.utime(path, ns=(ns, ns))
        assert path.stat().st_mtime_ns == ns
        seconds = int(path.stat().st_mtime) & 0xFFFFFFFF  # as importlib's SourceLoader does
        assert OURS.header(ns, 6)[8:12] == seconds.to_bytes(4, "little")

    @pytest.mark.parametrize(
        "name", [b"six.cpython-311.opt-1.pyc", b"six.cpython-39.pyc", b"six.pyc", b"six.cpython-311.so"]
    )
    def test_what_this_interpreter_does_not_read_is_no_bytecode_of_its(self, name: bytes) -> None:
        tracker = tracker_of(self.PATH)
        tracker.add_bytecode(SITE + b"__pycache__/" + name, OURS.header(TIME, SIZE))
        assert tracker.stale() == StaleBytecode((self.PATH,), ())

    def test_bytecode_without_a_source_is_nobodys_business(self) -> None:
        tracker = BytecodeTracker(OURS)
        tracker.add_bytecode(cached(SITE + b"gone.py"), b"")
        assert tracker.stale() == StaleBytecode((), ())


class TestPatched:
    """A file that relocation changed has no valid bytecode, whatever the bytecode says."""

    HEADERS = (OURS.header(TIME, SIZE), OURS.magic + b"\1\0\0\0" + bytes(8), OURS.magic + b"\3\0\0\0" + bytes(8), None)

    @pytest.mark.parametrize("header", HEADERS)
    def test_is_renewed(self, header: bytes | None) -> None:
        tracker = tracker_of(SITE + b"six.py", SITE + b"other.py", header=header)
        tracker.mark_rewritten(SITE + b"six.py")
        assert tracker.stale().outdated == (SITE + b"six.py",)
        assert tracker.stale().missing == (() if header else (SITE + b"other.py",))

    @pytest.mark.parametrize("tag", [OURS.tag, b"cpython-39", b"cpython-311.opt-1"])
    def test_where_import_compiles_nothing_only_what_has_bytecode_is(self, tag: bytes) -> None:
        tracker = tracker_of(b"bin/jp.py", b"bin/rst2html.py", b"bin/django-admin.py")
        tracker.add_bytecode(cached(b"bin/jp.py", tag), OURS.header(TIME, SIZE))
        tracker.add_bytecode(cached(b"bin/django-admin.py", tag), b"")
        for path in (b"bin/jp.py", b"bin/rst2html.py", b"bin/activate", b"lib/python3.11/x.txt"):
            tracker.mark_rewritten(path)
        assert tracker.stale() == StaleBytecode((), (b"bin/jp.py",))


NAMES = st.sampled_from([SITE + b"%d.py" % number for number in range(8)] + [b"bin/a.py", b"bin/b.py"])
HEADERS = {"valid": OURS.header(TIME, SIZE), "old": OURS.header(TIME, 1), "hashed": OURS.magic + b"\1" + bytes(11)}
VERDICTS = st.sampled_from(sorted(HEADERS))


@given(st.sets(NAMES), st.dictionaries(NAMES, VERDICTS), st.sets(NAMES), st.randoms(use_true_random=False))
def test_the_order_in_which_threads_tell_does_not_matter(
    sources: set[bytes], bytecode: dict[bytes, str], patched: set[bytes], random: Random
) -> None:
    tracker = BytecodeTracker(OURS)
    steps: list[Callable[[], None]] = [partial(tracker.add_source, source(path)) for path in sources]
    steps += [partial(tracker.add_bytecode, cached(path), HEADERS[what]) for path, what in bytecode.items()]
    steps += [partial(tracker.mark_rewritten, path) for path in patched]
    random.shuffle(steps)
    for step in steps:
        step()
    libraries = {path for path in sources if path.startswith(SITE)}
    renew = {path for path in libraries if bytecode.get(path) == "old" or path in patched}
    renew |= {path for path in bytecode if path.startswith(b"bin/") and path in patched}
    assert tracker.stale() == StaleBytecode(tuple(sorted(libraries - set(bytecode) - renew)), tuple(sorted(renew)))


def test_many_threads_tell_at_once() -> None:
    paths = [SITE + b"%d.py" % number for number in range(4000)]
    tracker = BytecodeTracker(OURS)

    def check(part: list[bytes]) -> None:
        for path in part:
            tracker.add_bytecode(cached(path), OURS.header(TIME, SIZE))

    threads = [threading.Thread(target=check, args=(paths[number:3000:4],)) for number in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for path in paths:
            tracker.add_source(source(path))
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert tracker.stale() == StaleBytecode(tuple(sorted(paths[3000:])), ())


@pytest.mark.scale
def test_300_000_files_take_less_than_100_mb() -> None:
    tracemalloc.start()
    try:
        tracker = BytecodeTracker(OURS)
        for number in range(30_000):
            path = SITE + b"a_package/of_usual/depth_%d/module_%d.py" % (number // 10, number)
            tracker.add_source(source(path, TIME + number, number))
        assert tracemalloc.get_traced_memory()[0] < 100e6 / 10
    finally:
        tracemalloc.stop()


PART = st.sampled_from(
    [
        b"__pycache__", b"x__pycache__", b"__pycache__x", b"lib", b"lib64", b"lib\n", b"python3.11", b"python3.13t",
        b"python3", b".python", b".editable", b"x.py", b"x.cpython-311.pyc", b".cpython-311.pyc", b"..cpython-311.pyc",
        b"x.cpython-311.opt-1.pyc", b"x.opt-1.cpython-311.pyc", b"x.cpython-39.pyc", b"x.y.cpython-311.pyc", b".py",
        b"a", b"x.pyc", b"odd\n.py", b"odd\n.cpython-311.pyc", b"cpython-311.pyc", b"xcpython-311.pyc",
    ]
)  # fmt: skip
PATHS = st.lists(PART, min_size=1, max_size=6).map(b"/".join)
IN_WORDS = re.compile(rb"(?:lib[^/]*/python\d+\.\d+t?|\.python|\.editable)/(?!(?:.*/)?__pycache__/)", re.DOTALL)


@given(PATHS, st.sampled_from([OURS.header(TIME, SIZE), b"stale"]))
def test_paths_are_told_apart_as_these_patterns_say(path: bytes, header: bytes) -> None:
    tracker = BytecodeTracker(OURS)
    tracker.add_source(source(path))
    is_expected = path.endswith(b".py") and IN_WORDS.match(path) is not None
    assert tracker.stale() == StaleBytecode((path,) if is_expected else (), ())

    match = CACHED_PATH.fullmatch(path)
    module = b"%b%b.py" % match.group(1, 2) if match else SITE + b"other.py"
    ours = match is not None and os.path.basename(path) == OURS.file_name(os.path.basename(module))
    tracker = BytecodeTracker(OURS)
    tracker.add_source(source(module))
    tracker.add_bytecode(path, header)
    if IN_WORDS.match(module) is not None:
        missing, renew = (() if ours else (module,)), ((module,) if ours and header == b"stale" else ())
        assert tracker.stale() == StaleBytecode(missing, renew)
    else:
        tracker.mark_rewritten(module)
        assert tracker.stale() == StaleBytecode((), (module,) if match else ())


class TestEstimate:
    """How much bytecode will be made, before anything moves."""

    @pytest.mark.parametrize(
        ("sizes", "size"),
        [((0,), 4096), ((1, 2730), 8192), ((2731,), 8192), ((40_000,), 61_440), ((), 0)],
    )  # fmt: skip
    def test_bytes_are_one_and_a_half_of_the_sources_in_whole_blocks(self, sizes: tuple[int, ...], size: int) -> None:
        entries = [source(SITE + b"%d.py" % number, TIME, each) for number, each in enumerate(sizes)]
        assert estimate_missing(entries, OURS.tag) == (len(sizes), size)

    def test_only_of_files_that_import_would_compile(self) -> None:
        entries = [source(SITE + b"x.py"), source(b".python/lib/x.py"), source(b"bin/x.py"), source(SITE + b"x.txt")]
        entries += [Entry(SITE + b"folder.py", stat.S_IFDIR | 0o755, TIME, 0)]
        entries += [Entry(SITE + b"link.py", stat.S_IFLNK | 0o777, TIME, 0, b"x.py")]
        assert estimate_missing(iter(entries), OURS.tag)[0] == 2

    @given(st.sets(PATHS), st.randoms(use_true_random=False))
    def test_it_is_what_the_tracker_misses_in_any_order(self, paths: set[bytes], random: Random) -> None:
        both = [*paths, *(cached(path) for path in sorted(paths) if random.random() < 0.5)]
        both = [*dict.fromkeys(both)]
        random.shuffle(both)
        tracker = BytecodeTracker(OURS)
        for path in both:
            tracker.add_source(source(path))
            tracker.add_bytecode(path, OURS.header(TIME, SIZE))
        missing = len(tracker.stale().missing)
        assert estimate_missing(map(source, both), OURS.tag) == (missing, missing * 4096)

    @pytest.mark.scale
    def test_of_300_000_files_it_takes_less_than_60_mb(self) -> None:
        """A tenth of them: tracemalloc makes it slow."""
        path = SITE + b"a_package/of_usual/depth_%d/module_%d.py"
        sources = [source(path % (number // 10, number), TIME, number) for number in range(30_000)]
        compiled = [source(cached(each.path)) for each in sources]
        for entries in (sources, compiled, [*sources, *compiled], [*compiled, *sources]):
            tracemalloc.start()
            try:
                estimate_missing(entries, OURS.tag)
                assert tracemalloc.get_traced_memory()[1] < 60e6 / 10
            finally:
                tracemalloc.stop()


@given(st.from_regex(r"[^/\0]{1,12}", fullmatch=True), st.sampled_from(["", "1", "2"]))
def test_a_name_in_a_cache_leads_back_to_its_source(name: str, optimised: str) -> None:
    made = importlib.util.cache_from_source(name + ".py", optimization=optimised)
    assert source_of(os.fsencode(os.path.basename(made))) == os.fsencode(name) + b".py"


@pytest.mark.parametrize("name", [b"six.pyc", b"x.nbi", b".pyc", b"six.cpython-311.pyc.140", b"a/b.cpython-311.pyc"])
def test_other_files_in_a_cache_come_from_no_source(name: bytes) -> None:
    assert source_of(name) is None
