"""Entries of a tree as the payload of a chunk, and back. Pure.

The payload is the length of the list, the list, and the content of the files in a row. List and content are compressed
each by itself. The list is JSON, one array for each entry:

    ["d", path, mode, mtime_ns]                                             a directory
    ["f", path, mode, mtime_ns, size, offset, length, sha256]               a file, or a piece of one
    ["l", path, mtime_ns, target]                                           a symbolic link
    ["h", path, path of the first name]                                     a hard link to a file or link
    ["k", path, mode, mtime_ns, size, digest, old path, old mtime_ns]       a file of the version in place, kept
    ["x", path]                                                             what was sent of it before is not valid

The digest of a file that is kept is that of its manifest. Paths are relative to the top, which is "" itself. Bytes that
are not UTF-8 are lone surrogates.
"""

import hashlib
import json
import struct
from typing import Any, List, Tuple

from ..common.wire_paths import ProtocolError
from ..common.zstd import CorruptData, Data
from .codec import Codec

CONTENT_LIMIT = 704 << 10  # bytes of content in a chunk
LIST_LIMIT = 256 << 10  # bytes of its list; with the longest possible paths it may be a little more
MAX_LIST = LIST_LIMIT + (64 << 10)
LENGTH = struct.Struct(">II")  # bytes of the list as it is sent, and its codec
FIELDS = {"d": 4, "f": 8, "l": 4, "h": 3, "k": 8, "x": 2}


def digest(content: bytes) -> str:
    """Return the SHA-256 of a piece of content."""
    return hashlib.sha256(content).hexdigest()


def pack(records: List[List[Any]], content: bytes, codec: Codec, kind: int, level: int) -> Tuple[int, bytes]:
    """Return the codec of the content, and the payload."""
    list_kind, packed_list = codec.pack(json.dumps(records, separators=(",", ":")).encode(), kind, level)
    kind, packed = codec.pack(content, kind, level)
    return kind, LENGTH.pack(len(packed_list), list_kind) + packed_list + packed


def split(payload: memoryview) -> Tuple[int, bytes, memoryview]:
    """Return the codec of the list, the list, and the content, still packed. Raise ProtocolError."""
    if len(payload) < LENGTH.size:
        raise ProtocolError("a chunk of {} bytes".format(len(payload)))
    length, kind = LENGTH.unpack(payload[: LENGTH.size])
    rest = payload[LENGTH.size :]
    if length > len(rest):
        raise ProtocolError("a list that is longer than its chunk")
    return kind, bytes(rest[:length]), rest[length:]


def parse_list(packed: bytes, kind: int, codec: Codec) -> List[List[Any]]:
    """Return the entries of a list, each with as many fields as its kind has. Raise ProtocolError."""
    try:
        records = json.loads(bytes(codec.unpack(packed, kind, MAX_LIST)).decode())
    except (ValueError, CorruptData, RecursionError) as e:
        raise ProtocolError("a list that cannot be read: {}".format(e))
    if not isinstance(records, list):
        raise ProtocolError("no list")
    for record in records:
        if not isinstance(record, list) or not record or FIELDS.get(str(record[0])) != len(record):
            raise ProtocolError("no entry: {!r}".format(record)[:200])
    return records


def unpack_content(packed: Data, kind: int, codec: Codec) -> Data:
    """Return the content of a chunk. Raise ProtocolError."""
    try:
        return codec.unpack(packed, kind, CONTENT_LIMIT)
    except CorruptData as e:
        raise ProtocolError("content that cannot be read: {}".format(e))
