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
import io
import json
import os
import stat
import zlib
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from . import tree
from .chunk import raw, raw_target

FORMAT = "ezpz/manifest/1"
BLOCK = 512 << 10  # bytes
PIECE = 16 << 10  # bytes of a packed manifest read at once; zlib makes at most 1,032 times as many of them
LINE_LIMIT = 64 << 10  # bytes; a path has 4 kB, a target too, each at most 6 characters a byte in JSON
FIELDS = {"d": 4, "f": 6, "l": 4, "h": 3}
GRAINS = (1, 100, 1000, 10**9)  # ns: how exactly filesystems keep times

Record = List[Any]
Facts = Tuple[Any, ...]


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


def digest_file(fd: int, size: int, going_on: Callable[[], None] = lambda: None) -> str:
    """The digest of what is behind a descriptor; `going_on` is called for each block. Raises OSError."""
    if size <= BLOCK:
        return digest(os.pread(fd, size, 0))
    blocks = []
    for start in range(0, size, BLOCK):
        going_on()
        blocks.append(hashlib.sha256(os.pread(fd, min(BLOCK, size - start), start)).digest())
    return joined(blocks)


def line_of(record: Record) -> bytes:
    """An entry as the manifest has it, its line break included."""
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def summed(line: bytes) -> int:
    """What a line adds to the sum that a manifest's `contents` are, whatever their order; see `contents_of`."""
    return int.from_bytes(hashlib.sha256(line).digest(), "big")


def contents_of(total: int) -> str:
    """What is known of all entries by one name: equal for the same entries with the same content."""
    return tree.version_of(total)


def write(file: IO[bytes], header: Dict[str, Any], lines: Iterable[bytes]) -> None:
    """Write a manifest. Raises OSError."""
    packing = zlib.compressobj(1)
    file.write(packing.compress(json.dumps(dict(header, format=FORMAT), sort_keys=True).encode() + b"\n"))
    for line in lines:
        file.write(packing.compress(line))
    file.write(packing.flush())


def lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a packed manifest, the header first. Raises OSError, Unreadable."""
    unpacking = zlib.decompressobj()
    rest = b""
    try:
        while not unpacking.eof:
            packed = file.read(PIECE)
            if not packed:
                raise Unreadable("a manifest that is cut short")
            found = (rest + unpacking.decompress(packed)).split(b"\n")
            rest = found.pop()
            if len(rest) > LINE_LIMIT:
                raise Unreadable("a line of a manifest that is too long")
            for line in found:
                yield line
    except zlib.error as e:
        raise Unreadable("a damaged manifest: {}".format(e))
    if rest:
        raise Unreadable("a manifest that ends within a line")


def read(packed: bytes) -> List[Record]:
    """The entries of a packed manifest. Raises Unreadable."""
    return list(parse(lines(io.BytesIO(packed)))[1])


def parse(found: Iterator[bytes]) -> Tuple[Dict[str, Any], Iterator[Record]]:
    """The header of a manifest and its entries, given its lines. Raises Unreadable, also while they are read."""
    header = _json(next(found, b""))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise Unreadable("no manifest, or one of another ezpz")
    return header, map(record_of, found)


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Unreadable("a line of a manifest that cannot be read: {!r}".format(line[:80]))


def record_of(line: bytes) -> Record:
    """An entry, from its line. Raises Unreadable."""
    record = _json(line)
    if not isinstance(record, list) or not record or len(record) < FIELDS.get(str(record[0]), LINE_LIMIT):
        raise Unreadable("no entry of a manifest: {!r}".format(line[:80]))
    kinds = {"d": (str, int, int), "f": (str, int, int, int, str), "l": (str, int, str), "h": (str, str)}[record[0]]
    if not all(type(value) is kind for value, kind in zip(record[1:], kinds)):
        raise Unreadable("no entry of a manifest: {!r}".format(line[:80]))
    return record


def facts_of(record: Record, firsts: Dict[bytes, Facts]) -> Facts:
    """Mode with its type, size, time in ns, link target and digest of an entry, None for what does not count.

    firsts: the facts of the entries that others are further names of. Raises Unreadable.
    """
    kind = record[0]
    if kind == "d":
        return stat.S_IFDIR | record[2], 0, None, b"", ""
    if kind == "f":
        return stat.S_IFREG | record[2], record[4], record[3], b"", record[5]
    if kind == "l":
        return stat.S_IFLNK | 0o777, 0, None, raw_target(record[3]), ""
    try:
        return firsts[raw(record[2])]
    except KeyError:
        raise Unreadable("a further name of nothing: {!r}".format(record[1]))


def read_facts(records: Iterable[Record]) -> Dict[bytes, Facts]:
    """The facts of all entries by path; see `facts_of`. Raises Unreadable, chunk.Malformed."""
    found: "Dict[bytes, Facts]" = {}
    further = []
    for record in records:
        if record[0] == "h":
            further.append(record)
        else:
            found[raw(record[1])] = facts_of(record, found)
    for record in further:
        found[raw(record[1])] = facts_of(record, found)
    return found


Differences = NamedTuple("Differences", [("changed", List[bytes]), ("missing", List[bytes]), ("extra", List[bytes])])
"""What a tree has unlike its manifest: entries of other facts, entries that are gone, entries that were never in it."""


def compare(
    root: bytes, facts: Dict[bytes, Facts], going_on: Callable[[], None], *, contents: bool = False
) -> Differences:
    """Hold a tree against its manifest by type, permissions, size, time and link target. Raises OSError.

    contents: files are read as well, and held against their digests; facts: is used up
    """
    changed, extra = [], []
    for path, status in tree.walk(root):
        going_on()
        expected = facts.pop(path, None)
        if expected is None:
            extra.append(path)
            continue
        full = os.path.join(root, path)
        sound = is_as(full, status, expected)
        if sound and contents and stat.S_ISREG(status.st_mode):
            sound = _digest_at(full, going_on) == expected[4]
        if not sound:
            changed.append(path)
    return Differences(changed, sorted(facts), extra)


def is_as(path: bytes, status: os.stat_result, facts: Facts) -> bool:
    """Whether what stands at a path, whose lstat is given, has these facts, its content aside."""
    mode, size, mtime_ns, target, _ = facts
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(mode):
        return False
    if stat.S_ISLNK(mode):
        return bool(os.readlink(path) == target)
    if stat.S_IMODE(status.st_mode) != stat.S_IMODE(mode):
        return False
    same = status.st_size == size and same_time(status.st_mtime_ns, mtime_ns)
    return bool(stat.S_ISDIR(mode) or same)


def same_time(standing: int, told: int) -> bool:
    """Whether a file's time, in ns, is what it was told to be, as exactly as its filesystem keeps times."""
    return any(standing == told // grain * grain for grain in GRAINS)


def _digest_at(path: bytes, going_on: Callable[[], None]) -> Optional[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return digest_file(fd, os.fstat(fd).st_size, going_on)
    finally:
        os.close(fd)
