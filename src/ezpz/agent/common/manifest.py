"""The entries of a version, each file with a digest of its content; stored next to the receipt.

A manifest is a zlib stream of lines: a header {"format": ..., ...}, then one JSON array for each entry, in any order:

    ["d", path, mode, mtime_ns]                             a directory
    ["f", path, mode, mtime_ns, size, digest]               a file; its writer may add fields
    ["l", path, mtime_ns, target]                           a symbolic link
    ["h", path, path of the first name]                     a hard link to a file or link

Paths are relative to the top, which is not an entry. Bytes that are not UTF-8 are lone surrogates. A digest is the
SHA-256 of the content. If there is more than one block, it is that of the digests of the blocks in a row.
"""

import hashlib
import json
import os
import stat
import zlib
from operator import attrgetter
from typing import IO, Any, Dict, Iterable, List, NamedTuple, Tuple

from . import tree_version
from .cancel import NEVER, CancelToken
from .wire_paths import decode_path, decode_target, encode_path

FORMAT = "ezpz/manifest/1"
BLOCK = 512 << 10  # bytes
FIELDS = {
    "d": (("mode", int), ("mtime_ns", int)),
    "f": (("mode", int), ("mtime_ns", int), ("size", int), ("digest", str)),
    "l": (("mtime_ns", int), ("target", str)),
    "h": (("target", str),),
}  # after the kind and the path
VALUES = {kind: attrgetter("kind", "path", *(name for name, _ in fields)) for kind, fields in FIELDS.items()}
PRECISIONS = (100, 1000, 10**9)  # ns, of the times on filesystems that store no exact ones
SHOWN = 80  # characters of a bad entry in an error

ENCODE = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make a new encoder each time


class Unreadable(Exception):
    """A file that is no manifest, or a damaged one."""


class ManifestEntry(NamedTuple):
    """An entry of a version.

    Attributes:
        kind: "d", "f", "l", or "h"
        target: of a symbolic link; of a hard link the path of the first name
        extra: what the writer of a file has added
    """

    kind: str
    path: str
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    digest: str = ""
    target: str = ""
    extra: Tuple[Any, ...] = ()

    def to_json(self) -> List[Any]:
        """Return the array of an entry."""
        return [*VALUES[self.kind](self), *self.extra]


def parse_entry(record: Any) -> ManifestEntry:
    """Return an entry, from its array. Raise Unreadable."""
    is_list = isinstance(record, list) and len(record) > 1 and isinstance(record[0], str)
    fields = FIELDS.get(record[0]) if is_list else None
    if fields is None or type(record[1]) is not str or len(record) < len(fields) + 2:
        raise Unreadable("no entry of a manifest: {}".format(ascii(record)[:SHOWN]))
    values: Dict[str, Any] = {}
    for (name, kind), value in zip(fields, record[2:]):
        if type(value) is not kind or (name == "size" and int(value) < 0):
            raise Unreadable("no entry of a manifest: {}".format(ascii(record)[:SHOWN]))
        values[name] = value
    return ManifestEntry(record[0], record[1], extra=tuple(record[len(fields) + 2 :]), **values)


def parse_line(line: bytes) -> ManifestEntry:
    """Return an entry, from its line. Raise Unreadable."""
    try:
        return parse_entry(json.loads(line.decode("utf-8")))
    except (ValueError, RecursionError):
        raise Unreadable("a line of a manifest that cannot be read: {!r}".format(line[:SHOWN]))


def line_of(entry: ManifestEntry) -> bytes:
    """Return the line of an entry, with its line break."""
    return ENCODE(entry.to_json()).encode() + b"\n"


def digest(content: bytes) -> str:
    """Return the digest of the content of a file."""
    if len(content) <= BLOCK:
        return hashlib.sha256(content).hexdigest()
    return joined(hashlib.sha256(content[start : start + BLOCK]).digest() for start in range(0, len(content), BLOCK))


def joined(blocks: Iterable[bytes]) -> str:
    """Return the digest of a file of more than one block, from the SHA-256 of each."""
    return hashlib.sha256(b"".join(blocks)).hexdigest()


def digest_file(fd: int, size: int, cancel: CancelToken = NEVER) -> str:
    """Return the digest of an open file; `cancel` is checked for each block. Raise OSError."""
    if size <= BLOCK:
        return digest(os.pread(fd, size, 0))
    blocks = []
    for start in range(0, size, BLOCK):
        cancel.raise_if_cancelled()
        blocks.append(hashlib.sha256(os.pread(fd, min(BLOCK, size - start), start)).digest())
    return joined(blocks)


