"""Manifest: what a version holds, entry by entry, with a digest of every file's content; kept beside its receipt.

A zlib stream of lines: a header {"format": ..., ...}, then one JSON array for each entry, in any order:

    ["d", path, mode, mtime_ns]                             a folder
    ["f", path, mode, mtime_ns, size, digest]               a file; further fields are whoever wrote it's own business
    ["l", path, mtime_ns, target]                           a symbolic link
    ["h", path, path of the first name]                     a further name of a file or link

Paths are relative to the top, which is not an entry; bytes that are no UTF-8 are lone surrogates. A digest is the
SHA-256 of the content, or of the digests of its blocks, one behind the other, when there is more than one block.
"""

import hashlib
import json
import os
import stat
import zlib
from typing import IO, Any, Dict, Iterable, List, NamedTuple

from ezpz.agent.common import tree
from ezpz.agent.common.cancel import NEVER, CancelToken
from ezpz.agent.common.wire_paths import decode_path, decode_target, encode_path

FORMAT = "ezpz/manifest/1"
BLOCK = 512 << 10  # bytes
FIELDS = {"d": 4, "f": 6, "l": 4, "h": 3}
KINDS = {"d": (str, int, int), "f": (str, int, int, int, str), "l": (str, int, str), "h": (str, str)}
GRAINS = (100, 1000, 10**9)  # ns: how exactly filesystems keep times that keep them no better

ENCODE = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make another one each time

Record = List[Any]


class Unreadable(Exception):
    """A manifest that is not one, or is damaged."""


def digest(content: bytes) -> str:
    """What the content of a file is known by."""
    if len(content) <= BLOCK:
        return hashlib.sha256(content).hexdigest()
    return joined(hashlib.sha256(content[start : start + BLOCK]).digest() for start in range(0, len(content), BLOCK))


def joined(blocks: Iterable[bytes]) -> str:
    """The digest of a file of more than one block, from the SHA-256 of each."""
    return hashlib.sha256(b"".join(blocks)).hexdigest()


def digest_file(fd: int, size: int, cancel: CancelToken = NEVER) -> str:
    """The digest of what is behind a descriptor; `cancel` is called for each block. Raises OSError."""
    if size <= BLOCK:
        return digest(os.pread(fd, size, 0))
    blocks = []
    for start in range(0, size, BLOCK):
        cancel.raise_if_cancelled()
        blocks.append(hashlib.sha256(os.pread(fd, min(BLOCK, size - start), start)).digest())
    return joined(blocks)


def line_of(record: Record) -> bytes:
    """An entry as the manifest has it, its line break included."""
    return ENCODE(record).encode() + b"\n"


def manifest_digest(packed: bytes) -> str:
    """What a packed manifest is known by in the receipt beside it: it is whole if it is this very one."""
    return hashlib.sha256(packed).hexdigest()


def line_hash(line: bytes) -> int:
    """What a line adds to the sum that a manifest's `contents` are, whatever their order; see `contents_of`."""
    return int.from_bytes(hashlib.sha256(line).digest(), "big")


def content_digest(total: int) -> str:
    """What is known of all entries by one name: equal for the same entries with the same content."""
    return tree.version_of(total)


def write(file: IO[bytes], header: Dict[str, Any], lines: Iterable[bytes]) -> None:
    """Write a manifest. Raises OSError."""
    packing = zlib.compressobj(1)
    file.write(packing.compress(json.dumps(dict(header, format=FORMAT), sort_keys=True).encode() + b"\n"))
    for line in lines:
        file.write(packing.compress(line))
    file.write(packing.flush())


def read(packed: bytes) -> List[Record]:
    """The entries of a packed manifest that is known to be whole, by `name_of`. Raises Unreadable."""
    unpacking = zlib.decompressobj()
    try:
        lines = unpacking.decompress(packed)
    except zlib.error as e:
        raise Unreadable("a damaged manifest: {}".format(e))
    if not unpacking.eof or not lines.endswith(b"\n"):
        raise Unreadable("a manifest that is cut short")
    header, _, lines = lines[:-1].partition(b"\n")
    try:
        found: "List[Record]" = json.loads((b"[" + lines.replace(b"\n", b",") + b"]").decode())
        sound = all(FIELDS[record[0]] <= len(record) for record in found)
        sound = sound and json.loads(header.decode())["format"] == FORMAT
    except (ValueError, TypeError, LookupError, RecursionError):
        raise Unreadable("a manifest that cannot be read")
    if not sound:
        raise Unreadable("no manifest, or one of another ezpz")
    return found


def record_of(line: bytes) -> Record:
    """An entry, from its line. Raises Unreadable."""
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Unreadable("a line of a manifest that cannot be read: {!r}".format(line[:80]))
    if not isinstance(record, list) or not record or not isinstance(record[0], str) or record[0] not in FIELDS:
        raise Unreadable("no entry of a manifest: {!r}".format(line[:80]))
    kinds = KINDS[record[0]]
    if len(record) <= len(kinds) or not all(type(value) is kind for value, kind in zip(record[1:], kinds)):
        raise Unreadable("no entry of a manifest: {!r}".format(line[:80]))
    return record


def by_name(records: Iterable[Record]) -> Dict[str, Record]:
    """The entries by path; a further name has the entry of the first one. Raises Unreadable."""
    found = {record[1]: record for record in records}
    for name, record in found.items():
        if record[0] == "h":
            try:
                found[name] = found[record[2]]
            except KeyError:
                raise Unreadable("a further name of nothing: {!r}".format(name))
    return found


Differences = NamedTuple("Differences", [("changed", List[bytes]), ("missing", List[bytes]), ("extra", List[bytes])])
"""What a tree has unlike its manifest: entries of other facts, entries that are gone, entries that were never in it."""


def compare(root: bytes, records: Dict[str, Record], cancel: CancelToken, *, contents: bool = False) -> Differences:
    """Hold a tree against its entries by type, permissions, size, time and link target. Raises OSError.

    contents: files are read as well, and held against their digests; records: by path, see `by_name`; is used up
    """
    changed, extra = [], []
    for path, status in tree.walk(root):
        cancel.raise_if_cancelled()
        record = records.pop(encode_path(path), None)
        if record is None:
            extra.append(path)
        elif not _is_as(root, path, status, record) or (contents and _content_differs(root, path, record, cancel)):
            changed.append(path)
    return Differences(changed, sorted(map(decode_path, records)), extra)


def _is_as(root: bytes, path: bytes, status: os.stat_result, record: Record) -> bool:
    """Whether what stands at a path, whose lstat is given, is what an entry tells, its content aside."""
    kind, mode = record[0], status.st_mode
    if kind == "l":
        return stat.S_ISLNK(mode) and os.readlink(os.path.join(root, path)) == decode_target(record[3])
    if mode & 0o7777 != record[2]:
        return False
    if kind == "d":
        return stat.S_ISDIR(mode)
    return stat.S_ISREG(mode) and status.st_size == record[4] and same_time(status.st_mtime_ns, record[3])


def same_time(standing: int, told: int) -> bool:
    """Whether a file's time, in ns, is what it was told to be, as exactly as its filesystem keeps times."""
    return standing == told or any(standing == told // grain * grain for grain in GRAINS)


def _content_differs(root: bytes, path: bytes, record: Record, cancel: CancelToken) -> bool:
    """Whether a file holds something else than its entry tells."""
    if record[0] != "f":
        return False
    try:
        fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        return bool(digest_file(fd, os.fstat(fd).st_size, cancel) != record[5])
    finally:
        os.close(fd)
