"""Bytecode: which `.pyc` of an environment are valid for their source, which are missing, and which go stale."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.yeet.model.entry import BYTECODE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ezpz.yeet.model.entry import Entry

HEADER = 16  # bytes before the code in a .pyc (PEP 552): magic, flags, then mtime and size, or a hash of the source
IMPORTED = re.compile(rb"(?:lib[^/]*/python\d+\.\d+t?|\.python|\.editable)/")
IN_CACHE = b"/" + BYTECODE_DIRECTORY + b"/"
CACHED = re.compile(rb"((?:.*/)?)__pycache__/([^/]+?)\.([^./]+)(?:\.opt-[^./]+)?\.pyc", re.DOTALL)
SECOND = 10**9  # nanoseconds
ALMOST = 999_000_000  # nanoseconds, from where on rounding may make a second of them
HASHED = (b"\1\0\0\0", b"\3\0\0\0")  # flags: never compared with the source, or with its hash
VALID, INVALID = -1, -2  # of a source whose bytecode was seen; before that, what its header has to say
BLOCK = 4096  # bytes; what a file takes on a disk is a multiple of this
GROWS = 1.5  # bytecode to source: 1.49 for 6,983 files of a venv of 3.11, 1.1 to 1.4 in others, 0.83 up to 3.10


@dataclass(frozen=True, slots=True)
class BytecodeTag:
    """Which bytecode an interpreter reads: the tag in its name, the magic number (4 bytes) that it begins with."""

    tag: bytes
    magic: bytes

    def name(self, source: bytes) -> bytes:
        """What the bytecode of `x.py` is called: `x.cpython-311.pyc`."""
        return b"%b.%b.pyc" % (source.removesuffix(b".py"), self.tag)

    def header(self, mtime_ns: int, size: int) -> bytes:
        """How bytecode begins that is valid for a source of this time and size."""
        return self.magic + bytes(4) + _facts(mtime_ns, size).to_bytes(8, "little")


@dataclass(frozen=True, slots=True)
class Stale:
    """Sources (`.py`, sorted) for which there is something to do.

    missing: import would compile them, and they have no bytecode
    renew: bytecode that was copied with them, if any, is of other content: `drop` it, and compile them
    """

    missing: tuple[bytes, ...]
    renew: tuple[bytes, ...]


class Bytecode:
    """The ledger of one copy; threads may tell it what they see in any order.

    It takes about 200 bytes for each source. There is no lock, since `setdefault` and `add` are atomic: of the two that
    tell of a source, the second one finds what the first one said.
    """

    def __init__(self, flavour: BytecodeTag) -> None:
        self.flavour = flavour
        self._suffix = b".%b.pyc" % flavour.tag
        self._plain = flavour.magic + bytes(4)
        self._hashed = tuple(flavour.magic + flags for flags in HASHED)
        self._sources: dict[bytes, int] = {}  # what the header has to say; VALID, INVALID; or an `_early` header
        self._elsewhere: set[bytes] = set()  # sources with bytecode that import would not have compiled
        self._patched: set[bytes] = set()

    def expect(self, entry: Entry) -> None:
        """Note a regular file of the source."""
        path = entry.path
        if path.endswith(b".py") and _is_imported(path):
            facts = _facts(entry.mtime_ns, entry.size)
            known = self._sources.setdefault(path, facts)
            if known is not facts:
                self._sources[path] = _verdict(_early(known), facts) if known < INVALID else facts

    def check(self, path: bytes, header: bytes) -> None:
        """Note a `.pyc` that was copied, by its first 16 bytes; that of -O or another interpreter stays as it is."""
        source = _compiled_from(path, self._suffix)
        if source is None or not _is_imported(source):
            cached = CACHED.fullmatch(path)
            source = b"%b%b.py" % cached.group(1, 2) if cached is not None else b""
            if source and not _is_imported(source):
                self._elsewhere.add(source)
        else:
            said = self._read(header)
            early = _early(said)
            known = self._sources.setdefault(source, early)
            if known is not early:
                self._sources[source] = _verdict(said, known) if known >= INVALID else early

    def patched(self, path: bytes) -> None:
        """Note a file whose content is not the source's; its bytecode may look valid and is not."""
        if path.endswith(b".py"):
            self._patched.add(path)

    def is_patched(self, path: bytes) -> bool:
        """Whether `patched` was told of this source."""
        return path in self._patched

    def stale(self) -> Stale:
        """What there is to do once everything was copied."""
        invalid = {path for path, facts in self._sources.items() if facts == INVALID}
        renew = invalid | {path for path in self._patched if self._is_expected(path) or path in self._elsewhere}
        missing = (path for path, facts in self._sources.items() if facts >= 0 and path not in renew)
        return Stale(tuple(sorted(missing)), tuple(sorted(renew)))

    def _is_expected(self, path: bytes) -> bool:
        return self._sources.get(path, _early(VALID)) >= INVALID

    def _read(self, header: bytes) -> int:
        """What a header says of its source: the facts, or VALID when it says none, or INVALID."""
        if len(header) < HEADER:
            return INVALID
        if header.startswith(self._plain):
            return int.from_bytes(header[8:HEADER], "little")
        return VALID if header.startswith(self._hashed) else INVALID


