"""An entry in the list of a chunk, and the JSON array that represents it. Pure.

    ["d", path, mode, mtime_ns]                                             a directory
    ["f", path, mode, mtime_ns, size, offset, length, sha256]               a file, or a piece of one
    ["l", path, mtime_ns, target]                                           a symbolic link
    ["h", path, path of the first name]                                     a hard link to a file or link
    ["k", path, mode, mtime_ns, size, digest, old path, old mtime_ns]       a file of the version in place, kept
    ["x", path]                                                             what was sent of it before is not valid

The digest of a file that is kept is that of its manifest. Paths are relative to the top, which is "" itself. Bytes that
are not UTF-8 are lone surrogates.
"""

from operator import attrgetter
from typing import Any, Dict, List, NamedTuple, Tuple

from ..common.wire_paths import ProtocolError, decode_path, decode_target, encode_path

FIELDS: "Dict[str, Tuple[str, ...]]" = {
    "d": ("mode", "mtime_ns"),
    "f": ("mode", "mtime_ns", "size", "offset", "length", "digest"),
    "l": ("mtime_ns", "target"),
    "h": ("target",),
    "k": ("mode", "mtime_ns", "size", "digest", "target", "target_mtime_ns"),
    "x": (),
}  # after the kind and the path
STRINGS, TIMES = ("digest", "target"), ("mtime_ns", "target_mtime_ns")  # all others are numbers from 0
TYPES = {
    kind: [str, str, *(str if name in STRINGS else int for name in names)] for kind, names in FIELDS.items()
}  # of the elements of an array
VALUES = {kind: attrgetter("kind", "path", *names) for kind, names in FIELDS.items()}
MAX_INT = (1 << 63) - 1
SHOWN = 200  # characters of a bad entry in an error


class ChunkEntry(NamedTuple):
    """An entry of a chunk.

    Attributes:
        kind: "d", "f", "l", "h", "k", or "x"
        size: of the whole file, in bytes
        digest: of the content of a piece, or of a file that is kept
        offset: of a piece in its file
        length: of a piece, in bytes
        target: of a symbolic link; the path of the first name; the path in the version in place
        target_mtime_ns: the time of a file in the version in place, by which a change is seen
    """

    kind: str
    path: bytes
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    digest: str = ""
    offset: int = 0
    length: int = 0
    target: bytes = b""
    target_mtime_ns: int = 0

    def to_json(self) -> List[Any]:
        """Return the array of an entry."""
        return [encode_path(value) if isinstance(value, bytes) else value for value in VALUES[self.kind](self)]


def parse_entry(record: Any) -> ChunkEntry:
    """Return an entry, from its array. Raise ProtocolError."""
    kind = str(record[0]) if isinstance(record, list) and record else ""
    if kind not in FIELDS or list(map(type, record)) != TYPES[kind]:
        raise ProtocolError("no entry: {!r}".format(record)[:SHOWN])
    values: "Dict[str, Any]" = dict(zip(FIELDS[kind], record[2:]))
    for name, value in values.items():
        if name not in STRINGS and not (-MAX_INT if name in TIMES else 0) <= value <= MAX_INT:
            raise ProtocolError("no entry: {!r}".format(record)[:SHOWN])
    if "target" in values:
        values["target"] = decode_path(values["target"]) if kind != "l" else decode_target(values["target"])
        if b"\0" in values["target"]:
            raise ProtocolError("no entry: {!r}".format(record)[:SHOWN])
    return ChunkEntry(kind, decode_path(record[1]), **values)
