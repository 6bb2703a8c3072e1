"""Manifest of an archive, its first member: all entries, with a digest of every file.

It has the format of `agent.common.manifest`. It is not compressed, so that its length is known before any file has been
read. Its header has these fields:

    kind      what the tree is for: "venv", "conda", "tool" or "data"
    prefix    the original path of the tree if something in it may contain that path, else ""
    base      its base Python: {"mode": "embedded", "kept" or "none", "python": version, "prefix": original path}
    version   of the tree, as in receipts; contents: the digest of the content, see `manifest.content_digest`
    files, bytes    number of files, and bytes of content
    inputs    fingerprint of the source and of how the archive was made
    packed    bytes of the whole archive, 0 if unknown
    dropped   bytecode that was left out because its source file was changed
"""

from __future__ import annotations

import hashlib
import json
import stat
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, NamedTuple

from ezpz.agent.common import layout, manifest, tree_version
from ezpz.agent.common.wire_paths import encode_path
from ezpz.yeet.archive import tar_header
from ezpz.yeet.model.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ezpz.yeet.pack.archive_plan import ArchivePlan

DIGEST_PLACEHOLDER = "0" * 64
NUMBER_DIGITS = 20  # reserved for a number that is not known yet
GROWTH_DIGITS = 4  # by which the size of a file may grow: a path of two bytes becomes one of 4,096 at most
MANIFEST_MODE = 0o644
LINES_PER_UPDATE = 1024  # lines that are hashed at once


class PackedFile(NamedTuple):
    """Size and digest of a packed file.

    Attributes:
        size: bytes in the archive
        digest: of the content in the archive
        source_size: bytes in the source if relocation changed the size, else None
    """

    size: int
    digest: str
    source_size: int | None = None


class ArchiveManifest:
    """Manifest of an archive: its length and its fingerprint before the files are read, its text afterwards."""

    def __init__(self, plan: ArchivePlan, rules: object = None) -> None:
        """Compute the length and the fingerprint.

        Args:
            plan: the entries
            rules: whatever else decides what the archive contains
        """
        self.plan = plan
        self.length = self._reserved = 0
        digest = hashlib.sha256(json.dumps([plan.description.to_dict(), repr(rules)], sort_keys=True).encode())
        for lines in _join_lines(manifest_line(entry) for entry in plan.entries[1:]):
            self.length += len(lines)
            digest.update(lines)
        top = plan.entries[0]
        digest.update(b"%d %d" % (top.mode, top.mtime_ns))
        self.inputs = digest.hexdigest()
        if plan.recorder is not None:
            files = sum(1 for entry in plan.entries if entry.is_regular and not entry.link)
            self._reserved = files * (GROWTH_DIGITS + NUMBER_DIGITS + len(",[,true]"))
        self.length += self._reserved + len(self._header({}, ()))

    def render(self, files: Mapping[int, PackedFile], dropped: Iterable[int], size: int) -> bytes:
        """Return the text, `length` bytes.

        Args:
            files: the packed files, by their position among the entries
            dropped: the positions of entries that were left out
            size: bytes of the whole archive
        """
        entries, omitted = self.plan.entries, set(dropped)
        packed = [number for number in range(1, len(entries)) if number not in omitted]
        lines = [manifest_line(entries[number], files.get(number)) for number in packed]
        linked = self._linked_sizes(files)
        known = {
            "version": tree_version.version_of(sum(_fingerprint(entries[n], files.get(n), linked) for n in packed)),
            "contents": manifest.content_digest(sum(map(manifest.line_hash, lines))),
            "files": sum(1 for n, entry in enumerate(entries) if n not in omitted and not entry.is_directory),
            "bytes": sum(each.size for each in files.values()),
            "packed": size,
        }
        body = b"".join(lines)
        header = self._header(known, [encode_path(entries[n].path) for n in sorted(omitted)])
        return header + b" " * (self.length - len(header) - len(body) - 1) + b"\n" + body

    def _linked_sizes(self, files: Mapping[int, PackedFile]) -> dict[bytes, int]:
        """Return the packed size of every file that has hard links, by its path."""
        entries = self.plan.entries
        firsts = {entry.link for entry in entries if entry.link}
        return {entries[n].path: each.size for n, each in files.items() if entries[n].path in firsts}

    def _header(self, known: dict[str, Any], dropped: Iterable[str]) -> bytes:
        """Return the header without a line break, with as much space as it will need while nothing is `known`."""
        number = 10**NUMBER_DIGITS - 1
        unknown = {"version": DIGEST_PLACEHOLDER, "contents": DIGEST_PLACEHOLDER}
        later = {**unknown, "files": number, "bytes": number, "packed": number}
        description = self.plan.description.to_dict()
        facts = {"format": manifest.FORMAT, **description, "inputs": self.inputs, **(known or later)}
        facts["dropped"] = list(dropped)
        return json.dumps(facts, sort_keys=True).encode() + (b"" if known else b" \n")


def manifest_line(entry: Entry, packed: PackedFile | None = None) -> bytes:
    """Return the line of an entry, as `manifest.line_of` formats it; without `packed` only its length is right."""
    path = quoted(encode_path(entry.path))
    if entry.link:
        line = f'["h",{path},{quoted(encode_path(entry.link))}]\n'
    elif stat.S_ISDIR(entry.mode):
        line = f'["d",{path},{entry.mode & 0o7777},{entry.mtime_ns}]\n'
    elif stat.S_ISLNK(entry.mode):
        line = f'["l",{path},{entry.mtime_ns},{quoted(encode_path(entry.target))}]\n'
    else:
        size, digest = (entry.size, DIGEST_PLACEHOLDER) if packed is None else packed[:2]
        changed = "" if packed is None or packed.source_size is None else f",[{packed.source_size},true]"
        line = f'["f",{path},{entry.mode & 0o7777},{entry.mtime_ns},{size},"{digest}"{changed}]\n'
    return line.encode()


def manifest_member(text: bytes) -> bytes:
    """Return the member of an archive that holds a manifest."""
    entry = Entry(layout.MANIFEST, stat.S_IFREG | MANIFEST_MODE, 0, len(text))
    return tar_header.member(entry) + text + tar_header.padding(len(text))


def _join_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines, many at a time."""
    gathered: list[bytes] = []
    for line in lines:
        gathered.append(line)
        if len(gathered) == LINES_PER_UPDATE:
            yield b"".join(gathered)
            gathered.clear()
    yield b"".join(gathered)


def _fingerprint(entry: Entry, packed: PackedFile | None, linked: Mapping[bytes, int]) -> int:
    """Return the fingerprint of an entry in its archive, as `summarize` computes it of the unpacked one."""
    mode = 0o120777 if entry.is_symlink else entry.mode
    size = 0 if packed is None else packed.size
    if entry.link and entry.is_regular:
        size = linked[entry.link]
    return tree_version.fingerprint(entry.path, mode, size, entry.mtime_ns, entry.target)
