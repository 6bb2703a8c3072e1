"""Events that an agent reports."""

from typing import Any, Dict, Optional, Sequence, Type

from ..wire_paths import ProtocolError
from .base import CHECKS, Count, Message, Seconds, shown
from .envelope import Failing
from .parts import PeerAddress


class Event(Message):
    """Something that an agent reports without a request for it."""


class ProgressEvent(Event):
    """Bytes that an rsync has copied."""

    bytes: "Count"


class StartedEvent(Event):
    """An agent was started and listens, or was not, with the exit status and stderr of what should start it."""

    started: "str"
    where: "Optional[PeerAddress]" = None
    status: "int" = 0
    stderr: "str" = ""


class StreamEvent(Event):
    """Something that happened to a stream."""

    stream = ""

    def to_json(self) -> "Dict[str, Any]":
        return dict(Event.to_json(self), stream=self.stream)


class PositionEvent(StreamEvent):
    """How far the stream is: chunks received, bytes on the wire, bytes of content, and the time of the node."""

    stream = "at"
    position: "Count"
    wire: "Count"
    content: "Count"
    time: "Seconds"


class AdvancedEvent(StreamEvent):
    """Progress that writes nothing."""

    stream = "advanced"


class ReceivedEvent(StreamEvent):
    """All of it was received and compared."""

    stream = "whole"


class DamagedEvent(StreamEvent):
    """Chunks that have to be sent again."""

    stream = "damaged"
    chunks: "Sequence[Count]"


class FailedEvent(StreamEvent):
    """The node cannot write what it receives."""

    stream = "failed"
    failure: "Failing"


class ServingEvent(StreamEvent):
    """A connection to a child was made, by tcp or ssh."""

    stream = "serving"
    serial: "Count"
    how: "str"


class RefusedEvent(StreamEvent):
    """A child cannot be reached."""

    stream = "refused"
    serial: "Count"
    why: "str"


class LostEvent(StreamEvent):
    """The connection to a child broke."""

    stream = "lost"
    serial: "Count"
    why: "str"


class CutEvent(StreamEvent):
    """The connection from the parent broke."""

    stream = "cut"
    serial: "Count"
    why: "str"


STREAM_EVENTS: "Dict[str, Type[StreamEvent]]" = {each.stream: each for each in StreamEvent.__subclasses__()}


def parse_event(found: Any) -> Event:
    """Return an event from the JSON object that it is. Raise ProtocolError."""
    fields = dict(found) if CHECKS["Json"](found) else {}
    if "stream" not in fields:
        return (StartedEvent if "started" in fields else ProgressEvent).from_json(found)
    name = fields.pop("stream")
    kind = STREAM_EVENTS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError("unknown event {}".format(shown(name)))
    return kind.from_json(fields)
