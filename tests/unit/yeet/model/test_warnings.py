"""Notices: cases are counted, a few paths of each are kept, and every case has its words."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.model import warnings
from ezpz.yeet.model.warnings import MAX_KEPT, MAX_SHOWN, MESSAGES, SourceWarnings

SOURCES = Path(warnings.__file__).parents[1]


def test_one_line_a_case_in_the_order_of_the_words() -> None:
    found = SourceWarnings()
    for case in reversed(MESSAGES):
        found.add(case, b"x")
        found.add(case, b"y")
    assert [warning.case for warning in found.warnings()] == list(MESSAGES)
    assert {warning.count for warning in found.warnings()} == {2}
    assert all("'x', 'y'" in warning.text for warning in found.warnings())


@given(st.integers(min_value=1, max_value=30))
def test_the_first_few_are_named_and_all_are_counted(count: int) -> None:
    found = SourceWarnings()
    for number in range(count):
        found.add("setuid", b"f%d" % number)
    (warning,) = found.warnings()
    assert warning.count == count
    assert warning.paths == tuple(f"f{number}" for number in range(min(count, MAX_KEPT)))
    assert warning.text.count("'f") == min(count, MAX_SHOWN)
    assert (f" and {count - MAX_SHOWN} more" in warning.text) == (count > MAX_SHOWN)


@given(st.binary(max_size=12))
def test_a_name_cannot_fake_a_line(name: bytes) -> None:
    found = SourceWarnings()
    found.add("special-file", name)
    (warning,) = found.warnings()
    assert warning.text.isprintable()
    assert all(path.isprintable() for path in warning.paths)


def test_nothing_is_said_of_nothing() -> None:
    assert SourceWarnings().warnings() == ()


def test_many_threads_lose_none() -> None:
    found = SourceWarnings()

    def note() -> None:
        for _ in range(500):
            found.add("setuid", b"x")

    threads = [threading.Thread(target=note) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.counts == {"setuid": 2000}
    assert len(found.paths["setuid"]) == MAX_KEPT


def test_every_case_is_noted_somewhere() -> None:
    text = "".join(path.read_text() for path in SOURCES.rglob("*.py") if path.name != "warnings.py")
    assert [case for case in MESSAGES if f'"{case}"' not in text] == []


def test_what_is_noted_has_words() -> None:
    texts = [path.read_text() for path in SOURCES.rglob("*.py")]
    noted = {case for text in texts for case in re.findall(r'\bnotices\.add\(\s*"([^"]+)"', text)}
    assert noted
    assert noted <= set(MESSAGES)
