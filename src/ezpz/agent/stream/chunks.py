"""Entries of a tree as the payload of a chunk, and back. Pure.

The payload is the length of the list, the list, and the content of the files in a row. List and content are compressed
each by itself. The list is JSON, one array for each entry, see `chunk_entry`.
"""

import hashlib
import json
import struct
from typing import List, Sequence, Tuple

from ..common.wire_paths import ProtocolError
from ..common.zstd import CorruptData, Data
from .chunk_entry import ChunkEntry, parse_entry
from .codec import Codec

CONTENT_LIMIT = 704 << 10  # bytes of content in a chunk
LIST_LIMIT = 256 << 10  # bytes of its list; with the longest possible paths it may be a little more
MAX_LIST = LIST_LIMIT + (64 << 10)
LENGTH = struct.Struct(">II")  # bytes of the list as it is sent, and its codec


def digest(content: bytes) -> str:
    """Return the SHA-256 of a piece of content."""
    return hashlib.sha256(content).hexdigest()


def pack(entries: Sequence[ChunkEntry], content: bytes, codec: Codec, kind: int, level: int) -> Tuple[int, bytes]:
    """Return the codec of the content, and the payload."""
    records = json.dumps([entry.to_json() for entry in entries], separators=(",", ":"))
    list_kind, packed_list = codec.pack(records.encode(), kind, level)
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


def parse_list(packed: bytes, kind: int, codec: Codec) -> List[ChunkEntry]:
    """Return the entries of a list, each with the fields of its kind. Raise ProtocolError."""
    try:
        records = json.loads(bytes(codec.unpack(packed, kind, MAX_LIST)).decode())
    except (ValueError, CorruptData, RecursionError) as e:
        raise ProtocolError("a list that cannot be read: {}".format(e))
    if not isinstance(records, list):
        raise ProtocolError("no list")
    return [parse_entry(record) for record in records]


def unpack_content(packed: Data, kind: int, codec: Codec) -> Data:
    """Return the content of a chunk. Raise ProtocolError."""
    try:
        return codec.unpack(packed, kind, CONTENT_LIMIT)
    except CorruptData as e:
        raise ProtocolError("content that cannot be read: {}".format(e))
