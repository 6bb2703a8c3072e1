"""A receipt is read whichever ezpz wrote it, and is strict on the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common.messages.base import fields_of
from ezpz.agent.common.messages.receipt import FORMAT, MADE_OF, Receipt
from ezpz.agent.common.receipt import parse_receipt
from ezpz.agent.common.wire_paths import ProtocolError

FULL: dict[str, Any] = {
    "format": FORMAT, "ezpz": "0.1.0", "run": "20261120-164754-252269f7", "source": "/lus/env",
    "destination": "/tmp/env", "kind": "venv", "version": "a" * 64, "files": 3, "bytes": 1000, "relocation": "r",
    "inputs": "i", "interpreter": "/usr/bin/python3", "origins": ["/lus/env", "/lus/base"], "contents": "c",
    "listing": "l", "manifest": "m", "mode": "700", "public": False, "created": 1_795_193_274,
}  # fmt: skip
WRONG = {"str": 7, "Count": -1, "Optional[bool]": "yes", "Sequence[str]": [1]}


def parsed(fields: dict[str, Any]) -> Receipt | None:
    return parse_receipt(json.dumps(fields).encode())


def test_every_field_is_read() -> None:
    assert set(FULL) == set(fields_of(Receipt))
    receipt = parsed(FULL)
    assert receipt is not None
    assert receipt.to_json() == FULL


@pytest.mark.parametrize("name", sorted(set(FULL) - {"format"}))
def test_a_field_that_is_missing_or_wrong_has_its_default(name: str) -> None:
    rest = {key: value for key, value in FULL.items() if key != name}
    expected = Receipt(**rest)
    assert parsed(rest) == expected
    assert parsed({**FULL, name: WRONG[fields_of(Receipt)[name]]}) == expected


def test_a_field_of_a_newer_ezpz_is_left_out() -> None:
    assert parsed({**FULL, "self": 1, "planet": {"name": "x"}}) == Receipt(**FULL)


@pytest.mark.parametrize("said", [b"", b"\xff", b"[]", b"7", b"{}", b'{"format": "ezpz/receipt/2"}', b"[" * 100_000])
def test_what_is_no_receipt_is_none(said: bytes) -> None:
    assert parse_receipt(said) is None


@given(
    st.dictionaries(st.sampled_from(sorted(FULL)), st.none() | st.booleans() | st.integers() | st.text() | st.floats())
)
def test_no_value_is_a_failure(values: dict[str, Any]) -> None:
    receipt = parsed({**FULL, **values, "format": FORMAT})
    assert receipt is not None
    assert Receipt.from_json(receipt.to_json()) == receipt


@pytest.mark.parametrize(
    "wrong", [{"files": -1}, {"origins": "x"}, {"public": 1}, {"planet": 1}, {"created": True}], ids=str
)
def test_on_the_wire_a_wrong_field_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Receipt.from_json({**FULL, **wrong})


def test_a_receipt_that_does_not_say_whether_it_is_public_equals_neither() -> None:
    receipt = parsed({"format": FORMAT})
    assert receipt is not None
    assert receipt.public not in (True, False)
    assert set(MADE_OF) <= set(FULL)
