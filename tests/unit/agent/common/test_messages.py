"""Messages of the agent: what is sent is what arrives, anything else is refused, and the page lists all of it."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common.messages import answers, envelope, events, parts, queries, requests
from ezpz.agent.common.messages.base import CHECKS, MESSAGES, Message, fields_of
from ezpz.agent.common.wire_paths import ProtocolError
from ezpz.agent.query_server import QueryServer
from ezpz.agent.server import AgentServer
from tests.paths import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

ABSTRACT = {Message, envelope.AgentRequest, envelope.Answer, events.Event, events.StreamEvent}
KINDS = [each for each in MESSAGES.values() if each not in ABSTRACT]
MODULES = (answers, envelope, events, parts, queries, requests)

counts = st.integers(0, (1 << 63) - 1)
names = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "str": names,
    "bool": st.booleans(),
    "int": st.integers(-(1 << 62), 1 << 62),
    "Count": counts,
    "Port": st.integers(1, 65535),
    "Codec": st.integers(0, 2),
    "Seconds": st.floats(0, 1e9) | counts,
    "Path": st.binary(max_size=20).map(lambda path: path.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
    "Json": st.dictionaries(names, json_values, max_size=3).filter(lambda value: "nan" not in repr(value)),
}


def values_of(kind: str) -> st.SearchStrategy[Any]:
    outer, _, rest = kind.partition("[")
    inner = rest[:-1]
    if outer == "Optional":
        return st.none() | values_of(inner)
    if outer == "Sequence":
        return st.lists(values_of(inner), max_size=3)
    if outer == "Mapping":
        return st.dictionaries(names, values_of(inner.partition(", ")[2]), max_size=3)
    return VALUES[outer] if outer in VALUES else messages_of(MESSAGES[outer])


def messages_of(kind: type[Message]) -> st.SearchStrategy[Message]:
    return st.fixed_dictionaries({name: values_of(each) for name, each in fields_of(kind).items()}).map(kind.from_json)


def received(message: Message) -> Any:
    """Return what arrives, after it was sent as a line."""
    return json.loads(json.dumps(message.to_json()))


@given(kind=st.sampled_from(KINDS), data=st.data())
def test_what_is_sent_is_what_arrives(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages_of(kind))
    if isinstance(message, events.Event):
        assert events.parse_event(received(message)) == message
    elif isinstance(message, envelope.AgentRequest):
        line = json.dumps({**message.to_json(), "id": 7, "op": message.op, "attached": 0}).encode()
        header, fields = envelope.parse_line(line)
        found = envelope.parse_request(header.op, fields, header.id)
        assert (found.number, found.to_json()) == (7, message.to_json())
    else:
        assert kind.from_json(received(message)) == message


@given(kind=st.sampled_from(KINDS), data=st.data())
def test_hostile_json_is_refused_and_nothing_else_happens(kind: type[Message], data: st.DataObject) -> None:
    fields = st.fixed_dictionaries({}, optional=dict.fromkeys([*fields_of(kind), "self", "cls"], json_values))
    hostile = data.draw(json_values | fields)
    for parse in (kind.from_json, events.parse_event, lambda found: envelope.parse_line(json.dumps(found).encode())):
        with contextlib.suppress(ProtocolError):  # anything else that is raised would be a traceback
            parse(hostile)


@pytest.mark.parametrize("line", [b"", b"\xff", b"[" * 100_000, b"1", b"{}", b'{"id": -1, "op": "heartbeat"}', b"NaN"])
def test_a_line_that_is_no_request(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        envelope.parse_line(line)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: requests.LookRequest.from_json({}), "LookRequest: 'dst' is missing"),
        (lambda: requests.LookRequest.from_json({"dst": "/a", "x": 1}), "LookRequest: unknown field 'x'"),
        (lambda: requests.LookRequest.from_json({"dst": 1}), "LookRequest: 'dst': not Path: 1"),
        (lambda: requests.LookRequest.from_json({"dst": "a\0b"}), r"LookRequest: 'dst': not Path: 'a\x00b'"),
        (lambda: requests.ReleaseRequest.from_json({"serial": True}), "ReleaseRequest: 'serial': not Count: True"),
        (lambda: requests.ReleaseRequest.from_json({"serial": -1}), "ReleaseRequest: 'serial': not Count: -1"),
        (lambda: requests.ReleaseRequest.from_json([]), "ReleaseRequest: not an object: a value of type list"),
        (
            lambda: requests.ServeRequest.from_json({"serial": 1, "to": {"name": "n"}}),
            "ServeRequest: 'to': PeerAddress: 'address' is missing",
        ),
        (lambda: envelope.parse_request("sing", {}), "unknown request 'sing'"),
        (lambda: events.parse_event({"stream": "sung"}), "unknown event 'sung'"),
    ],
)
def test_an_error_says_which_field_and_why(make: Callable[[], Message], why: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{re.escape(why)}$"):
        make()


def test_every_annotation_is_a_check_or_a_message() -> None:
    for kind in KINDS:
        for each in fields_of(kind).values():
            words = set(re.findall(r"\w+", each)) - {"Optional", "Sequence", "Mapping"}
            assert words <= {*CHECKS, *MESSAGES}, kind


def test_every_request_has_a_method_of_an_agent_and_every_method_a_request() -> None:
    for server, modules in ((AgentServer, (queries, requests)), (QueryServer, (queries,))):
        known = {each.op for module in modules for each in vars(module).values() if _is_request(each)}
        assert {name[3:] for name in dir(server) if name.startswith("do_")} == known


def _is_request(each: object) -> bool:
    return isinstance(each, type) and issubclass(each, envelope.AgentRequest) and each is not envelope.AgentRequest


def rows(title: str) -> dict[str, list[str]]:
    """Return the rows of a table of the page, by their first cells."""
    page = (REPOSITORY / "docs" / "reference" / "protocol.md").read_text()
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in found}


def listed(cell: str) -> dict[str, tuple[str, bool]]:
    """Return the fields in a cell, by name: the kind, and whether it may be missing."""
    fields = re.findall(r"`(\w+)`(\??) ([\w\\\[\], ]+?)(?=, `|$)", cell)
    return {name: (kind.replace("\\", "").strip(), bool(optional)) for name, optional, kind in fields}


def stated(kind: type[Message]) -> dict[str, tuple[str, bool]]:
    return {name: (each, hasattr(kind, name)) for name, each in fields_of(kind).items()}


def test_the_page_lists_every_request_with_its_fields_and_its_answer() -> None:
    there = {op: (listed(cells[0]), cells[1]) for op, cells in rows("Requests").items()}
    known = {**envelope.REQUESTS}
    assert there == {op: (stated(kind), f"`{kind.answer.__name__}`") for op, kind in known.items()}  # type: ignore[attr-defined]


def test_the_page_lists_every_event_of_a_stream() -> None:
    there = {name: listed(cells[0]) for name, cells in rows("Events of a stream").items()}
    assert there == {name: stated(kind) for name, kind in events.STREAM_EVENTS.items()}


def test_the_page_lists_every_other_message() -> None:
    others = set(KINDS) - {*envelope.REQUESTS.values(), *events.STREAM_EVENTS.values()}
    there = {name: listed(cells[0]) for name, cells in rows("Objects").items()}
    assert there == {kind.__name__: stated(kind) for kind in others}