def estimate(entries: Iterable[Entry], tag: bytes) -> tuple[int, int]:
    """How many files of bytecode are missing by their names, and the bytes that they will about take on a disk.

    tag: the interpreter's, see Flavour; the entries may come in any order, and are passed through once
    Bytecode that is there and turns out to be stale is replaced, so that it counts for nothing here.
    """
    suffix = b".%b.pyc" % tag
    sizes: dict[int, int] = {}  # of sources without bytecode so far; by hash, as 300,000 paths would take 40 MB more
    compiled: set[int] = set()  # sources with bytecode that were not seen so far
    for entry in entries:
        path = entry.path
        if path.endswith(b".py"):
            key = hash(path)
            if key in compiled:
                compiled.discard(key)
            elif _is_imported(path) and entry.is_regular:
                sizes[key] = max(1, -int(-entry.size * GROWS // BLOCK)) * BLOCK
        elif path.endswith(suffix) and entry.is_regular:
            source = _compiled_from(path, suffix)
            if source is not None and sizes.pop(hash(source), None) is None:
                compiled.add(hash(source))
    return len(sizes), sum(sizes.values())


def source_of(name: bytes) -> bytes | None:
    """The name of the `.py` that a file of a `__pycache__` was compiled from, whoever by; None for any other file."""
    cached = CACHED.fullmatch(b"__pycache__/" + name)
    return None if cached is None else cached.group(2) + b".py"


def _compiled_from(path: bytes, suffix: bytes) -> bytes | None:
    """The path of the source of `FOLDER/__pycache__/x` + suffix, None for what is not so called."""
    if not path.endswith(suffix):
        return None
    folder, found, stem = path[: -len(suffix)].rpartition(IN_CACHE)
    return b"%b/%b.py" % (folder, stem) if found and stem and stem.find(b"/") < 0 else None


def _is_imported(path: bytes) -> bool:
    """Whether a `.py` is where import would look for it and write bytecode."""
    return path.find(IN_CACHE) < 0 and IMPORTED.match(path) is not None  # `in` takes twice as long as `find` for bytes


def _early(said: int) -> int:
    """What a header says, as a number that no source has and no verdict is; and back again."""
    return INVALID - 3 - said


def _verdict(said: int, facts: int) -> int:
    return VALID if said in (VALID, facts) else INVALID


def _facts(mtime_ns: int, size: int) -> int:
    """A source's time and size as bytecode has them: two numbers of 32 bits, the first one low."""
    seconds, rest = divmod(mtime_ns, SECOND)
    if seconds < 0 or rest > ALMOST:
        seconds = int(seconds + 1e-9 * rest)  # rounded as os.stat does: .9999999 is the next second
    return seconds & 0xFFFFFFFF | (size & 0xFFFFFFFF) << 32
