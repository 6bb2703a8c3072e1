"""Chunks: entries of a tree as bytes, and back. Pure.

The payload of a chunk is the length of its list, the list, and the content of its files one behind the other; list and
content are compressed each by itself. The list is JSON, one array for each entry:

    ["d", path, mode, mtime_ns]                                             a folder
    ["f", path, mode, mtime_ns, size, offset, length, sha256]               a file, or a piece of one
    ["l", path, mtime_ns, target]                                           a symbolic link
    ["h", path, path of the first name]                                     a further name of a file or link
    ["k", path, mode, mtime_ns, size, digest, old path, old mtime_ns]       a file of the version in place, kept
    ["x", path]                                                             what was sent of it before counts no more

The digest of a file that is kept is its manifest's. Paths are relative to the top, which is "" itself; bytes that are
no UTF-8 travel as lone surrogates.
"""

import hashlib
import json
import struct
from typing import Any, List, Tuple

from ezpz.agent.common.wire_paths import ProtocolError
from ezpz.agent.stream.codec import Codec, Data, Unpackable

CONTENT_LIMIT = 704 << 10  # bytes of content in a chunk
LIST_LIMIT = 256 << 10  # bytes of its list; with the longest paths that there are it may be a little more
MOST_LIST = LIST_LIMIT + (64 << 10)
LENGTH = struct.Struct(">II")  # bytes of the list as it is sent, and its codec
FIELDS = {"d": 4, "f": 8, "l": 4, "h": 3, "k": 8, "x": 2}


def digest(content: bytes) -> str:
    """What a piece of content is known by."""
    return hashlib.sha256(content).hexdigest()


def pack(records: List[List[Any]], content: bytes, codec: Codec, kind: int, level: int) -> Tuple[int, bytes]:
    """The codec of the content, and the payload."""
    list_kind, packed_list = codec.pack(json.dumps(records, separators=(",", ":")).encode(), kind, level)
    kind, packed = codec.pack(content, kind, level)
    return kind, LENGTH.pack(len(packed_list), list_kind) + packed_list + packed


def split(payload: memoryview) -> Tuple[int, bytes, memoryview]:
    """The codec of the list, the list and the content, all still packed. Raises Malformed."""
    if len(payload) < LENGTH.size:
        raise ProtocolError("a chunk of {} bytes".format(len(payload)))
    length, kind = LENGTH.unpack(payload[: LENGTH.size])
    rest = payload[LENGTH.size :]
    if length > len(rest):
        raise ProtocolError("a list that is longer than its chunk")
    return kind, bytes(rest[:length]), rest[length:]


def records_of(packed: bytes, kind: int, codec: Codec) -> List[List[Any]]:
    """The entries of a list, each with as many fields as its kind has. Raises Malformed."""
    try:
        records = json.loads(bytes(codec.unpack(packed, kind, MOST_LIST)).decode())
    except (ValueError, Unpackable, RecursionError) as e:
        raise ProtocolError("a list that cannot be read: {}".format(e))
    if not isinstance(records, list):
        raise ProtocolError("no list")
    for record in records:
        if not isinstance(record, list) or not record or FIELDS.get(str(record[0])) != len(record):
            raise ProtocolError("no entry: {!r}".format(record)[:200])
    return records


def content_of(packed: Data, kind: int, codec: Codec) -> Data:
    """The content of a chunk. Raises Malformed."""
    try:
        return codec.unpack(packed, kind, CONTENT_LIMIT)
    except Unpackable as e:
        raise ProtocolError("content that cannot be read: {}".format(e))
