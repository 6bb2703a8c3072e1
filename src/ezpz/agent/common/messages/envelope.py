"""What all messages of a channel have in common."""

import json
from typing import Any, Dict, Tuple, Type

from ..wire_paths import ProtocolError
from .base import CHECKS, Count, Message, fields_of, shown

REQUESTS: "Dict[str, Type[AgentRequest]]" = {}
"""The requests that this agent knows, by op."""


class Failing(Message):
    """Why something was not done: a code of `ezpz.errors`, one line, and the next step."""

    code: "str"
    message: "str"
    hint: "str" = ""


class AgentRequest(Message):
    """Something that an agent is asked to do: `op` is its name, `answer` the message that is the result."""

    op = ""
    number = 0  # of the request in its session
    attached = b""  # bytes that follow it

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        REQUESTS[cls.op] = cls


class Answer(Message):
    """The result of a request."""


class Done(Answer):
    """Nothing but that it was done."""


class Ready(Message):
    """The first line of an agent."""

    ready: "str"
    host: "str" = ""
    python: "str" = ""


class RequestHeader(Message):
    """What is in every request: its number, which its answer repeats, its op, and how many bytes follow it."""

    id: "Count"
    op: "str"
    attached: "Count" = 0


def parse_line(line: bytes) -> "Tuple[RequestHeader, Dict[str, Any]]":
    """Return the header and the fields of a request from its line. Raise ProtocolError."""
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise ProtocolError("a request that is not JSON: {}".format(type(e).__name__))
    if not CHECKS["Json"](found):
        raise ProtocolError("a request that is not an object: {}".format(shown(found)))
    names = fields_of(RequestHeader)
    header = RequestHeader.from_json({name: value for name, value in found.items() if name in names})
    return header, {name: value for name, value in found.items() if name not in names}


def parse_request(op: str, fields: "Dict[str, Any]", number: int = 0, attached: bytes = b"") -> AgentRequest:
    """Return a request. Raise ProtocolError for one that is unknown, or whose fields are wrong."""
    kind = REQUESTS.get(op)
    if kind is None:
        raise ProtocolError("unknown request {}".format(shown(op)))
    request = kind.from_json(fields)
    request.__dict__.update(number=number, attached=attached)
    return request
