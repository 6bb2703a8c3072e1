"""Contents: the manifest of an archive, its first member: what is in it, with a digest of every file.

It is `agent.manifest`'s, not compressed, so that its length is known before any file has been read. Its header says:

    kind      what the tree is for: "venv", "conda", "tool" or "data"
    prefix    where it stood, if something in it may name that place, else ""
    base      its interpreter: {"mode": "embedded", "kept" or "none", "python": version, "prefix": where it stood}
    version   of the tree, as in receipts; contents: see `manifest.contents_of`
    files, bytes    how much there is
    inputs    all that it was made of and how, by one name
    packed    bytes of the whole archive, 0 when that is not known
    dropped   bytecode that was left out since its source was changed
"""

from __future__ import annotations

import hashlib
import json
import stat
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, NamedTuple

from ezpz.agent.common import layout, manifest, tree
from ezpz.agent.common.wire_paths import encode_path
from ezpz.yeet.archive import tar_header
from ezpz.yeet.model.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ezpz.yeet.pack.collect import ArchivePlan

NO_DIGEST = "0" * 64
NUMBER = 20  # digits for what is not known beforehand
GROWTH = 4  # digits by which a file's size may grow: a path of two bytes becomes one of 4,096 at most
MODE = 0o644  # of the manifest
PIECE = 1024  # lines that are hashed at once


class PackedFile(NamedTuple):
    """What was packed of a file: its size and digest; was: its size in the source if it was changed, else None."""

    size: int
    digest: str
    was: int | None = None


def line_of(entry: Entry, taken: PackedFile | None = None) -> bytes:
    """The line of an entry, as `manifest.line_of` makes it; without `taken` it only has the right length."""
    path = quoted(encode_path(entry.path))
    if entry.link:
        line = f'["h",{path},{quoted(encode_path(entry.link))}]\n'
    elif stat.S_ISDIR(entry.mode):
        line = f'["d",{path},{entry.mode & 0o7777},{entry.mtime_ns}]\n'
    elif stat.S_ISLNK(entry.mode):
        line = f'["l",{path},{entry.mtime_ns},{quoted(encode_path(entry.target))}]\n'
    else:
        size, digest = (entry.size, NO_DIGEST) if taken is None else taken[:2]
        made = "" if taken is None or taken.was is None else f",[{taken.was},true]"
        line = f'["f",{path},{entry.mode & 0o7777},{entry.mtime_ns},{size},"{digest}"{made}]\n'
    return line.encode()


class ArchiveManifest:
    """The manifest of a parcel: how long it will be, what it was made of, and at last its text."""

    def __init__(self, parcel: ArchivePlan, rules: object = None) -> None:
        """`rules`: what else decides what is made of it."""
        self.parcel = parcel
        if not parcel.about:
            parcel.about.update(kind="data", prefix="", base={"mode": "none", "python": "", "prefix": ""})
        self.length = self._room = 0
        digest = hashlib.sha256(json.dumps([parcel.about, repr(rules)], sort_keys=True).encode())
        for lines in self._pieces(line_of(entry) for entry in parcel.entries[1:]):
            self.length += len(lines)
            digest.update(lines)
        top = parcel.entries[0]
        digest.update(b"%d %d" % (top.mode, top.mtime_ns))
        self.inputs = digest.hexdigest()
        if parcel.ledger is not None:
            files = sum(1 for entry in parcel.entries if entry.is_regular and not entry.link)
            self._room = files * (GROWTH + NUMBER + len(",[,true]"))
        self.length += self._room + len(self._header({}, ()))

    @staticmethod
    def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
        gathered: list[bytes] = []
        for line in lines:
            gathered.append(line)
            if len(gathered) == PIECE:
                yield b"".join(gathered)
                gathered.clear()
        yield b"".join(gathered)

    def text(self, taken: Mapping[int, PackedFile], dropped: Iterable[int], packed: int) -> bytes:
        """All of it, `length` bytes.

        taken: what was packed of each file, by its place among the entries; dropped: the places of what was left out
        packed: bytes of the whole archive
        """
        entries = self.parcel.entries
        out = set(dropped)
        lines = [line_of(entries[n], taken.get(n)) for n in range(1, len(entries)) if n not in out]
        version = sum(self._fingerprint(n, taken) for n in range(1, len(entries)) if n not in out)
        known = {
            "version": tree.version_of(version),
            "contents": manifest.content_digest(sum(map(manifest.line_hash, lines))),
            "files": sum(1 for n, entry in enumerate(entries) if n not in out and not entry.is_directory),
            "bytes": sum(each.size for each in taken.values()),
            "packed": packed,
        }
        body = b"".join(lines)
        header = self._header(known, [encode_path(entries[n].path) for n in sorted(out)])
        return header + b" " * (self.length - len(header) - len(body) - 1) + b"\n" + body

    def _fingerprint(self, number: int, taken: Mapping[int, PackedFile]) -> int:
        entries = self.parcel.entries
        entry = entries[number]
        mode = 0o120777 if entry.is_symlink else entry.mode
        size = taken[number].size if number in taken else 0
        if entry.link and entry.is_regular:
            size = self._sizes(taken)[entry.link]
        return tree.fingerprint(entry.path, mode, size, entry.mtime_ns, entry.target)

    def _sizes(self, taken: Mapping[int, PackedFile]) -> dict[bytes, int]:
        """What was packed of the files that others are further names of, by path."""
        if not hasattr(self, "_linked"):
            firsts = {entry.link for entry in self.parcel.entries if entry.link}
            entries = self.parcel.entries
            self._linked = {entries[n].path: each.size for n, each in taken.items() if entries[n].path in firsts}
        return self._linked

    def _header(self, known: dict[str, Any], dropped: Iterable[str]) -> bytes:
        """Its text without a line break; what is not `known` yet takes as much room as it ever will."""
        number, unknown = 10**NUMBER - 1, {"version": NO_DIGEST, "contents": NO_DIGEST}
        later = {**unknown, "files": number, "bytes": number, "packed": number}
        facts = {"format": manifest.FORMAT, **self.parcel.about, "inputs": self.inputs, **(known or later)}
        facts["dropped"] = list(dropped)
        return json.dumps(facts, sort_keys=True).encode() + (b"" if known else b" \n")


def manifest_member(text: bytes) -> bytes:
    """The member of an archive that holds a manifest."""
    entry = Entry(layout.MANIFEST, stat.S_IFREG | MODE, 0, len(text))
    return tar_header.member(entry) + text + tar_header.padding(len(text))