def manifest_digest(packed: bytes) -> str:
    """Return the digest of a packed manifest, by which the receipt next to it names it."""
    return hashlib.sha256(packed).hexdigest()


def line_hash(line: bytes) -> int:
    """Return what a line adds to the sum over a manifest, from which `content_digest` is made."""
    return int.from_bytes(hashlib.sha256(line).digest(), "big")


def content_digest(total: int) -> str:
    """Return the digest of all entries, from the sum over their lines: it does not depend on their order."""
    return tree_version.version_of(total)


def write(file: IO[bytes], header: Dict[str, Any], lines: Iterable[bytes]) -> None:
    """Write a manifest. Raise OSError."""
    packing = zlib.compressobj(1)
    file.write(packing.compress(json.dumps(dict(header, format=FORMAT), sort_keys=True).encode() + b"\n"))
    for line in lines:
        file.write(packing.compress(line))
    file.write(packing.flush())


def read(packed: bytes) -> List[ManifestEntry]:
    """Return the entries of a packed manifest, which is known to be complete by its digest. Raise Unreadable."""
    unpacking = zlib.decompressobj()
    try:
        lines = unpacking.decompress(packed)
    except zlib.error as e:
        raise Unreadable("a damaged manifest: {}".format(e))
    if not unpacking.eof or not lines.endswith(b"\n"):
        raise Unreadable("a manifest that is cut short")
    header, _, lines = lines[:-1].partition(b"\n")
    try:
        found = json.loads((b"[" + lines.replace(b"\n", b",") + b"]").decode())
        sound = json.loads(header.decode())["format"] == FORMAT
    except (ValueError, TypeError, LookupError, RecursionError):
        raise Unreadable("a manifest that cannot be read")
    if not sound:
        raise Unreadable("no manifest, or one of another ezpz")
    return [parse_entry(record) for record in found]


def by_name(entries: Iterable[ManifestEntry]) -> Dict[str, ManifestEntry]:
    """Return the entries by path; a hard link has the entry of the first name. Raise Unreadable."""
    found = {entry.path: entry for entry in entries}
    for name, entry in found.items():
        if entry.kind == "h":
            try:
                found[name] = found[entry.target]
            except KeyError:
                raise Unreadable("a further name of nothing: {!r}".format(name))
    return found


Differences = NamedTuple("Differences", [("changed", List[bytes]), ("missing", List[bytes]), ("extra", List[bytes])])
"""Paths of a tree that differ from its manifest: entries that changed, that are gone, and that were never in it."""


def compare(
    root: bytes, entries: Dict[str, ManifestEntry], cancel: CancelToken, *, contents: bool = False
) -> Differences:
    """Compare a tree with its entries by type, permissions, size, time, and link target. Raise OSError.

    Args:
        root: of the tree
        entries: by path, see `by_name`; it is emptied
        cancel: is checked for every entry
        contents: whether files are read as well, and compared with their digests
    """
    changed, extra = [], []
    for path, status in tree_version.walk(root):
        cancel.raise_if_cancelled()
        entry = entries.pop(encode_path(path), None)
        if entry is None:
            extra.append(path)
        elif not _has_facts(root, path, status, entry) or (contents and _content_differs(root, path, entry, cancel)):
            changed.append(path)
    return Differences(changed, sorted(map(decode_path, entries)), extra)


def _has_facts(root: bytes, path: bytes, status: os.stat_result, entry: ManifestEntry) -> bool:
    """Return whether a path, given its lstat, is what its entry says, except for the content."""
    mode = status.st_mode
    if entry.kind == "l":
        return stat.S_ISLNK(mode) and os.readlink(os.path.join(root, path)) == decode_target(entry.target)
    if mode & 0o7777 != entry.mode:
        return False
    if entry.kind == "d":
        return stat.S_ISDIR(mode)
    return stat.S_ISREG(mode) and status.st_size == entry.size and same_time(status.st_mtime_ns, entry.mtime_ns)


def same_time(found: int, expected: int) -> bool:
    """Return whether a time of a file, in ns, is what it should be, as exactly as its filesystem stores times."""
    return found == expected or any(found == expected // each * each for each in PRECISIONS)


def _content_differs(root: bytes, path: bytes, entry: ManifestEntry, cancel: CancelToken) -> bool:
    """Return whether a file has another content than its entry says."""
    if entry.kind != "f":
        return False
    try:
        fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        return bool(digest_file(fd, os.fstat(fd).st_size, cancel) != entry.digest)
    finally:
        os.close(fd)
