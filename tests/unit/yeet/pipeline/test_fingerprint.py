"""Inputs: the same entries have the same name in whatever order they are found, and other entries another one."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.model.entry import Entry
from ezpz.yeet.pipeline.fingerprint import inputs_of
from ezpz.yeet.source.scan import Scan

if TYPE_CHECKING:
    import random

PLAIN = [Entry(b"folder", 0o40755, 1, 0), Entry(b"folder/link", 0o120777, 1, 0, b"a"), Entry(b"a", 0o100644, 1, 5)]


def inputs(*batches: list[Entry]) -> str:
    scanned = Scan(b"/")
    for batch in batches:
        scanned.add(batch)
    found = inputs_of(scanned, None)
    scanned.close()
    return found


@given(st.randoms(use_true_random=False), st.integers(0, len(PLAIN)))
def test_neither_order_nor_batches_matter(rng: random.Random, cut: int) -> None:
    entries = PLAIN[:]
    rng.shuffle(entries)
    assert inputs(entries[:cut], entries[cut:]) == inputs(PLAIN)


def test_of_several_names_any_may_be_found_first() -> None:
    file = Entry(b"", 0o100644, 1, 5)
    found = {
        inputs([file._replace(path=first), *(file._replace(path=other, link=first) for other in others)])
        for first, *others in permutations((b"x", b"y", b"z"))
    }
    assert len(found) == 1
    assert found != {inputs([file._replace(path=path) for path in (b"x", b"y", b"z")])}


def test_every_fact_matters() -> None:
    entry = Entry(b"a", 0o100644, 1, 5)
    changed = (
        {"path": b"b"}, {"mode": 0o100600}, {"mtime_ns": 2}, {"size": 6}, {"origin": b"/x"}, {"content": b"12345"},
    )  # fmt: skip
    assert len({inputs([entry]), *(inputs([entry._replace(**facts)]) for facts in changed)}) == 1 + len(changed)
    links = [Entry(b"l", 0o120777, 1, 0, target) for target in (b"a", b"b")]
    assert len({inputs([link]) for link in links}) == 2
