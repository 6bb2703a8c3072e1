"""An entry of a chunk becomes an array and back; what is not one is refused where it arrives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common.wire_paths import ProtocolError
from ezpz.agent.stream.chunk_entry import FIELDS, TIMES, ChunkEntry, parse_entry

SIZES = st.integers(0, (1 << 63) - 1)
TIMES_NS = st.integers(-(1 << 62), 1 << 62)
PATHS = (
    st.lists(st.binary(min_size=1, max_size=9), max_size=4)
    .map(b"/".join)
    .filter(lambda path: b"\0" not in path and not path.startswith(b"/") and b".." not in path)
)
VALUES: dict[str, st.SearchStrategy[Any]] = {"digest": st.text("0123456789abcdef"), "target": PATHS}
VALID: dict[str, list[Any]] = {
    "d": ["d", "a", 0o755, 1],
    "f": ["f", "a/b", 0o644, 2, 5, 0, 5, "0" * 64],
    "l": ["l", "c", 3, "../b"],
    "h": ["h", "d", "a/b"],
    "k": ["k", "e", 0o644, 2, 5, "0" * 64, "old", 4],
    "x": ["x", "f"],
}


@st.composite
def entries(draw: st.DrawFn) -> ChunkEntry:
    """Return an entry of any kind."""
    kind = draw(st.sampled_from(sorted(FIELDS)))
    values = {name: draw(VALUES.get(name, TIMES_NS if name in TIMES else SIZES)) for name in FIELDS[kind]}
    return ChunkEntry(kind, draw(PATHS), **values)


@given(entries())
def test_an_entry_survives_the_wire(entry: ChunkEntry) -> None:
    assert parse_entry(json.loads(json.dumps(entry.to_json()))) == entry


@pytest.mark.parametrize("kind", sorted(VALID))
def test_a_field_of_another_type_is_refused(kind: str) -> None:
    valid = VALID[kind]
    assert parse_entry(valid).to_json() == valid
    for place in range(1, len(valid)):
        wrong: tuple[Any, ...] = (None, True, 1.5, [], {}, "\ud800" if isinstance(valid[place], str) else "1")
        wrong += (1,) if isinstance(valid[place], str) else (1 << 63,)
        for value in wrong:
            if FIELDS[kind][place - 2 : place - 1] == ("digest",) and value == "\ud800" and place > 1:
                continue  # it is compared with digests, and equals none
            with pytest.raises(ProtocolError):
                parse_entry([*valid[:place], value, *valid[place + 1 :]])


@pytest.mark.parametrize(
    "record",
    [
        None, [], {}, "f", 7, ["z", "a"], [["f"], "a"], [None, "a"], ["x"], ["x", "a", 1], ["d", "a", 1],
        ["d", "a", -1, 0], ["f", "a", 0, 0, 5, -1, 5, ""], ["f", "a", 0, 0, 5, 0, -5, ""],
        ["f", "a", 0, 0, -5, 0, 5, ""],
        ["k", "a", 0, 0, -1, "", "b", 0],
    ],
)  # fmt: skip
def test_what_is_no_entry_is_refused(record: Any) -> None:
    with pytest.raises(ProtocolError):
        parse_entry(record)


@pytest.mark.parametrize("path", ["/etc/passwd", "..", "a/../../b", "a\0b"])
@pytest.mark.parametrize(("kind", "place"), [*((kind, 1) for kind in sorted(VALID)), ("h", 2), ("k", 6)])
def test_a_path_that_leads_out_is_refused(kind: str, place: int, path: str) -> None:
    record = [*VALID[kind]]
    record[place] = path
    with pytest.raises(ProtocolError):
        parse_entry(record)


def test_the_target_of_a_link_may_lead_anywhere_but_has_no_nul() -> None:
    assert parse_entry(["l", "c", 3, "/etc/passwd"]).target == b"/etc/passwd"
    with pytest.raises(ProtocolError):
        parse_entry(["l", "c", 3, "a\0b"])
