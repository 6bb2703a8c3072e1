"""Messages with typed fields, which are checked where they arrive.

The annotation of a field is a string: the name of a check or of a message, perhaps in Optional, Sequence, or Mapping.
Python 3.6 has no dataclasses, and needs 0.4 ms for each named tuple that it defines.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Dict, Type, TypeVar

from ..wire_paths import ProtocolError, decode_target

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        """Return a decorator that does nothing: the real one speaks to type checkers alone."""
        return lambda cls: cls


M = TypeVar("M", bound="Message")
SHOWN = 80  # characters of a bad value in an error
MAX_INT = (1 << 63) - 1

Count = int  # 0 or more
Port = int
Codec = int  # see `stream.codec`
Seconds = float  # 0 or more
Path = str  # as `wire_paths` encodes it; no NUL
Json = Dict[str, Any]

CHECKS: "Dict[str, Callable[[Any], bool]]" = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int and -MAX_INT <= value <= MAX_INT,
    "Count": lambda value: type(value) is int and 0 <= value <= MAX_INT,
    "Port": lambda value: type(value) is int and 0 < value < 1 << 16,
    "Codec": lambda value: type(value) is int and 0 <= value <= 2,
    "Seconds": lambda value: type(value) in (int, float) and 0 <= value <= MAX_INT,
    "Path": lambda value: isinstance(value, str) and b"\0" not in decode_target(value),
    "Json": lambda value: isinstance(value, dict) and all(isinstance(name, str) for name in value),
}
"""What a value of each basic kind is."""
MESSAGES: "Dict[str, Type[Message]]" = {}
"""All messages by name."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Message:
    """An object of named fields: subclasses annotate them, and give defaults to those that may be missing."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        MESSAGES[cls.__name__] = cls

    def __init__(self, **fields: Any) -> None:
        """Check the fields. Raise ProtocolError."""
        self.__dict__.update(_checked(type(self), fields))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # its lists may change

    def __repr__(self) -> str:
        return "{}({})".format(type(self).__name__, self.__dict__)

    @classmethod
    def from_json(cls: "Type[M]", found: Any) -> "M":
        """Return the message that a JSON object is. Raise ProtocolError."""
        if not CHECKS["Json"](found):
            raise ProtocolError("{}: not an object: {}".format(cls.__name__, shown(found)))
        made = cls.__new__(cls)  # a call would take a field named "self" for its own
        made.__dict__.update(_checked(cls, found))
        return made

    @classmethod
    def from_file(cls: "Type[M]", found: "Dict[str, Any]") -> "M":
        """Return the message in a file of another ezpz: fields that it does not know or that are wrong are left out."""
        fields = {}
        for name, kind in fields_of(cls).items():
            with suppress(KeyError, ProtocolError):
                fields[name] = _value_of(found[name], kind)
        return cls(**fields)

    def updated(self: M, **fields: Any) -> M:
        """Return a copy with other values of some fields. Raise ProtocolError."""
        return type(self)(**dict(self.__dict__, **fields))

    def to_json(self) -> "Dict[str, Any]":
        """Return the fields as JSON has them."""
        return {name: _json_of(getattr(self, name)) for name in fields_of(type(self))}


def fields_of(cls: "Type[Message]") -> "Dict[str, str]":
    """Return the kinds of a message's fields by name."""
    kinds: Dict[str, str] = getattr(cls, "__annotations__", {})
    return kinds


def _checked(cls: "Type[Message]", fields: "Dict[str, Any]") -> "Dict[str, Any]":
    kinds = fields_of(cls)
    for name in fields:
        if name not in kinds:
            raise ProtocolError("{}: unknown field {}".format(cls.__name__, shown(name)))
    values = {}
    for name, kind in kinds.items():
        if name not in fields and not hasattr(cls, name):
            raise ProtocolError("{}: '{}' is missing".format(cls.__name__, name))
        value = fields[name] if name in fields else getattr(cls, name)
        try:
            values[name] = _value_of(value, kind)
        except ProtocolError as e:
            raise ProtocolError("{}: '{}': {}".format(cls.__name__, name, e))
    return values


def _value_of(value: Any, kind: str) -> Any:
    """Return a value of a kind, its nested messages made of JSON. Raise ProtocolError."""
    outer, _, rest = kind.partition("[")
    inner = rest[:-1]
    if outer == "Optional":
        return None if value is None else _value_of(value, inner)
    if outer == "Sequence" and isinstance(value, (list, tuple)):
        return [_value_of(each, inner) for each in value]
    if outer == "Mapping" and CHECKS["Json"](value):
        return {name: _value_of(each, inner.partition(", ")[2]) for name, each in value.items()}
    if outer not in CHECKS and not rest:
        message = MESSAGES[outer]
        return value if isinstance(value, message) else message.from_json(value)
    if outer not in CHECKS or not CHECKS[outer](value):
        raise ProtocolError("not {}: {}".format(kind, shown(value)))
    return value


def _json_of(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_json()
    if isinstance(value, dict):
        return {name: _json_of(each) for name, each in value.items()}
    return [_json_of(each) for each in value] if isinstance(value, list) else value


def shown(value: Any) -> str:
    """Return a bad value for an error, whatever its size and depth."""
    if isinstance(value, str):
        return ascii(value[:SHOWN])
    simple = value is None or isinstance(value, (bool, float)) or CHECKS["int"](value)
    return repr(value) if simple else "a value of type {}".format(type(value).__name__)
